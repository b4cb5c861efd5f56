//! The harness as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(sparklet_harness::main(std::env::args_os()))
}
