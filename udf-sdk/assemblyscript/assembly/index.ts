// Columns of the columnar ABI in AssemblyScript. What is exported for authors: Maybe, Decimal, fail. The rest is for the code that
// transform.js writes.

/** A number or boolean that may be NULL. Texts, arrays and classes are `T | null`. */
export class Maybe<T> {
  constructor(public value: T, public isNull: bool = false) {}

  static null<T>(): Maybe<T> {
    return new Maybe<T>(<T>0, true);
  }
}

/** A Decimal128 in units of its last place. */
export class Decimal {
  constructor(public low: u64, public high: i64) {}

  static of(units: i64): Decimal {
    return new Decimal(<u64>units, units >> 63);
  }

  @operator("+")
  plus(other: Decimal): Decimal {
    const low = this.low + other.low;
    return new Decimal(low, this.high + other.high + <i64>(low < this.low));
  }
}

let message: ArrayBuffer | null = null;
let failed = false;
let failedRow: i64 = -1;

/** Ends the query with this message and the row. What the function returns then does not matter. */
export function fail(why: string): void {
  failed = true;
  message = String.UTF8.encode(why);
}

export function hasFailed(row: i32): bool {
  if (failed) failedRow = row;
  return failed;
}

export function errorMessage(): i64 {
  const text = message;
  if (text === null) return 0;
  return (<i64>changetype<usize>(text) << 32) | text.byteLength;
}

export function errorRow(): i64 {
  return failedRow;
}

export function alloc(size: u32, align: u32): usize {
  // The place that the allocator gave lies before the aligned one.
  const whole = heap.alloc(<usize>size + align + sizeof<usize>());
  const at = (whole + sizeof<usize>() + align - 1) & ~(<usize>align - 1);
  store<usize>(at - sizeof<usize>(), whole);
  return at;
}

export function free(at: usize, size: u32, align: u32): void {
  heap.free(load<usize>(at - sizeof<usize>()));
}

@unmanaged
export class Col {
  type: u32;
  flags: u32;
  nullCount: u32;
  validity: u32;
  buf0: u32;
  len0: u32;
  buf1: u32;
  len1: u32;
  nchildren: u32;
  children: u32;
  p0: u32;
  p1: u32;
}

const COL: i32 = 48;

export function column(batch: usize, at: i32): Col {
  return changetype<Col>(<usize>load<u32>(batch + 8) + <usize>(at * COL));
}

export function child(col: Col, at: i32): Col {
  return changetype<Col>(<usize>col.children + <usize>(at * COL));
}

/** The row that stands for `row`: the first, where one stands for all. */
export function rowOf(col: Col, row: i32): i32 {
  return col.flags & 1 ? 0 : row;
}

function bit(bitmap: usize, at: i32): bool {
  return ((load<u8>(bitmap + (at >> 3)) >> <u8>(at & 7)) & 1) != 0;
}

export function isNull(col: Col, row: i32): bool {
  return col.validity != 0 && !bit(col.validity, rowOf(col, row));
}

export function read<T>(col: Col, row: i32): T {
  const at = rowOf(col, row);
  if (isReference<T>()) {
    if (isNullable<T>()) {
      if (isNull(col, row)) return changetype<T>(0);
      return changetype<T>(readReference<NonNullable<T>>(col, at));
    }
    return readReference<T>(col, at);
  }
  if (isBoolean<T>()) return <T>bit(col.buf0, at);
  return load<T>(<usize>col.buf0 + <usize>at * sizeof<T>());
}

function readReference<T>(col: Col, at: i32): T {
  if (isString<T>()) {
    const from = load<i32>(<usize>col.buf0 + <usize>at * 4), to = load<i32>(<usize>col.buf0 + <usize>at * 4 + 4);
    return changetype<T>(String.UTF8.decodeUnsafe(<usize>col.buf1 + from, to - from));
  }
  // @ts-ignore: told at compile time
  if (isDefined(changetype<T>(0).__read)) {
    const made = changetype<T>(__new(offsetof<T>(), idof<T>()));
    // @ts-ignore: told at compile time
    made.__read(col, at);
    return made;
  }
  const made = changetype<T>(0);
  if (made instanceof Uint8Array) return changetype<T>(readBytes(col, at));
  if (made instanceof Decimal) return changetype<T>(new Decimal(load<u64>(<usize>col.buf0 + <usize>at * 16), load<i64>(<usize>col.buf0 + <usize>at * 16 + 8)));
  if (isArray<T>()) return changetype<T>(readList<valueof<T>>(col, at));
  if (made instanceof Maybe<bool>) return changetype<T>(readMaybe<bool>(col, at));
  if (made instanceof Maybe<i8>) return changetype<T>(readMaybe<i8>(col, at));
  if (made instanceof Maybe<i16>) return changetype<T>(readMaybe<i16>(col, at));
  if (made instanceof Maybe<i32>) return changetype<T>(readMaybe<i32>(col, at));
  if (made instanceof Maybe<i64>) return changetype<T>(readMaybe<i64>(col, at));
  if (made instanceof Maybe<u8>) return changetype<T>(readMaybe<u8>(col, at));
  if (made instanceof Maybe<u16>) return changetype<T>(readMaybe<u16>(col, at));
  if (made instanceof Maybe<u32>) return changetype<T>(readMaybe<u32>(col, at));
  if (made instanceof Maybe<u64>) return changetype<T>(readMaybe<u64>(col, at));
  if (made instanceof Maybe<f32>) return changetype<T>(readMaybe<f32>(col, at));
  if (made instanceof Maybe<f64>) return changetype<T>(readMaybe<f64>(col, at));
  ERROR("no type in SQL");
}

function readMaybe<T>(col: Col, at: i32): Maybe<T> {
  return isNull(col, at) ? Maybe.null<T>() : new Maybe<T>(read<T>(col, at));
}

function readBytes(col: Col, at: i32): Uint8Array {
  const from = load<i32>(<usize>col.buf0 + <usize>at * 4), len = load<i32>(<usize>col.buf0 + <usize>at * 4 + 4) - from;
  const bytes = new Uint8Array(len);
  memory.copy(bytes.dataStart, <usize>col.buf1 + from, len);
  return bytes;
}

function readList<T>(col: Col, at: i32): Array<T> {
  const from = load<i32>(<usize>col.buf0 + <usize>at * 4), to = load<i32>(<usize>col.buf0 + <usize>at * 4 + 4), items = child(col, 0);
  const list = new Array<T>(0);
  for (let item = from; item < to; item++) list.push(read<T>(items, item));
  return list;
}

class Buffer {
  data: usize = 0;
  len: u32 = 0;
  capacity: u32 = 0;

  room(more: u32): usize {
    if (this.capacity - this.len < more) {
      const capacity = max<u32>(max<u32>(64, this.capacity * 2), this.len + more);
      this.data = this.data ? heap.realloc(this.data, capacity) : heap.alloc(capacity);
      this.capacity = capacity;
    }
    const at = this.data + this.len;
    this.len += more;
    return at;
  }

  bit(at: u32, value: bool): void {
    if (at >> 3 >= this.len) store<u8>(this.room(1), 0);
    if (value) {
      const byte = this.data + (at >> 3);
      store<u8>(byte, <u8>(<u32>load<u8>(byte) | ((<u32>1) << (at & 7))));
    }
  }

  free(): void {
    if (this.data) heap.free(this.data);
    this.data = 0;
  }
}

const NAMES: string[] = [
  "Boolean", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64", "Utf8", "Binary", "Decimal128",
  "Date32", "Timestamp", "Duration", "", "", "List", "Struct",
];
const WIDTHS: u32[] = [0, 0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 0, 0, 16, 4, 8, 8];

/** A column that is being written. */
export class Writer {
  type: u32 = 0;
  rows: u32 = 0;
  nulls: u32 = 0;
  p0: u32 = 0;
  p1: u32 = 0;
  validity: Buffer = new Buffer();
  values: Buffer = new Buffer();
  data: Buffer = new Buffer();
  children: Writer[] = [];

  constructor(name: string) {
    const open = name.indexOf("("), word = open < 0 ? name : name.substring(0, open);
    const inside = open < 0 ? "" : name.substring(open + 1, name.length - 1);
    this.type = NAMES.indexOf(word) + 1;
    if (this.type == 14) {
      const parts = inside.split(",");
      this.p0 = <u32>parseInt(parts[0]);
      this.p1 = <u32><i32>parseInt(parts[1]);
    } else if (this.type == 16 || this.type == 17) {
      const unit = inside.split(",")[0];
      this.p0 = unit == "s" ? 0 : unit == "ms" ? 1 : unit == "us" ? 2 : 3;
      this.p1 = inside.endsWith("UTC") ? 1 : 0;
    } else if (this.type == 20) {
      this.children.push(new Writer(inside));
    } else if (this.type == 21) {
      let depth = 0, from = 0;
      for (let at = 0; at <= inside.length; at++) {
        const c = at < inside.length ? inside.charCodeAt(at) : 0x2c;
        if (c == 0x28) depth++;
        else if (c == 0x29) depth--;
        else if (c == 0x2c && depth == 0) {
          const field = inside.substring(from, at);
          this.children.push(new Writer(field.substring(field.indexOf(":") + 1).trim()));
          from = at + 1;
        }
      }
    }
    if (this.type == 12 || this.type == 13 || this.type == 20) store<u32>(this.values.room(4), 0);
  }

  mark(valid: bool): void {
    if (!valid && this.nulls == 0) {
      for (let row: u32 = 0; row < this.rows; row++) this.validity.bit(row, true);
    }
    if (!valid) this.nulls++;
    if (this.nulls) this.validity.bit(this.rows, valid);
    this.rows++;
  }

  pushNull(): void {
    if (this.type == 1) this.values.bit(this.rows, false);
    else if (this.type == 12 || this.type == 13) store<u32>(this.values.room(4), this.data.len);
    else if (this.type == 20) store<u32>(this.values.room(4), this.children[0].rows);
    else if (this.type == 21) {
      for (let at = 0; at < this.children.length; at++) this.children[at].pushNull();
    } else {
      const width = WIDTHS[this.type];
      memory.fill(this.values.room(width), 0, width);
    }
    this.mark(false);
  }

  push<T>(value: T): void {
    if (isReference<T>()) {
      if (isNullable<T>()) {
        if (changetype<usize>(value) == 0) this.pushNull();
        else this.pushReference<NonNullable<T>>(changetype<NonNullable<T>>(value));
      } else this.pushReference<T>(value);
    } else {
      if (isBoolean<T>()) this.values.bit(this.rows, <bool>value);
      else store<T>(this.values.room(sizeof<T>()), value);
      this.mark(true);
    }
  }

  pushReference<T>(value: T): void {
    if (isString<T>()) {
      const text = changetype<string>(value), len = String.UTF8.byteLength(text);
      String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, this.data.room(len));
      store<u32>(this.values.room(4), this.data.len);
      this.mark(true);
      // @ts-ignore: told at compile time
    } else if (isDefined(value.__write)) {
      // @ts-ignore: told at compile time
      value.__write(this);
      this.mark(true);
    } else if (value instanceof Uint8Array) {
      memory.copy(this.data.room(value.length), value.dataStart, value.length);
      store<u32>(this.values.room(4), this.data.len);
      this.mark(true);
    } else if (value instanceof Decimal) {
      const at = this.values.room(16);
      store<u64>(at, value.low);
      store<i64>(at, value.high, 8);
      this.mark(true);
    } else if (isArray<T>()) {
      // @ts-ignore: told at compile time
      for (let at = 0; at < value.length; at++) this.children[0].push<valueof<T>>(value[at]);
      store<u32>(this.values.room(4), this.children[0].rows);
      this.mark(true);
    } else if (value instanceof Maybe<bool>) this.pushMaybe<bool>(value);
    else if (value instanceof Maybe<i8>) this.pushMaybe<i8>(value);
    else if (value instanceof Maybe<i16>) this.pushMaybe<i16>(value);
    else if (value instanceof Maybe<i32>) this.pushMaybe<i32>(value);
    else if (value instanceof Maybe<i64>) this.pushMaybe<i64>(value);
    else if (value instanceof Maybe<u8>) this.pushMaybe<u8>(value);
    else if (value instanceof Maybe<u16>) this.pushMaybe<u16>(value);
    else if (value instanceof Maybe<u32>) this.pushMaybe<u32>(value);
    else if (value instanceof Maybe<u64>) this.pushMaybe<u64>(value);
    else if (value instanceof Maybe<f32>) this.pushMaybe<f32>(value);
    else if (value instanceof Maybe<f64>) this.pushMaybe<f64>(value);
    else ERROR("no type in SQL");
  }

  pushMaybe<T>(value: Maybe<T>): void {
    if (value.isNull) this.pushNull();
    else this.push<T>(value.value);
  }

  finish(out: usize): void {
    const col = changetype<Col>(out);
    memory.fill(out, 0, COL);
    col.type = this.type;
    col.p0 = this.p0;
    col.p1 = this.p1;
    col.nullCount = this.nulls;
    if (this.nulls) col.validity = <u32>this.validity.data;
    col.buf0 = <u32>this.values.data;
    col.len0 = this.values.len;
    col.buf1 = <u32>this.data.data;
    col.len1 = this.data.len;
    const count = this.children.length;
    if (count) {
      const children = this.childCols.room(<u32>(count * COL));
      for (let at = 0; at < count; at++) this.children[at].finish(children + <usize>(at * COL));
      col.nchildren = count;
      col.children = <u32>children;
    }
  }

  childCols: Buffer = new Buffer();

  free(): void {
    this.validity.free();
    this.values.free();
    this.data.free();
    this.childCols.free();
    for (let at = 0; at < this.children.length; at++) this.children[at].free();
  }
}

let kept: Writer[] = [];
let keptCols: Buffer = new Buffer();

/** Begins a call: what the last one gave is freed. */
export function begin(): void {
  for (let at = 0; at < kept.length; at++) kept[at].free();
  kept = [];
  keptCols.free();
  keptCols = new Buffer();
  failed = false;
  failedRow = -1;
}

/** Makes one column the result. */
export function finishColumn(writer: Writer, out: usize): void {
  kept.push(writer);
  writer.finish(out);
}

/** Makes columns the result. */
export function finishBatch(writers: Writer[], rows: i32, out: usize): void {
  const cols = keptCols.room(<u32>(writers.length * COL));
  for (let at = 0; at < writers.length; at++) {
    kept.push(writers[at]);
    writers[at].finish(cols + <usize>(at * COL));
  }
  store<u32>(out, rows, 0);
  store<u32>(out, writers.length, 4);
  store<u32>(out, <u32>cols, 8);
  store<u32>(out, 0, 12);
}

/** Objects that the host knows by number. */
export class Handles<T> {
  private objects: Map<i32, T> = new Map();
  private last: i32 = 0;

  add(object: T): i32 {
    this.objects.set(++this.last, object);
    return this.last;
  }

  get(handle: i32): T {
    return this.objects.get(handle);
  }

  drop(handle: i32): void {
    this.objects.delete(handle);
  }
}
