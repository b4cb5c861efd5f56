//! Compiling modules: in a process of its own, with limits, since neither deadline nor fuel end a compiler; and once, since what was
//! compiled is kept in a cache.
//!
//! The process is the product's own binary, started with [`ARGUMENT`] ([`serve`]). Where there is none (a program that uses the library
//! and does not name one in `SPARKLET_COMPILER`), small modules are compiled in this process and others refused.

use std::ffi::OsString;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::cache::Cache;
use crate::error::Cause;
use crate::host;
use crate::inspect::cut;

/// First argument of the process that compiles.
pub const ARGUMENT: &str = "__compile-function-module";

/// Names the binary of sparklet for programs that use the library.
pub(crate) const VARIABLE: &str = "SPARKLET_COMPILER";

/// Largest module that is compiled in this process, in bytes.
pub(crate) const MAX_HERE: usize = 2 << 20;

/// What the process may use.
const CPU_SECONDS: u64 = 120;
const ADDRESS_SPACE: u64 = 6 << 30;
const ARTIFACT: u64 = 1 << 30;

/// How long it may take, however busy the machine is.
const WALL: Duration = Duration::from_secs(300);

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// What is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A core module.
    Module,
    /// A component.
    Component,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Module => "module",
            Self::Component => "component",
        }
    }
}

/// How modules are compiled.
#[derive(Debug, Clone, Default)]
pub struct Compiler {
    cache: Option<PathBuf>,
}

impl Compiler {
    /// The same with a cache in `folder`, which is made when there is something to keep.
    #[must_use]
    pub fn with_cache(self, folder: PathBuf) -> Self {
        Self { cache: Some(folder) }
    }

    /// The compiled module.
    pub(crate) fn module(
        &self,
        engine: &wasmtime::Engine,
        bytes: &[u8],
        hash: &[u8; 32],
        fuel: bool,
    ) -> Result<wasmtime::Module, Cause> {
        let artifact = self.artifact(engine, Kind::Module, bytes, hash, fuel)?;
        #[expect(
            unsafe_code,
            reason = "machine code runs as it is: this was made by this engine's compiler, in its own process or \
                                       in one of the same binary, or read from a cache whose files carry the engine's keyed hash"
        )]
        // SAFETY: see the reason; wasmtime itself checks version, settings and CPU features.
        let module = unsafe { wasmtime::Module::deserialize(engine, &artifact) };
        module.map_err(|e| Cause::Compile(cut(&format!("{e:#}"))))
    }

    /// The compiled component.
    pub(crate) fn component(
        &self,
        engine: &wasmtime::Engine,
        bytes: &[u8],
        hash: &[u8; 32],
        fuel: bool,
    ) -> Result<wasmtime::component::Component, Cause> {
        let artifact = self.artifact(engine, Kind::Component, bytes, hash, fuel)?;
        #[expect(unsafe_code, reason = "as for modules")]
        // SAFETY: as for modules.
        let component = unsafe { wasmtime::component::Component::deserialize(engine, &artifact) };
        component.map_err(|e| Cause::Compile(cut(&format!("{e:#}"))))
    }

    /// Machine code for `bytes`, whose SHA-256 is `hash`, from the cache if it is there.
    pub(crate) fn artifact(
        &self,
        engine: &wasmtime::Engine,
        kind: Kind,
        bytes: &[u8],
        hash: &[u8; 32],
        fuel: bool,
    ) -> Result<Vec<u8>, Cause> {
        let cache = self.cache.as_deref().and_then(Cache::open);
        let name = Cache::name(hash, engine, kind.name());
        if let Some(found) = cache.as_ref().and_then(|cache| cache.read(&name)) {
            return Ok(found);
        }
        let made = match program() {
            Some(program) => in_child(&program, kind, bytes, fuel)?,
            None if bytes.len() <= MAX_HERE => here(engine, kind, bytes)?,
            None => {
                return Err(Cause::Compile(format!(
                    "{} KiB are too much to be compiled in this process: name the binary of sparklet in `{VARIABLE}`",
                    bytes.len() >> 10
                )));
            }
        };
        // A cache that cannot be written costs time in the next run, no more.
        if let Some(Err(error)) = cache.as_ref().map(|cache| cache.write(&name, &made)) {
            tracing::warn!(%error, "a compiled module is not kept");
        }
        Ok(made)
    }
}

/// Says that the running program is sparklet's binary and answers to [`ARGUMENT`].
pub fn use_this_program() {
    if let Ok(program) = std::env::current_exe() {
        // Said twice is said once.
        let _ = PROGRAM.set(program);
    }
}

fn program() -> Option<PathBuf> {
    let named = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    named.or_else(|| PROGRAM.get().cloned())
}

fn here(engine: &wasmtime::Engine, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, Cause> {
    let made = match kind {
        Kind::Module => engine.precompile_module(bytes),
        Kind::Component => engine.precompile_component(bytes),
    };
    made.map_err(|e| Cause::Compile(cut(&format!("{e:#}"))))
}

fn in_child(program: &Path, kind: Kind, bytes: &[u8], fuel: bool) -> Result<Vec<u8>, Cause> {
    let io = |e: std::io::Error| Cause::Compile(format!("the compiler cannot be started: {e}"));
    let file = || tempfile::tempfile().map_err(io);
    let (mut input, mut output, mut errors) = (file()?, file()?, file()?);
    input.write_all(bytes).map_err(io)?;
    input.rewind().map_err(io)?;
    let mut child = Command::new(program)
        .arg(ARGUMENT)
        .arg(kind.name())
        .arg(if fuel { "fuel" } else { "plain" })
        .env_clear()
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output.try_clone().map_err(io)?))
        .stderr(Stdio::from(errors.try_clone().map_err(io)?))
        .spawn()
        .map_err(io)?;
    let start = Instant::now();
    let status = loop {
        match child.try_wait().map_err(io)? {
            Some(status) => break status,
            None if start.elapsed() > WALL => {
                // It may have ended just now; then there is nothing to kill.
                let _ = child.kill();
                let _ = child.wait();
                return Err(Cause::Compile(format!("it takes longer than {} s", WALL.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    if !status.success() {
        let mut said = String::new();
        let told = errors.rewind().and_then(|()| errors.take(1000).read_to_string(&mut said));
        let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        return Err(Cause::Compile(match (told, status.code()) {
            (Ok(_), Some(_)) if !said.is_empty() => cut(said),
            _ => format!(
                "the compiler ended ({status}): it may use {CPU_SECONDS} s of CPU and {} GiB of memory",
                ADDRESS_SPACE >> 30
            ),
        }));
    }
    let mut made = Vec::new();
    output.rewind().and_then(|()| output.read_to_end(&mut made)).map_err(io)?;
    Ok(made)
}

/// Does the work of the process that compiles, if `arguments` are those of it: reads the module from standard input and writes machine
/// code to standard output.
pub fn serve(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()?.to_str() != Some(ARGUMENT) {
        return None;
    }
    let kind = if arguments.next()?.to_str() == Some("component") { Kind::Component } else { Kind::Module };
    let fuel = arguments.next()?.to_str() == Some("fuel");
    let done = limit_process().and_then(|()| compile_input(kind, fuel));
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Nobody is there to hear that it cannot be written.
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::FAILURE
        }
    })
}

fn limit_process() -> Result<(), String> {
    let to = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit) };
    let limits =
        [(Resource::Cpu, CPU_SECONDS), (Resource::As, ADDRESS_SPACE), (Resource::Fsize, ARTIFACT), (Resource::Core, 0)];
    for (resource, limit) in limits {
        setrlimit(resource, to(limit)).map_err(|e| format!("its limits cannot be set: {e}"))?;
    }
    Ok(())
}

fn compile_input(kind: Kind, fuel: bool) -> Result<(), String> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    let engine = wasmtime::Engine::new(&host::config(fuel)).map_err(|e| format!("{e:#}"))?;
    let made = match kind {
        Kind::Module => engine.precompile_module(&bytes),
        Kind::Component => engine.precompile_component(&bytes),
    };
    let made = made.map_err(|e| format!("{e:#}").replace('\n', " "))?;
    std::io::stdout().write_all(&made).and_then(|()| std::io::stdout().flush()).map_err(|e| e.to_string())
}
