//! The plain functions of the cases, in Rust without any SDK.

#[no_mangle]
pub extern "C" fn add_i32(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

#[no_mangle]
pub extern "C" fn add_i64(a: i64, b: i64) -> i64 {
    a.wrapping_add(b)
}

#[no_mangle]
pub extern "C" fn half_f32(a: f32) -> f32 {
    a / 2.0
}

#[no_mangle]
pub extern "C" fn mul_add(a: f64, b: f64) -> f64 {
    a * b + 1.0
}

#[no_mangle]
pub extern "C" fn factorial_of(n: i32) -> i64 {
    (1..=i64::from(n)).product()
}

#[no_mangle]
pub extern "C" fn hypotenuse(a: f64, b: f64) -> f64 {
    (a * a + b * b).sqrt()
}
