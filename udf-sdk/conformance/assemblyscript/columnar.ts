// The columnar functions of the cases, in AssemblyScript.

import { Decimal, Maybe, fail } from "../../assemblyscript/assembly/index";

@scalar export function xor(a: bool, b: bool): bool { return a != b; }
@scalar export function add_int8(a: i8, b: i8): i8 { return a + b; }
@scalar export function add_int16(a: i16, b: i16): i16 { return a + b; }
@scalar export function add_int32(a: i32, b: i32): i32 { return a + b; }
@scalar export function add_int64(a: i64, b: i64): i64 { return a + b; }
@scalar export function add_uint8(a: u8, b: u8): u8 { return a + b; }
@scalar export function add_uint16(a: u16, b: u16): u16 { return a + b; }
@scalar export function add_uint32(a: u32, b: u32): u32 { return a + b; }
@scalar export function add_uint64(a: u64, b: u64): u64 { return a + b; }
@scalar export function half_float32(a: f32): f32 { return a / 2; }
@scalar export function mul_add(a: f64, b: f64): f64 { return a * b + 1; }

@scalar export function shout(text: string): string {
  let loud = "";
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    loud += String.fromCharCode(c >= 0x61 && c <= 0x7a ? c - 32 : c);
  }
  return loud + "!";
}

@scalar export function or_else(a: string | null, b: string | null): string | null { return a === null ? b : a; }
@scalar export function is_missing(a: Maybe<i64>): bool { return a.isNull; }
@scalar export function reverse_bytes(bytes: Uint8Array): Uint8Array { return bytes.reverse(); }
@scalar("Decimal128(12,2)", "Decimal128(12,2)") export function double_decimal(a: Decimal): Decimal { return a + a; }
@scalar("Date32", "Date32") export function next_day(a: i32): i32 { return a + 1; }
@scalar("Timestamp(us)", "Timestamp(us)") export function add_hour(a: i64): i64 { return a + 3600000000; }
@scalar("Timestamp(ms,UTC)", "Timestamp(ms,UTC)") export function add_hour_utc(a: i64): i64 { return a + 3600000; }
@scalar("Duration(s)", "Duration(s)") export function negate(a: i64): i64 { return -a; }

@scalar export function sum_list(list: Array<Maybe<i64>>): i64 {
  let sum: i64 = 0;
  for (let at = 0; at < list.length; at++) if (!list[at].isNull) sum += list[at].value;
  return sum;
}

@scalar export function letters(text: string): Array<string> {
  const letters: string[] = [];
  for (let at = 0; at < text.length; ) {
    const letter = String.fromCodePoint(text.codePointAt(at));
    letters.push(letter);
    at += letter.length;
  }
  return letters;
}

@scalar export function nested(n: i64): Array<Array<i64>> {
  const lists: i64[][] = [];
  for (let i: i64 = 0; i < n; i++) {
    const list: i64[] = [];
    for (let j: i64 = 0; j < i; j++) list.push(j);
    lists.push(list);
  }
  return lists;
}

@record export class Point {
  x: Maybe<f64> = Maybe.null<f64>();
  y: Maybe<f64> = Maybe.null<f64>();
}

@scalar export function swap(point: Point): Point {
  const x = point.x;
  point.x = point.y;
  point.y = x;
  return point;
}

@record export class Tag {
  constructor(public n: Maybe<i64>, public words: Array<string>) {}
}

function split(text: string): string[] {
  return text.split(" ").filter(word => word.length > 0);
}

@scalar export function tag(n: i64, text: string): Tag {
  return new Tag(n < 0 ? Maybe.null<i64>() : new Maybe<i64>(n), split(text));
}

@scalar export function checked_div(a: i64, b: i64): i64 {
  if (b == 0) {
    fail("division by zero");
    return 0;
  }
  return a / b;
}

@scalar @named("twice") export function twice_int64(a: i64): i64 { return a * 2; }
@scalar @named("twice") export function twice_utf8(a: string): string { return a + a; }
@scalar export function forty_two(): i32 { return 42; }

/** The average of values by weight. */
@aggregate export class wavg {
  sum: f64 = 0;
  weight: f64 = 0;

  update(value: f64, weight: f64): void {
    this.merge(value * weight, weight);
  }

  merge(sum: f64, weight: f64): void {
    this.sum += sum;
    this.weight += weight;
  }

  evaluate(): Maybe<f64> {
    return this.weight == 0 ? Maybe.null<f64>() : new Maybe<f64>(this.sum / this.weight);
  }
}

/** The longest text; of equally long ones the first in order. */
@aggregate export class longest {
  best: string | null = null;

  update(text: string): void {
    const best = this.best;
    if (best === null || text.length > best.length || (text.length == best.length && text < best)) this.best = text;
  }

  merge(best: string | null): void {
    if (best !== null) this.update(best);
  }

  evaluate(): string | null {
    return this.best;
  }
}

/** How many different texts there are. */
@aggregate export class distinct_texts {
  seen: Set<string> = new Set();

  get texts(): Array<string> {
    return this.seen.values();
  }

  update(text: string): void {
    this.seen.add(text);
  }

  merge(texts: Array<string>): void {
    for (let at = 0; at < texts.length; at++) this.seen.add(texts[at]);
  }

  evaluate(): i64 {
    return this.seen.size;
  }
}

@record export class Word {
  constructor(public word: string, public at: i32) {}
}

/** The words of a text, and where they are. */
@table export function words(text: string): Array<Word> {
  const rows: Word[] = [], words = split(text);
  for (let at = 0; at < words.length; at++) rows.push(new Word(words[at], at));
  return rows;
}

@record export class Number {
  n: i64 = 0;
}

@table export function series(low: i64, high: i64): Array<Number> {
  if (low > high) fail("the series ends before it begins");
  const rows: Number[] = [];
  for (let n = low; n <= high; n++) rows.push({ n });
  return rows;
}
