//! Exit codes: what a script may rely on. They are stable; a new meaning gets a new number.

/// Done as asked.
pub const OK: u8 = 0;
/// A run or a statement failed: bad data, a source or an output that cannot be used.
pub const FAILED: u8 = 1;
/// The command line, an environment variable or a run id is wrong; nothing was done.
pub const USAGE: u8 = 2;
/// The pipeline, its SQL, a settings file or a query is wrong; nothing was run.
pub const DEFINITION: u8 = 3;
/// A check blocked publishing; what readers see is untouched.
pub const CHECK_FAILED: u8 = 4;
/// There was nothing to do.
pub const NOTHING: u8 = 5;
/// The memory limit or the spill space was exhausted.
pub const RESOURCES: u8 = 6;
/// The history cannot be used, or `history verify` found damage.
pub const HISTORY: u8 = 7;
/// A bug in sparklet.
pub const BUG: u8 = 70;
/// A time limit ended the run.
pub const TIMEOUT: u8 = 124;
/// Interrupted by Ctrl-C or SIGTERM; everything was cleaned up.
pub const INTERRUPTED: u8 = 130;

/// All codes with their meaning, for `--help` and the documentation.
pub const TABLE: &[(u8, &str)] = &[
    (OK, "done as asked"),
    (FAILED, "a run or a statement failed"),
    (USAGE, "the command line, an environment variable or a run id is wrong"),
    (DEFINITION, "the pipeline, its SQL, a settings file or a query is wrong; nothing was run"),
    (CHECK_FAILED, "a check blocked publishing"),
    (NOTHING, "there was nothing to do"),
    (RESOURCES, "the memory limit or the spill space was exhausted"),
    (HISTORY, "the history cannot be used, or is damaged"),
    (BUG, "a bug in sparklet"),
    (TIMEOUT, "a time limit ended the run"),
    (INTERRUPTED, "interrupted (Ctrl-C, SIGTERM)"),
];

/// The table as a block of text.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (code, meaning) in TABLE {
        text.push_str(&format!("  {code:>3}  {meaning}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_listed_once_and_in_order() {
        let codes: Vec<u8> = TABLE.iter().map(|(code, _)| *code).collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(codes, sorted);
    }
}
