//! What can go wrong with a module: which one, which function, why, and what to do.

use std::fmt;
use std::time::Duration;

/// Result of the sandbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that names module, function and cause.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// The module as the user wrote it.
    pub module: String,
    /// The function, where one was concerned.
    pub function: Option<String>,
    /// Why.
    pub cause: Cause,
    /// The call that failed, e.g. `margin(10, NULL)`, where it is known.
    pub call: Option<String>,
}

/// Why a module or a call failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// The file cannot be read.
    Io(String),
    /// It is no module that runs here: not WebAssembly, malformed, or needs what is switched off.
    Invalid(String),
    /// It is larger than is allowed.
    TooLarge(String),
    /// It imports what there is not.
    Import(String),
    /// Its description of its functions is wrong.
    Description(String),
    /// The pipeline or statement says of it what is not so.
    Declaration(String),
    /// It could not be compiled within the limits.
    Compile(String),
    /// No room for another instance.
    Instances,
    /// The code trapped.
    Trap(String),
    /// It ran out of stack.
    Stack,
    /// It ran past its time.
    Deadline(Duration),
    /// It used up its fuel.
    Fuel(u64),
    /// It wanted more memory than its limit.
    Memory {
        /// Bytes asked for in all.
        asked: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// It wanted more memory than the session has left.
    Pool(String),
    /// It broke the contract of its mode.
    Contract(String),
    /// Nobody waits for its query any more.
    Cancelled,
    /// It reported an error of its own.
    Guest {
        /// Its message.
        message: String,
        /// Row of the batch, if it told.
        row: Option<u64>,
    },
    /// A value does not fit the declared type of the result.
    Range(String),
    /// What was asked for is not there.
    Unsupported(String),
    /// A fault of the host.
    Internal(String),
}

/// What sort of error it is, for the one who shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The module or what is said of it.
    Definition,
    /// The file system.
    Source,
    /// The call or its data.
    Call,
    /// Memory or instances.
    Resources,
    /// Time.
    Time,
    /// Nobody: it was cancelled.
    Cancelled,
    /// The host.
    Host,
}

impl Cause {
    /// What sort of error it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Io(_) => Fault::Source,
            Self::Invalid(_)
            | Self::TooLarge(_)
            | Self::Import(_)
            | Self::Description(_)
            | Self::Declaration(_)
            | Self::Compile(_)
            | Self::Unsupported(_) => Fault::Definition,
            Self::Instances | Self::Memory { .. } | Self::Pool(_) => Fault::Resources,
            Self::Deadline(_) | Self::Fuel(_) => Fault::Time,
            Self::Cancelled => Fault::Cancelled,
            Self::Trap(_) | Self::Stack | Self::Contract(_) | Self::Guest { .. } | Self::Range(_) => Fault::Call,
            Self::Internal(_) => Fault::Host,
        }
    }

    /// The same of a piece of a batch that begins at row `start` of it.
    pub(crate) fn later_by(self, start: usize) -> Self {
        match self {
            Self::Guest { message, row: Some(row) } => {
                Self::Guest { message, row: Some(row.saturating_add(start as u64)) }
            }
            cause => cause,
        }
    }

    /// What to do.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Invalid(_) => {
                "build it for `wasm32-unknown-unknown` (or WASI preview 1, without threads), see `sparklet udf check`"
            }
            Self::Import(_) => {
                "a module may import `sparklet1.log`, `sparklet1.fail` and functions of `wasi_snapshot_preview1`, which deny"
            }
            Self::Description(_) => "see the rules of the section `sparklet.udf` in udf-sdk/ABI.md",
            Self::Compile(_) | Self::TooLarge(_) => {
                "build it smaller: without debug information, only what the functions need"
            }
            Self::Instances => "fewer queries at the same time, or fewer slots (`--slots`)",
            Self::Deadline(_) => "a call works on one batch; raise `timeout` of the function if it needs longer",
            Self::Fuel(_) => "raise `fuel` of the function",
            Self::Memory { .. } => "raise `memory` of the function, e.g. `memory = \"256MiB\"`",
            Self::Pool(_) => "raise `memory` (`--memory`), or lower `slots` (`--slots`) so that fewer tasks share it",
            Self::Stack => "the recursion is endless or too deep: 512 KiB of stack are all there is",
            Self::Contract(_) => "the module does not keep to udf-sdk/ABI.md; `sparklet udf test` finds such things",
            Self::Range(_) => "declare a wider type for the result",
            _ => return None,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(why) => write!(f, "cannot be read: {why}"),
            Self::Invalid(why) => write!(f, "not a usable WebAssembly module: {why}"),
            Self::TooLarge(what) => write!(f, "too large: {what}"),
            Self::Import(what) => write!(f, "{what}"),
            Self::Description(why) => write!(f, "bad description of functions: {why}"),
            Self::Declaration(why) | Self::Unsupported(why) | Self::Range(why) => f.write_str(why),
            Self::Compile(why) => write!(f, "cannot be compiled: {why}"),
            Self::Instances => f.write_str("too many instances of functions are running"),
            Self::Trap(why) => write!(f, "trapped: {why}"),
            Self::Stack => f.write_str("ran out of stack"),
            Self::Deadline(limit) => write!(f, "ran longer than its time limit of {limit:?}"),
            Self::Fuel(fuel) => write!(f, "used up its fuel of {fuel}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Memory { asked, limit } => {
                write!(f, "wants {} of memory, its limit is {}", size(*asked), size(*limit))
            }
            Self::Pool(why) => write!(f, "the memory limit is reached: {why}"),
            Self::Contract(why) => write!(f, "broke its contract: {why}"),
            Self::Guest { message, row: Some(row) } => write!(f, "{message} (row {row} of the batch)"),
            Self::Guest { message, row: None } => f.write_str(message),
            Self::Internal(why) => write!(f, "internal error: {why}"),
        }
    }
}

fn size(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)) } else { format!("{bytes} bytes") }
}

impl Error {
    /// An error of module `module`.
    pub fn of(module: &str, cause: Cause) -> Self {
        Self { module: module.to_owned(), function: None, cause, call: None }
    }

    /// An error of a function.
    pub fn of_function(module: &str, function: &str, cause: Cause) -> Self {
        Self { module: module.to_owned(), function: Some(function.to_owned()), cause, call: None }
    }

    /// What to do.
    pub fn hint(&self) -> Option<&'static str> {
        self.cause.hint()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "function `{function}` of `{}`: {}", self.module, self.cause)?,
            None => write!(f, "module `{}`: {}", self.module, self.cause)?,
        }
        match &self.call {
            Some(call) => write!(f, ", in {call}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}
