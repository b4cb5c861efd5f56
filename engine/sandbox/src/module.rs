//! A module: its bytes, its functions, its limits; compiled when it is first needed.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::execution::memory_pool::UnboundedMemoryPool;
use sha2::{Digest, Sha256};
use wasmtime::{Engine, InstancePre};

use crate::columnar::Columnar;
use crate::compile::Compiler;
use crate::component::{self, Component};
use crate::describe::{self, FunctionSpec, Shape};
use crate::error::{Cause, Error, Result};
use crate::guest::Guest;
use crate::host::Host;
use crate::inspect::{self, Core, Inspected, MAX_MODULE, Signature};
use crate::limits::Limits;
use crate::plain::{self, Plain};
use crate::scope::Owner;
use crate::state::State;
use crate::types::type_name;
use crate::{imports, loops};

/// How host and guest talk; told by the file itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Exported functions over numbers.
    Plain,
    /// Batches, by udf-sdk/ABI.md.
    Columnar,
    /// A component, by the world in udf-sdk/wit.
    Component,
}

impl Mode {
    /// `plain`, `columnar` or `component`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Columnar => "columnar",
            Self::Component => "component",
        }
    }
}

/// What a pipeline or a statement says of a module.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Declared {
    /// Limits of its guests.
    pub limits: Limits,
    /// The functions to take, and their types where they mean more than the module can say; none: all as they are.
    pub functions: Vec<Wanted>,
    /// False: equal arguments may give different results, whatever the module says.
    pub volatile: bool,
}

/// One function of [`Declared`].
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Name in SQL.
    pub name: String,
    /// Name in the module, where it is another.
    pub function: Option<String>,
    /// Types of arguments and result.
    pub types: Option<(Vec<arrow::datatypes::DataType>, arrow::datatypes::DataType)>,
}

impl Wanted {
    /// From `name`, or `name(Date32, Int16) -> Boolean`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shape = || format!("`{}` is not `name` or `name(Date32) -> Boolean`", text.escape_debug());
        let Some((name, rest)) = text.split_once('(') else {
            describe::check_name("a function", text.trim())?;
            return Ok(Self { name: text.trim().to_owned(), function: None, types: None });
        };
        describe::check_name("a function", name.trim())?;
        let (args, returns) = rest.rsplit_once("->").ok_or_else(shape)?;
        let args = args.trim().strip_suffix(')').ok_or_else(shape)?;
        let types = split(args).into_iter().map(crate::types::parse_type).collect::<Result<_, _>>()?;
        let returns = crate::types::parse_type(returns.trim())?;
        Ok(Self { name: name.trim().to_owned(), function: None, types: Some((types, returns)) })
    }
}

/// `text` at its commas, those in parentheses left out.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

/// See the module. Shared by all that call it.
pub struct Module {
    name: Arc<str>,
    bytes: Arc<[u8]>,
    hash: [u8; 32],
    mode: Mode,
    functions: Vec<FunctionSpec>,
    declared: Declared,
    host: Arc<Host>,
    compiler: Compiler,
    core: Core,
    ready: OnceLock<Result<Ready, Cause>>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Module({} {})", self.name, &self.hash()[..12])
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // Code is unmapped before the engine goes.
        self.ready.take();
    }
}

enum Ready {
    Plain(InstancePre<State>, Arc<Loops>),
    Columnar(InstancePre<State>),
    Component(wasmtime::component::InstancePre<State>),
}

impl Module {
    /// Reads the module in `file`, which messages call `name`; a `.wat` file is translated. Nothing of it runs, unless it describes itself
    /// by `sparklet_describe` alone.
    ///
    /// # Errors
    /// It cannot be read, is no module that runs here, or `declared` does not fit it.
    pub fn read(file: &Path, name: &str, declared: Declared, compiler: &Compiler) -> Result<Self> {
        let of = |cause| Error::of(name, cause);
        let size = std::fs::metadata(file).map_err(|e| of(Cause::Io(e.to_string())))?;
        if !size.is_file() {
            return Err(of(Cause::Io("it is no file".to_owned())));
        }
        if size.len() > MAX_MODULE as u64 {
            return Err(of(Cause::TooLarge(format!("{} MiB, {} MiB are allowed", size.len() >> 20, MAX_MODULE >> 20))));
        }
        let bytes = std::fs::read(file).map_err(|e| of(Cause::Io(e.to_string())))?;
        Self::load(bytes, name, declared, compiler)
    }

    /// The module of these bytes: WebAssembly, or its text format.
    ///
    /// # Errors
    /// As [`Module::read`].
    pub fn load(bytes: Vec<u8>, name: &str, declared: Declared, compiler: &Compiler) -> Result<Self> {
        let loaded = binary(bytes).and_then(|bytes| Self::try_load(bytes.into(), name, declared, compiler));
        loaded.map_err(|cause| Error::of(name, cause))
    }

    /// The module of these bytes, WebAssembly that others have too.
    pub(crate) fn of_shared(bytes: Arc<[u8]>, name: &str, declared: Declared, compiler: &Compiler) -> Result<Self> {
        Self::try_load(bytes, name, declared, compiler).map_err(|cause| Error::of(name, cause))
    }

    fn try_load(bytes: Arc<[u8]>, name: &str, declared: Declared, compiler: &Compiler) -> Result<Self, Cause> {
        let host = Host::shared()?;
        let hash = Sha256::digest(&bytes).into();
        let (core, mode) = match inspect::inspect(&bytes)? {
            Inspected::Core(core) => {
                imports::check(&core)?;
                let described = !core.descriptions.is_empty() || core.function("sparklet_describe").is_some();
                (core, if described { Mode::Columnar } else { Mode::Plain })
            }
            Inspected::Component(descriptions) => (Core { descriptions, ..Core::default() }, Mode::Component),
        };
        let mut module = Self {
            name: name.into(),
            bytes,
            hash,
            mode,
            functions: Vec::new(),
            declared,
            host,
            compiler: compiler.clone(),
            core,
            ready: OnceLock::new(),
        };
        let functions = match mode {
            Mode::Plain => plain::functions(&module.core)?,
            _ => module.described()?,
        };
        module.functions = module.chosen(functions)?;
        Ok(module)
    }

    fn described(&self) -> Result<Vec<FunctionSpec>, Cause> {
        let texts = match self.core.descriptions.is_empty() {
            false => self.core.descriptions.clone(),
            true => {
                // Nobody's query: bounded by the limit of the module itself.
                let owner = &Owner::of_pool(Arc::new(UnboundedMemoryPool::default()));
                let limits = &self.declared.limits;
                match self.ready()? {
                    Ready::Plain(..) => return Ok(Vec::new()),
                    Ready::Columnar(pre) => vec![Columnar::describe(pre, &self.name, limits, owner)?],
                    Ready::Component(pre) => vec![Component::describe(pre, &self.name, limits, owner)?],
                }
            }
        };
        let mut functions = describe::read(texts.iter().map(Vec::as_slice)).map_err(Cause::Description)?;
        if self.mode == Mode::Component {
            // Components know their functions by number.
            functions.iter_mut().enumerate().for_each(|(i, function)| function.export = i.to_string());
        } else {
            self.check_exports(&functions)?;
        }
        Ok(functions)
    }

    fn check_exports(&self, functions: &[FunctionSpec]) -> Result<(), Cause> {
        use wasmparser::ValType::{I32, I64};
        let check = |name: &str, params: &[_], results: &[_]| -> Result<(), Cause> {
            let want = Signature { params: params.to_vec(), results: results.to_vec() };
            match self.core.function(name) {
                Some(found) if *found == want => Ok(()),
                Some(found) => Err(Cause::Contract(format!("`{name}` must be of type {want}, it is {found}"))),
                None => Err(Cause::Contract(format!("it does not export the function `{name}`, of type {want}"))),
            }
        };
        if !self.core.has_memory {
            return Err(Cause::Contract("it does not export its memory as `memory`".to_owned()));
        }
        check("sparklet_abi", &[], &[I32])?;
        check("sparklet_alloc", &[I32, I32], &[I32])?;
        check("sparklet_free", &[I32, I32, I32], &[])?;
        check("sparklet_error", &[], &[I64])?;
        for function in functions {
            let name = &function.export;
            let part = |suffix: &str| format!("{name}{suffix}");
            match &function.shape {
                Shape::Scalar { .. } => check(name, &[I32, I32], &[I32])?,
                Shape::Aggregate { .. } => {
                    check(&part("_new"), &[], &[I32])?;
                    check(&part("_update"), &[I32; 4], &[I32])?;
                    check(&part("_merge"), &[I32; 4], &[I32])?;
                    check(&part("_state"), &[I32; 3], &[I32])?;
                    check(&part("_evaluate"), &[I32; 3], &[I32])?;
                    check(&part("_size"), &[I32], &[I32])?;
                    check(&part("_drop"), &[I32], &[])?;
                }
                Shape::Table { .. } => {
                    check(&part("_open"), &[I32], &[I32])?;
                    check(&part("_next"), &[I32; 2], &[I32])?;
                    check(&part("_close"), &[I32], &[])?;
                }
            }
        }
        Ok(())
    }

    /// The functions that are wanted, as they are declared.
    fn chosen(&self, functions: Vec<FunctionSpec>) -> Result<Vec<FunctionSpec>, Cause> {
        let names = || functions.iter().map(|f| format!("`{}`", f.name)).take(8).collect::<Vec<_>>().join(", ");
        let mut chosen: Vec<FunctionSpec> = Vec::new();
        for wanted in &self.declared.functions {
            let name = wanted.function.as_ref().unwrap_or(&wanted.name);
            let mut found = functions.iter().filter(|f| f.name == *name).cloned().peekable();
            if found.peek().is_none() {
                let there =
                    if functions.is_empty() { "there is none".to_owned() } else { format!("there are {}", names()) };
                return Err(Cause::Declaration(format!("it has no function `{name}`: {there}")));
            }
            for mut function in found {
                function.name.clone_from(&wanted.name);
                if let Some((args, returns)) = &wanted.types {
                    refine(&mut function, args, returns, self.mode)?;
                }
                chosen.push(function);
            }
        }
        let mut chosen = if self.declared.functions.is_empty() { functions } else { chosen };
        if chosen.is_empty() {
            return Err(Cause::Invalid(
                "it exports no function that could be called: numbers in, one number out".to_owned(),
            ));
        }
        if self.declared.volatile {
            chosen.iter_mut().for_each(|f| f.volatility = datafusion::logical_expr::Volatility::Volatile);
        }
        describe::agree(&chosen).map_err(Cause::Description)?;
        Ok(chosen)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its bytes, in hexadecimal.
    pub fn hash(&self) -> String {
        self.hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The beginning of its hash: enough to tell versions apart.
    pub fn version(&self) -> String {
        self.hash()[..16].to_owned()
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Its bytes: WebAssembly.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How host and guest talk.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its functions, overloads one by one.
    pub fn functions(&self) -> &[FunctionSpec] {
        &self.functions
    }

    /// Its functions by name.
    pub fn by_name(&self) -> BTreeMap<&str, Vec<&FunctionSpec>> {
        let mut by_name: BTreeMap<&str, Vec<&FunctionSpec>> = BTreeMap::new();
        for function in &self.functions {
            by_name.entry(&function.name).or_default().push(function);
        }
        by_name
    }

    /// What was said of it.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// Compiles it now, if it is not yet.
    ///
    /// # Errors
    /// It cannot be compiled within the limits.
    pub fn compile(&self) -> Result<()> {
        self.ready().map(drop).map_err(|cause| Error::of(&self.name, cause))
    }

    fn ready(&self) -> Result<&Ready, Cause> {
        self.ready.get_or_init(|| self.make_ready()).as_ref().map_err(Clone::clone)
    }

    fn make_ready(&self) -> Result<Ready, Cause> {
        let fuel = self.declared.limits.fuel.is_some();
        let engine = self.host.engine(fuel);
        if self.mode == Mode::Component {
            let compiled = self.compiler.component(engine, &self.bytes, &self.hash, fuel)?;
            return component::link(&compiled).map(Ready::Component);
        }
        let with_loops = if self.mode == Mode::Plain { loops::within(&self.bytes, &self.called()) } else { None };
        let compiled = match &with_loops {
            Some(bytes) => self.compiler.module(engine, bytes, &Sha256::digest(bytes).into(), fuel)?,
            None => self.compiler.module(engine, &self.bytes, &self.hash, fuel)?,
        };
        let linker = imports::linker(&compiled)?;
        let pre = linker.instantiate_pre(&compiled).map_err(|e| Cause::Invalid(inspect::cut(&format!("{e:#}"))))?;
        Ok(match self.mode {
            Mode::Plain => {
                let signatures = self.core.functions.iter().cloned().collect();
                let within = with_loops.is_some();
                Ready::Plain(pre, Arc::new(Loops { within, signatures, made: Mutex::default() }))
            }
            _ => Ready::Columnar(pre),
        })
    }

    /// The exports that its functions call.
    fn called(&self) -> BTreeMap<&str, &Signature> {
        let of = |f: &FunctionSpec| self.core.functions.iter().find(|(name, _)| *name == f.export);
        self.functions.iter().filter_map(of).map(|(name, signature)| (name.as_str(), signature)).collect()
    }

    /// A new instance, which works for `owner`.
    pub(crate) fn instantiate(&self, owner: &Owner) -> Result<Box<dyn Guest>, Cause> {
        let limits = &self.declared.limits;
        Ok(match self.ready()? {
            Ready::Plain(pre, loops) => Box::new(Plain::new(pre, loops, &self.name, limits, owner)?),
            Ready::Columnar(pre) => Box::new(Columnar::new(pre, &self.name, limits, owner)?),
            Ready::Component(pre) => Box::new(Component::new(pre, &self.name, limits, owner)?),
        })
    }
}

/// Gives a function of the plain mode the types that its numbers stand for.
fn refine(
    function: &mut FunctionSpec,
    args: &[arrow::datatypes::DataType],
    returns: &arrow::datatypes::DataType,
    mode: Mode,
) -> Result<(), Cause> {
    let Shape::Scalar { returns: natural } = &function.shape else {
        return Err(Cause::Declaration(format!("the types of `{}` are its module's to say", function.name)));
    };
    let as_is = function.args == args && natural == returns;
    if !as_is && mode != Mode::Plain {
        let message = format!("the types of `{}` are its module's to say: {}", function.name, function.signature());
        return Err(Cause::Declaration(message));
    }
    let fits = |natural: &_, declared: &_| plain::carrier(declared).as_ref() == Some(natural);
    let all = function.args.len() == args.len() && function.args.iter().zip(args).all(|(n, d)| fits(n, d));
    let fit = all && fits(natural, returns);
    if !(as_is || fit) {
        let wanted: Vec<String> = args.iter().map(type_name).collect();
        return Err(Cause::Declaration(format!(
            "`{}` cannot be ({}) -> {}: the module has {}",
            function.name,
            wanted.join(", "),
            type_name(returns),
            function.signature()
        )));
    }
    function.args = args.to_vec();
    function.shape = Shape::Scalar { returns: returns.clone() };
    Ok(())
}

/// WebAssembly from its text format, or as it is.
fn binary(bytes: Vec<u8>) -> Result<Vec<u8>, Cause> {
    let text = bytes.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'(' | b';'));
    if !text {
        return Ok(bytes);
    }
    match wat::parse_bytes(&bytes) {
        Ok(binary) => Ok(binary.into_owned()),
        Err(error) => Err(Cause::Invalid(inspect::cut(&error.to_string().replace('\n', " ")))),
    }
}

/// The loops of a plain module; those that are not in it are made as they are needed.
pub(crate) struct Loops {
    /// They are in the module itself.
    pub(crate) within: bool,
    signatures: HashMap<String, Signature>,
    made: Mutex<HashMap<Signature, wasmtime::Module>>,
}

impl Loops {
    /// The loop for the function exported as `export`.
    pub(crate) fn of(&self, engine: &Engine, export: &str) -> Result<wasmtime::Module, Cause> {
        let signature =
            self.signatures.get(export).ok_or_else(|| Cause::Internal(format!("no function `{export}`")))?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = made.get(signature) {
            return Ok(module.clone());
        }
        let bytes = loops::module(signature).ok_or_else(|| Cause::Internal(format!("no loop for {signature}")))?;
        // The engine's own code, of known size: compiled here.
        let module = wasmtime::Module::new(engine, bytes).map_err(|e| Cause::Internal(format!("{e:#}")))?;
        made.insert(signature.clone(), module.clone());
        Ok(module)
    }
}
