// The plain functions of the cases, in Go without any SDK.
package main

import "math"

//go:wasmexport add_i32
func addI32(a, b int32) int32 { return a + b }

//go:wasmexport add_i64
func addI64(a, b int64) int64 { return a + b }

//go:wasmexport half_f32
func halfF32(a float32) float32 { return a / 2 }

//go:wasmexport mul_add
func mulAdd(a, b float64) float64 { return a*b + 1 }

//go:wasmexport factorial_of
func factorialOf(n int32) int64 {
	product := int64(1)
	for i := int64(2); i <= int64(n); i++ {
		product *= i
	}
	return product
}

//go:wasmexport hypotenuse
func hypotenuse(a, b float64) float64 { return math.Sqrt(a*a + b*b) }

func main() {}
