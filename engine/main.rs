//! The `sparklet` binary: the command line of [`sparklet_cli`].

use std::process::ExitCode;

use sparklet_cli::console::Console;
use sparklet_cli::failure::Failure;
use sparklet_cli::world::World;
use sparklet_core::sandbox::compile;

/// Planning takes less time than with the allocator of the C library, and what is freed goes back: a process with a small pool stays small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Modules of user functions are compiled by this program, in a process of their own.
    if let Some(code) = compile::serve(std::env::args_os()) {
        return code;
    }
    compile::use_this_program();
    let mut console = Console::of_process(&|name| std::env::var(name).ok());
    ExitCode::from(match World::of_process() {
        Ok(world) => sparklet_cli::run(std::env::args_os(), &world, &mut console),
        Err(error) => {
            let failure = Failure::io("cannot tell the working directory", error);
            failure.report(&mut console);
            failure.code()
        }
    })
}
