// Functions for sparklet in JavaScript, built into one WebAssembly component.
//
//     import { scalar } from "sparklet-udf";
//
//     scalar("slug", ["Utf8"], "Utf8", text => text.toLowerCase().split(/\s+/).join("-"));
//
// `npx sparklet-udf build functions.js -o functions.wasm` makes the component. Types are those of SQL's description of functions. Values are
// booleans, numbers, strings, Uint8Array (Binary), bigint (Int64, UInt64, Timestamp, Duration, Decimal128 in units of its last place), days
// since 1970-01-01 (Date32), arrays (List) and objects (Struct). A NULL in an argument makes the result NULL without a call; with
// `{ nulls: true }` the function is called and sees `null`. What is thrown ends the query with its message and the row.

const functions = [];

const CASES = {
  Boolean: "booleans", Int8: "int8", Int16: "int16", Int32: "int32", Int64: "int64", UInt8: "uint8", UInt16: "uint16", UInt32: "uint32",
  UInt64: "uint64", Float32: "float32", Float64: "float64", Utf8: "bytes", Binary: "bytes", Decimal128: "decimals", Date32: "int32",
  Timestamp: "int64", Duration: "int64", List: "lists", Struct: "structs",
};

/** Reads the name of a type: { name, word, tag, children, fields }. */
function parseType(text) {
  let at = 0;
  const skip = () => { while (text[at] === " ") at++; };
  const take = c => { skip(); if (text[at] !== c) return false; at++; return true; };
  const word = () => { skip(); const m = /^\w+/.exec(text.slice(at)); if (!m) bad(); at += m[0].length; return m[0]; };
  const bad = () => { throw new TypeError(`\`${text}\` is not a type, e.g. Int64, Utf8, Decimal128(12,2), List(Utf8)`); };
  const one = () => {
    const name = word(), tag = CASES[name], type = { word: name, tag, children: [], fields: [] };
    if (!tag) bad();
    if (name === "List") {
      if (!take("(")) bad();
      type.children.push(one());
      if (!take(")")) bad();
    } else if (name === "Struct") {
      if (!take("(")) bad();
      do {
        type.fields.push(word());
        if (!take(":")) bad();
        type.children.push(one());
      } while (take(","));
      if (!take(")")) bad();
    } else if (take("(")) {
      do word(); while (take(","));
      if (!take(")")) bad();
    }
    return type;
  };
  const type = one();
  skip();
  if (at !== text.length) bad();
  type.name = text;
  return type;
}

function declare(kind, name, args, more) {
  functions.push({ kind, name, args: args.map(parseType), nulls: false, ...more });
}

/** Declares a scalar function. Options: nulls (called with NULLs), volatility, lists (called with whole columns, gives one), doc. */
export function scalar(name, args, returns, call, options = {}) {
  declare("scalar", name, args, { returns: parseType(returns), call, ...options });
}

/** Declares an aggregate function: a class whose instances are groups, with update(...), merge(...), state() → array, evaluate(). */
export function aggregate(name, args, state, returns, Group, options = {}) {
  declare("aggregate", name, args, { state: state.map(parseType), returns: parseType(returns), Group, ...options });
}

/** Declares a table function: a generator of rows (arrays). Columns: { word: "Utf8", at: "Int32" }. */
export function table(name, args, columns, call, options = {}) {
  const types = Object.entries(columns).map(([column, type]) => [column, parseType(type)]);
  declare("table", name, args, { columns: types, call, ...options });
}

export { functions as declared };
