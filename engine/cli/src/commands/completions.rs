//! `sparklet completions`: a completion script for a shell.

use clap::Args;
use clap_complete::Shell;

use crate::console::Console;
use crate::failure::Result;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: sparklet completions bash > ~/.local/share/bash-completion/completions/sparklet")]
pub struct Arguments {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &Arguments, console: &mut Console) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::cli::command(), "sparklet", &mut script);
    console.out().write_all(&script)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_has_a_script() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut crate::cli::command(), "sparklet", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("history"), "{shell}");
        }
    }
}
