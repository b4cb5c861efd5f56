// Finds what is marked with @scalar, @aggregate, @table or @record in the files that asc is given, writes the exports of the columnar ABI for
// it, and puts its description into the custom section.
//
//     @scalar  export function slug(text: string): string { ... }
//     @scalar("Date32", "Date32")  export function nextDay(day: i32): i32 { ... }        // types in SQL: result, arguments
//
// asc functions.ts --transform sparklet-udf-assemblyscript/transform -O3 --use abort= -o functions.wasm

import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
// asc's kinds of nodes.
const FUNCTION = 56, CLASS = 52;
const TYPES = {
  bool: "Boolean", i8: "Int8", i16: "Int16", i32: "Int32", i64: "Int64", u8: "UInt8", u16: "UInt16", u32: "UInt32", u64: "UInt64",
  f32: "Float32", f64: "Float64", string: "Utf8", String: "Utf8", Uint8Array: "Binary",
};

/** A type as it is written. */
function written(type) {
  const name = type.name?.identifier?.text;
  const args = type.typeArguments ?? [];
  return (args.length ? `${name}<${args.map(written).join(", ")}>` : name) + (type.isNullable ? " | null" : "");
}

/** The name in SQL of a type, and whether NULL is one of its values. */
function sql(type, records, where) {
  const name = type.name?.identifier?.text, args = type.typeArguments ?? [];
  if (name === "Maybe" && args.length === 1) return { ...sql(args[0], records, where), nullable: true };
  if ((name === "Array" || name === "StaticArray") && args.length === 1) {
    return { name: `List(${sql(args[0], records, where).name})`, nullable: type.isNullable };
  }
  const found = TYPES[name] ?? records.get(name);
  if (!found) throw new Error(`${where}: no type in SQL for ${written(type)}; say it in the decorator`);
  return { name: found, nullable: type.isNullable };
}

/** The decorator of one of these names, with its texts. */
function decorator(node, name) {
  const found = node.decorators?.find(d => d.name.text === name);
  return found && (found.args ?? []).map(arg => arg.value);
}

const named = (statement, kind, name) => statement.kind === kind && decorator(statement, name);

export default class SparkletTransform {
  afterParse(parser) {
    if (this.json) return;
    const functions = [], glue = [], imports = [];
    const records = new Map();
    for (const source of parser.sources.filter(s => s.sourceKind === 1 && !s.internalPath.startsWith("~lib"))) {
      const names = [];
      for (const s of [...source.statements]) if (named(s, CLASS, "record")) this.record(s, records, parser);
      for (const s of source.statements) {
        if (named(s, FUNCTION, "scalar")) this.scalar(s, decorator(s, "scalar"), records, functions, glue);
        else if (named(s, CLASS, "aggregate")) this.aggregate(s, decorator(s, "aggregate"), records, functions, glue);
        else if (named(s, FUNCTION, "table")) this.table(s, decorator(s, "table"), records, functions, glue);
        else continue;
        names.push(s.name.text);
      }
      for (const s of source.statements) if (s.kind === CLASS && decorator(s, "record")) names.push(s.name.text);
      if (names.length) imports.push(`import { ${names.join(", ")} } from "./${source.internalPath.split("/").pop()}";`);
      this.folder ??= dirname(source.normalizedPath);
    }
    if (!functions.length) return;
    this.json = JSON.stringify({ abi: "1.0", functions });
    const library = relative(join(this.baseDir, this.folder), join(here, "assembly/index")).replaceAll("\\", "/");
    const text = `
      import { Col, Decimal, Handles, Maybe, Writer, alloc, begin, column, errorMessage, errorRow, finishBatch, finishColumn, free, hasFailed,
               isNull, read } from "${library.startsWith(".") ? library : `./${library}`}";
      ${imports.join("\n")}
      export function sparklet_abi(): i32 { return 0x10000; }
      export function sparklet_alloc(size: u32, align: u32): usize { return alloc(size, align); }
      export function sparklet_free(at: usize, size: u32, align: u32): void { free(at, size, align); }
      export function sparklet_error(): i64 { return errorMessage(); }
      export function sparklet_error_row(): i64 { return errorRow(); }
      ${glue.join("\n")}`;
    parser.parseFile(text, `${this.folder === "." ? "" : `${this.folder}/`}sparklet_glue.ts`, true);
  }

  /** Gives a class of fields the code that reads and writes it. */
  record(node, records, parser) {
    const fields = node.members.filter(m => m.type && m.name && !m.signature);
    const given = decorator(node, "record");
    const kinds = fields.map((f, i) => given[i] ?? sql(f.type, records, `class ${node.name.text}`).name);
    records.set(node.name.text, `Struct(${fields.map((f, i) => `${f.name.text}: ${kinds[i]}`).join(", ")})`);
    const reads = fields.map((f, i) => `this.${f.name.text} = __sparklet.read<${written(f.type)}>(__sparklet.child(col, ${i}), at);`);
    const writes = fields.map((f, i) => `writer.children[${i}].push<${written(f.type)}>(this.${f.name.text});`);
    const scratch = new parser.constructor();
    scratch.parseFile(
      `class Scratch {
        __read(col: __sparklet.Col, at: i32): void { ${reads.join(" ")} }
        __write(writer: __sparklet.Writer): void { ${writes.join(" ")} }
      }`,
      node.range.source.normalizedPath,
      false,
    );
    for (const member of scratch.sources[0].statements[0].members) node.members.push(member);
    const source = node.range.source;
    if (!source.sparklet) {
      source.sparklet = true;
      const library = relative(join(this.baseDir, dirname(source.normalizedPath)), join(here, "assembly/index")).replaceAll("\\", "/");
      const helper = new parser.constructor();
      helper.parseFile(`import * as __sparklet from "${library.startsWith(".") ? library : `./${library}`}";`, source.normalizedPath, false);
      source.statements.unshift(helper.sources[0].statements[0]);
    }
  }

  /** The arguments of a signature: names in SQL, and the code that reads them. */
  arguments(parameters, given, records, where, columns = "c") {
    const types = parameters.map((p, i) => {
      if (given[i]) return { name: given[i], nullable: p.type.isNullable || p.type.name?.identifier?.text === "Maybe" };
      return sql(p.type, records, where);
    });
    return {
      names: types.map(t => t.name),
      nulls: types.some(t => t.nullable),
      open: parameters.map((_, i) => `const ${columns}${i} = column(batch, ${i});`).join(" "),
      isNull: types.map((t, i) => (t.nullable ? "" : `isNull(${columns}${i}, row)`)).filter(Boolean).join(" || ") || "false",
      read: parameters.map((p, i) => `read<${written(p.type)}>(${columns}${i}, row)`).join(", "),
    };
  }

  scalar(node, given, records, functions, glue) {
    const name = node.name.text, signature = node.signature, where = `function ${name}`;
    const returns = given[0] ?? sql(signature.returnType, records, where).name;
    const args = this.arguments(signature.parameters, given.slice(1), records, where);
    const sqlName = decorator(node, "named")?.[0] ?? name;
    functions.push({
      name: sqlName, kind: "scalar", export: `udf_${name}`, args: args.names, returns, nulls: args.nulls ? "called" : "propagate",
      volatility: decorator(node, "volatile") ? "volatile" : "immutable",
    });
    glue.push(`
      export function udf_${name}(batch: usize, out: usize): i32 {
        begin();
        const rows = load<i32>(batch), writer = new Writer("${returns}");
        ${args.open}
        for (let row = 0; row < rows; row++) {
          if (${args.isNull}) { writer.pushNull(); continue; }
          const value = ${name}(${args.read});
          if (hasFailed(row)) return -1;
          writer.push<${written(signature.returnType)}>(value);
        }
        finishColumn(writer, out);
        return 0;
      }`);
  }

  aggregate(node, given, records, functions, glue) {
    const name = node.name.text, where = `aggregate ${name}`;
    const method = wanted => {
      const found = node.members.find(m => m.name?.text === wanted && m.signature);
      if (!found) throw new Error(`${where}: it has no method ${wanted}`);
      return found.signature;
    };
    const update = this.arguments(method("update").parameters, [], records, where);
    const merge = this.arguments(method("merge").parameters, [], records, where);
    const result = method("evaluate").returnType, returns = given[0] ?? sql(result, records, where).name;
    const state = method("merge").parameters;
    functions.push({ name, kind: "aggregate", export: `udf_${name}`, args: update.names, state: merge.names, returns });
    const take = (step, args) => `
      export function udf_${name}_${step}(handle: i32, batch: usize, ids: usize, count: i32): i32 {
        begin();
        const groups = all_${name}.get(handle), rows = load<i32>(batch);
        while (groups.length < count) groups.push(new ${name}());
        ${args.open}
        for (let row = 0; row < rows; row++) {
          if (${args.isNull}) continue;
          groups[load<u32>(ids + row * 4)].${step}(${args.read});
          if (hasFailed(row)) return -1;
        }
        return 0;
      }`;
    glue.push(`
      const all_${name} = new Handles<${name}[]>();
      export function udf_${name}_new(): i32 { return all_${name}.add([]); }
      ${take("update", update)}
      ${take("merge", merge)}
      function first_${name}(handle: i32, n: i32): ${name}[] {
        const groups = all_${name}.get(handle);
        while (groups.length < n) groups.push(new ${name}());
        return groups.splice(0, n);
      }
      export function udf_${name}_state(handle: i32, n: i32, out: usize): i32 {
        begin();
        const groups = first_${name}(handle, n);
        const writers: Writer[] = [${merge.names.map(kind => `new Writer("${kind}")`).join(", ")}];
        for (let at = 0; at < n; at++) {
          ${state.map((p, i) => `writers[${i}].push<${written(p.type)}>(groups[at].${p.name.text});`).join(" ")}
        }
        finishBatch(writers, n, out);
        return 0;
      }
      export function udf_${name}_evaluate(handle: i32, n: i32, out: usize): i32 {
        begin();
        const groups = first_${name}(handle, n), writer = new Writer("${returns}");
        for (let at = 0; at < n; at++) {
          const value = groups[at].evaluate();
          if (hasFailed(at)) return -1;
          writer.push<${written(result)}>(value);
        }
        finishColumn(writer, out);
        return 0;
      }
      export function udf_${name}_size(handle: i32): i32 { return all_${name}.get(handle).length * (offsetof<${name}>() + 32); }
      export function udf_${name}_drop(handle: i32): void { all_${name}.drop(handle); }`);
  }

  /** A function that gives all rows at once: an array of a @record class, whose fields are the columns. */
  table(node, given, records, functions, glue) {
    const name = node.name.text, signature = node.signature, where = `table ${name}`;
    const args = this.arguments(signature.parameters, given, records, where);
    const row = signature.returnType.typeArguments?.[0];
    const struct = row && records.get(row.name.identifier.text);
    if (!struct) throw new Error(`${where}: it must return an Array of a class marked @record`);
    const columns = [];
    let depth = 0, from = 0;
    const inside = struct.slice(7, -1);
    for (let at = 0; at <= inside.length; at++) {
      const c = inside[at] ?? ",";
      if (c === "(") depth++;
      else if (c === ")") depth--;
      else if (c === "," && depth === 0) {
        const [column, ...type] = inside.slice(from, at).split(":");
        columns.push([column.trim(), type.join(":").trim()]);
        from = at + 1;
      }
    }
    functions.push({ name, kind: "table", export: `udf_${name}`, args: args.names, columns });
    const type = written(row);
    glue.push(`
      class Cursor_${name} { at: i32 = 0; constructor(public rows: ${type}[]) {} }
      const all_${name} = new Handles<Cursor_${name}>();
      export function udf_${name}_open(batch: usize): i32 {
        begin();
        ${args.open}
        const row = 0;
        if (${args.isNull}) return all_${name}.add(new Cursor_${name}([]));
        const rows = ${name}(${args.read});
        if (hasFailed(0)) return -1;
        return all_${name}.add(new Cursor_${name}(rows));
      }
      export function udf_${name}_next(handle: i32, out: usize): i32 {
        begin();
        const cursor = all_${name}.get(handle), writer = new Writer("${struct}");
        const end = min(cursor.at + 8192, cursor.rows.length), count = end - cursor.at;
        if (count == 0) return 1;
        while (cursor.at < end) writer.push<${type}>(cursor.rows[cursor.at++]);
        finishBatch(writer.children, count, out);
        return 0;
      }
      export function udf_${name}_close(handle: i32): void { all_${name}.drop(handle); }`);
  }

  afterCompile(module) {
    if (this.json) module.addCustomSection("sparklet.udf", new TextEncoder().encode(this.json));
  }
}
