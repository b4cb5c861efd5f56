//! The sparklet binary.
fn main() {}
