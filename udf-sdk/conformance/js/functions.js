// The functions of the cases, in JavaScript.

import { aggregate, scalar, table } from "sparklet-udf";

for (const [bits, wrap] of [[8, n => (n << 24) >> 24], [16, n => (n << 16) >> 16], [32, n => n | 0]]) {
  scalar(`add_int${bits}`, [`Int${bits}`, `Int${bits}`], `Int${bits}`, (a, b) => wrap(a + b));
}
for (const [bits, wrap] of [[8, n => n & 255], [16, n => n & 65535], [32, n => n >>> 0]]) {
  scalar(`add_uint${bits}`, [`UInt${bits}`, `UInt${bits}`], `UInt${bits}`, (a, b) => wrap(a + b));
}
scalar("add_int64", ["Int64", "Int64"], "Int64", (a, b) => BigInt.asIntN(64, a + b));
scalar("add_uint64", ["UInt64", "UInt64"], "UInt64", (a, b) => BigInt.asUintN(64, a + b));
scalar("xor", ["Boolean", "Boolean"], "Boolean", (a, b) => a !== b);
scalar("half_float32", ["Float32"], "Float32", a => a / 2);
scalar("mul_add", ["Float64", "Float64"], "Float64", (a, b) => a * b + 1);
scalar("shout", ["Utf8"], "Utf8", text => text.replace(/[a-z]+/g, letters => letters.toUpperCase()) + "!");
scalar("or_else", ["Utf8", "Utf8"], "Utf8", (a, b) => a ?? b, { nulls: true });
scalar("is_missing", ["Int64"], "Boolean", a => a === null, { nulls: true });
scalar("reverse_bytes", ["Binary"], "Binary", bytes => bytes.slice().reverse());
scalar("double_decimal", ["Decimal128(12,2)"], "Decimal128(12,2)", a => a * 2n);
scalar("next_day", ["Date32"], "Date32", day => day + 1);
scalar("add_hour", ["Timestamp(us)"], "Timestamp(us)", a => a + 3_600_000_000n);
scalar("add_hour_utc", ["Timestamp(ms,UTC)"], "Timestamp(ms,UTC)", a => a + 3_600_000n);
scalar("negate", ["Duration(s)"], "Duration(s)", a => -a);
scalar("sum_list", ["List(Int64)"], "Int64", list => list.reduce((sum, item) => sum + (item ?? 0n), 0n));
scalar("letters", ["Utf8"], "List(Utf8)", text => [...text]);
scalar("nested", ["Int64"], "List(List(Int64))", n => Array.from({ length: Number(n) }, (_, i) => Array.from({ length: i }, (_, j) => j)));
scalar("swap", ["Struct(x: Float64, y: Float64)"], "Struct(x: Float64, y: Float64)", ({ x, y }) => ({ x: y, y: x }));
scalar("tag", ["Int64", "Utf8"], "Struct(n: Int64, words: List(Utf8))", (n, text) => ({ n: n < 0n ? null : n, words: split(text) }));
scalar("checked_div", ["Int64", "Int64"], "Int64", (a, b) => {
  if (b === 0n) throw new Error("division by zero");
  return a / b;
});
scalar("twice", ["Int64"], "Int64", a => a * 2n);
scalar("twice", ["Utf8"], "Utf8", a => a + a);
scalar("forty_two", [], "Int32", () => 42);

function split(text) {
  return text.split(/\s+/).filter(word => word);
}

/** The average of values by weight. */
class Wavg {
  sum = 0;
  weight = 0;

  update(value, weight) {
    this.merge(value * weight, weight);
  }

  merge(sum, weight) {
    this.sum += sum;
    this.weight += weight;
  }

  state() {
    return [this.sum, this.weight];
  }

  evaluate() {
    return this.weight === 0 ? null : this.sum / this.weight;
  }
}

aggregate("wavg", ["Float64", "Float64"], ["Float64", "Float64"], "Float64", Wavg);

/** The longest text; of equally long ones the first in order. */
class Longest {
  best = null;

  update(text) {
    if (text === null) return;
    const best = this.best;
    if (best === null || text.length > best.length || (text.length === best.length && text < best)) this.best = text;
  }

  merge(text) {
    this.update(text);
  }

  state() {
    return [this.best];
  }

  evaluate() {
    return this.best;
  }
}

aggregate("longest", ["Utf8"], ["Utf8"], "Utf8", Longest);

/** How many different texts there are. */
class Distinct {
  texts = new Set();

  update(text) {
    this.texts.add(text);
  }

  merge(texts) {
    for (const text of texts) this.texts.add(text);
  }

  state() {
    return [[...this.texts]];
  }

  evaluate() {
    return this.texts.size;
  }
}

aggregate("distinct_texts", ["Utf8"], ["List(Utf8)"], "Int64", Distinct);

table("words", ["Utf8"], { word: "Utf8", at: "Int32" }, text => split(text).map((word, at) => [word, at]));
table("series", ["Int64", "Int64"], { n: "Int64" }, function* (low, high) {
  if (low > high) throw new Error("the series ends before it begins");
  for (let n = low; n <= high; n++) yield [n];
});
