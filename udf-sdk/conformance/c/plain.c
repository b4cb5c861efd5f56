/* The plain functions of the cases, in C without any SDK. */

#include <stdint.h>

int32_t add_i32(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

int64_t add_i64(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a + (uint64_t)b);
}

float half_f32(float a) {
    return a / 2;
}

double mul_add(double a, double b) {
    return a * b + 1;
}

int64_t factorial_of(int32_t n) {
    return n < 2 ? 1 : n * factorial_of(n - 1);
}

double hypotenuse(double a, double b) {
    return __builtin_sqrt(a * a + b * b);
}
