// The plain functions of the cases, in AssemblyScript without any SDK.

export function add_i32(a: i32, b: i32): i32 {
  return a + b;
}

export function add_i64(a: i64, b: i64): i64 {
  return a + b;
}

export function half_f32(a: f32): f32 {
  return a / 2;
}

export function mul_add(a: f64, b: f64): f64 {
  return a * b + 1;
}

export function factorial_of(n: i32): i64 {
  let product: i64 = 1;
  for (let at = 2; at <= n; at++) product *= at;
  return product;
}

export function hypotenuse(a: f64, b: f64): f64 {
  return Math.sqrt(a * a + b * b);
}
