//! The harness as a program.

use std::process::ExitCode;

/// The one that the `sparklet` binary has; all engines in this process have it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(sparklet_harness::main(std::env::args_os()))
}
