// The exports of the component. Put together with index.js and the user's file by build.js.

import { declared as functions } from "./index.js";

const BATCH = 8192;
const handles = new Map();
let last = 0;

function keep(value) {
  handles.set(++last, value);
  return last;
}

function failed(error, row) {
  const message = error instanceof Error && error.name !== "Error" ? `${error.name}: ${error.message}` : String(error?.message ?? error);
  const failure = new Error(message);
  failure.payload = { message, row };
  return failure;
}

// ---- texts; the engine has no TextDecoder ----

function decode(data, from, to) {
  let text = "";
  for (let at = from; at < to;) {
    const a = data[at++];
    if (a < 0x80) text += String.fromCharCode(a);
    else if (a < 0xe0) text += String.fromCharCode(((a & 31) << 6) | (data[at++] & 63));
    else if (a < 0xf0) text += String.fromCharCode(((a & 15) << 12) | ((data[at++] & 63) << 6) | (data[at++] & 63));
    else text += String.fromCodePoint(((a & 7) << 18) | ((data[at++] & 63) << 12) | ((data[at++] & 63) << 6) | (data[at++] & 63));
  }
  return text;
}

class Growing {
  constructor(room) {
    this.data = new Uint8Array(room);
    this.len = 0;
  }
  reserve(more) {
    if (this.len + more <= this.data.length) return;
    const data = new Uint8Array(Math.max(this.data.length * 2, this.len + more));
    data.set(this.data.subarray(0, this.len));
    this.data = data;
  }
  text(text) {
    this.reserve(text.length * 3);
    const data = this.data;
    let at = this.len;
    for (let i = 0; i < text.length; i++) {
      let c = text.charCodeAt(i);
      if (c < 0x80) data[at++] = c;
      else if (c < 0x800) { data[at++] = 0xc0 | (c >> 6); data[at++] = 0x80 | (c & 63); }
      else {
        if (c >= 0xd800 && c < 0xe000) {
          const low = c < 0xdc00 ? text.charCodeAt(i + 1) : NaN;
          if (low >= 0xdc00 && low < 0xe000) { c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00); i++; }
          else c = 0xfffd;
        }
        if (c < 0x10000) data[at++] = 0xe0 | (c >> 12);
        else { data[at++] = 0xf0 | (c >> 18); data[at++] = 0x80 | ((c >> 12) & 63); }
        data[at++] = 0x80 | ((c >> 6) & 63);
        data[at++] = 0x80 | (c & 63);
      }
    }
    this.len = at;
  }
  bytes(bytes) {
    this.reserve(bytes.length);
    this.data.set(bytes, this.len);
    this.len += bytes.length;
  }
  done() {
    return this.data.subarray(0, this.len).slice();
  }
}

// ---- numbers are bytes ----

const ARRAYS = {
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array,
  uint64: BigUint64Array, float32: Float32Array, float64: Float64Array,
};

/** Numbers of a type from their bytes. */
function numbers(tag, raw) {
  const Numbers = ARRAYS[tag], width = Numbers.BYTES_PER_ELEMENT;
  // Copied to where it is aligned, if it is not.
  return raw.byteOffset % width ? new Numbers(raw.slice().buffer) : new Numbers(raw.buffer, raw.byteOffset, raw.byteLength / width);
}

const bytesOf = values => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

// ---- columns → arrays of values, null for NULL ----

const bit = (bits, at) => (bits[at >> 3] >> (at & 7)) & 1;

function read(type, column, count) {
  const [values] = readNode(type, column.nodes, 0, column.constant ? 1 : count);
  const nulls = column.nodes[0].validity.length > 0;
  return { values: column.constant ? new Array(count).fill(values[0]) : values, nulls };
}

function readNode(type, nodes, at, count) {
  const node = nodes[at++], raw = node.values.val;
  let values;
  switch (type.tag) {
    case "bytes": {
      const data = raw.data, offsets = numbers("int32", raw.offsets), text = type.word === "Utf8";
      values = new Array(count);
      for (let i = 0; i < count; i++) values[i] = text ? decode(data, offsets[i], offsets[i + 1]) : data.slice(offsets[i], offsets[i + 1]);
      break;
    }
    case "booleans":
      values = Array.from({ length: count }, (_, i) => bit(raw, i) === 1);
      break;
    case "decimals":
      values = Array.from({ length: count }, (_, i) => {
        let whole = 0n;
        for (let b = 15; b >= 0; b--) whole = (whole << 8n) | BigInt(raw[16 * i + b]);
        return BigInt.asIntN(128, whole);
      });
      break;
    case "lists": {
      const offsets = numbers("int32", raw);
      let items;
      [items, at] = readNode(type.children[0], nodes, at, offsets[count] ?? 0);
      items = Array.from(items);
      values = Array.from({ length: count }, (_, i) => items.slice(offsets[i], offsets[i + 1]));
      break;
    }
    case "structs": {
      const fields = [];
      for (const child of type.children) {
        let field;
        [field, at] = readNode(child, nodes, at, count);
        fields.push(field);
      }
      values = Array.from({ length: count }, (_, i) => Object.fromEntries(type.fields.map((name, f) => [name, fields[f][i]])));
      break;
    }
    default:
      values = numbers(type.tag, raw);
  }
  if (node.validity.length) {
    values = Array.from(values);
    for (let i = 0; i < count; i++) if (!bit(node.validity, i)) values[i] = null;
  }
  return [values, at];
}

// ---- and back ----

function write(type, values) {
  const nodes = [];
  writeNode(type, values, nodes);
  return { nodes, constant: false };
}

function writeNode(type, values, nodes) {
  const count = values.length, node = { values: null, validity: new Uint8Array(0) };
  nodes.push(node);
  let val, nulls = false;
  if (Array.isArray(values)) {
    for (let i = 0; i < count && !nulls; i++) nulls = values[i] == null;
  }
  if (nulls) {
    node.validity = new Uint8Array((count + 7) >> 3);
    for (let i = 0; i < count; i++) if (values[i] != null) node.validity[i >> 3] |= 1 << (i & 7);
  }
  switch (type.tag) {
    case "bytes": {
      const offsets = new Int32Array(count + 1), data = new Growing(count * 16), text = type.word === "Utf8";
      for (let i = 0; i < count; i++) {
        if (values[i] != null) text ? data.text(String(values[i])) : data.bytes(values[i]);
        offsets[i + 1] = data.len;
      }
      val = { offsets: bytesOf(offsets), data: data.done() };
      break;
    }
    case "booleans":
      val = new Uint8Array((count + 7) >> 3);
      for (let i = 0; i < count; i++) if (values[i]) val[i >> 3] |= 1 << (i & 7);
      break;
    case "decimals":
      val = new Uint8Array(16 * count);
      for (let i = 0; i < count; i++) {
        let whole = BigInt.asUintN(128, BigInt(values[i] ?? 0));
        for (let b = 0; b < 16; b++, whole >>= 8n) val[16 * i + b] = Number(whole & 255n);
      }
      break;
    case "lists": {
      const items = [], offsets = new Int32Array(count + 1);
      for (let i = 0; i < count; i++) {
        for (const item of values[i] ?? []) items.push(item);
        offsets[i + 1] = items.length;
      }
      val = bytesOf(offsets);
      writeNode(type.children[0], items, nodes);
      break;
    }
    case "structs":
      val = count;
      type.fields.forEach((name, f) => writeNode(type.children[f], Array.from(values, value => value?.[name] ?? null), nodes));
      break;
    default: {
      const Numbers = ARRAYS[type.tag], big = type.tag === "int64" || type.tag === "uint64";
      if (values instanceof Numbers) {
        val = bytesOf(values);
        break;
      }
      const packed = new Numbers(count);
      val = bytesOf(packed);
      if (type.tag.startsWith("float")) {
        for (let i = 0; i < count; i++) packed[i] = values[i];
        break;
      }
      for (let i = 0; i < count; i++) {
        const value = values[i];
        if (value == null) continue;
        packed[i] = big ? BigInt(value) : value;
        if (packed[i] != value) throw new RangeError(`${value} does not fit ${type.name ?? type.word}`);
      }
    }
  }
  node.values = { tag: type.tag, val };
}

// ---- the world ----

export function describe() {
  return JSON.stringify({
    abi: "1.0",
    functions: functions.map(f => ({
      name: f.name,
      kind: f.kind,
      args: f.args.map(type => type.name),
      ...(f.kind === "table" ? { columns: f.columns.map(([name, type]) => [name, type.name]) } : { returns: f.returns.name }),
      ...(f.kind === "aggregate" ? { state: f.state.map(type => type.name) } : {}),
      ...(f.kind === "scalar" ? { nulls: f.nulls ? "called" : "propagate", volatility: f.volatility ?? "immutable" } : {}),
      ...(f.doc ? { doc: f.doc } : {}),
    })),
  });
}

export function scalar(index, count, args) {
  const f = functions[index], call = f.call;
  let row;
  try {
    const read_ = f.args.map((type, i) => read(type, args[i], count)), columns = read_.map(column => column.values);
    if (f.lists) {
      const out = call(...columns);
      if (out.length !== count) throw new Error(`${out.length} results for ${count} rows`);
      return write(f.returns, out);
    }
    const skip = f.nulls ? [] : read_.filter(column => column.nulls).map(column => column.values);
    const Numbers = skip.length === 0 && f.returns.tag.startsWith("float") ? ARRAYS[f.returns.tag] : Array;
    const out = new Numbers(count);
    row = 0;
    if (skip.length > 0) {
      for (; row < count; row++) out[row] = skip.some(values => values[row] === null) ? null : call(...columns.map(values => values[row]));
    } else if (columns.length === 1) {
      for (const a = columns[0]; row < count; row++) out[row] = call(a[row]);
    } else if (columns.length === 2) {
      for (const [a, b] = columns; row < count; row++) out[row] = call(a[row], b[row]);
    } else {
      for (; row < count; row++) out[row] = call(...columns.map(values => values[row]));
    }
    row = undefined;
    return write(f.returns, out);
  } catch (error) {
    throw failed(error, row);
  }
}

export function aggregateNew(index) {
  return keep({ f: functions[index], groups: [] });
}

function room(all, count) {
  while (all.groups.length < count) all.groups.push(new all.f.Group());
}

function take(handle, types, count, args, ids, groupCount, method) {
  const all = handles.get(handle);
  let row = 0;
  try {
    room(all, groupCount);
    ids = numbers("uint32", ids);
    const read_ = types.map((type, i) => read(type, args[i], count)), columns = read_.map(column => column.values);
    const skip = all.f.nulls || method === "merge" ? [] : read_.filter(column => column.nulls).map(column => column.values);
    for (; row < count; row++) {
      if (skip.some(values => values[row] === null)) continue;
      all.groups[ids[row]][method](...columns.map(values => values[row]));
    }
  } catch (error) {
    throw failed(error, row);
  }
}

export function aggregateUpdate(handle, count, args, groups, groupCount) {
  take(handle, handles.get(handle).f.args, count, args, groups, groupCount, "update");
}

export function aggregateMerge(handle, count, state, groups, groupCount) {
  take(handle, handles.get(handle).f.state, count, state, groups, groupCount, "merge");
}

function first(handle, count) {
  const all = handles.get(handle);
  room(all, count);
  return all.groups.splice(0, count);
}

export function aggregateState(handle, count) {
  try {
    const { f } = handles.get(handle), states = first(handle, count).map(group => group.state());
    return f.state.map((type, i) => write(type, states.map(state => state[i])));
  } catch (error) {
    throw failed(error);
  }
}

export function aggregateEvaluate(handle, count) {
  try {
    const { f } = handles.get(handle);
    return write(f.returns, first(handle, count).map(group => group.evaluate()));
  } catch (error) {
    throw failed(error);
  }
}

export function aggregateSize(handle) {
  return BigInt(256 * handles.get(handle).groups.length);
}

export function aggregateDrop(handle) {
  handles.delete(handle);
}

export function tableOpen(index, args) {
  const f = functions[index];
  try {
    const values = f.args.map((type, i) => read(type, args[i], 1).values[0]);
    if (!f.nulls && values.includes(null)) return keep({ f, rows: [][Symbol.iterator]() });
    const rows = f.call(...values)[Symbol.iterator]();
    // A generator has not begun: its first row tells whether the arguments are good.
    return keep({ f, rows, ahead: rows.next() });
  } catch (error) {
    throw failed(error, 0);
  }
}

export function tableNext(handle) {
  const cursor = handles.get(handle), batch = [];
  try {
    let next = cursor.ahead ?? cursor.rows.next();
    cursor.ahead = undefined;
    while (!next.done) {
      batch.push(next.value);
      if (batch.length === BATCH) break;
      next = cursor.rows.next();
    }
    if (batch.length === 0) return undefined;
    return { count: batch.length, columns: cursor.f.columns.map(([, type], i) => write(type, batch.map(row => row[i]))) };
  } catch (error) {
    throw failed(error);
  }
}

export function tableClose(handle) {
  handles.delete(handle);
}
