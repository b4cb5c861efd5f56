//! The plain functions of the cases, in Zig without any SDK.

export fn add_i32(a: i32, b: i32) i32 {
    return a +% b;
}

export fn add_i64(a: i64, b: i64) i64 {
    return a +% b;
}

export fn half_f32(a: f32) f32 {
    return a / 2;
}

export fn mul_add(a: f64, b: f64) f64 {
    return a * b + 1;
}

export fn factorial_of(n: i32) i64 {
    var product: i64 = 1;
    var at: i64 = 2;
    while (at <= n) : (at += 1) product *%= at;
    return product;
}

export fn hypotenuse(a: f64, b: f64) f64 {
    return @sqrt(a * a + b * b);
}
