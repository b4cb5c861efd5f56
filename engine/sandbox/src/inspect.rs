//! What is in a file of WebAssembly, found without running or compiling it.

use std::collections::BTreeMap;

use wasmparser::types::EntityType;
use wasmparser::{Encoding, FuncType, Parser, Payload, ValType, Validator, WasmFeatures};

use crate::describe::MAX_NAME;
use crate::error::Cause;

/// Largest module in bytes.
pub(crate) const MAX_MODULE: usize = 128 << 20;

/// Largest core module: what the compiler may be asked to do.
const MAX_CORE_MODULE: usize = 32 << 20;

/// Largest body of one function: the compiler needs more than linear time for them.
const MAX_BODY: usize = 1 << 20;

/// Most functions in a core module.
const MAX_BODIES: u32 = 100_000;

/// The section that lists functions.
const SECTION: &str = "sparklet.udf";

/// What a file of WebAssembly is.
#[derive(Debug)]
pub(crate) enum Inspected {
    /// A core module.
    Core(Core),
    /// A component, with the contents of its sections `sparklet.udf`.
    Component(Vec<Vec<u8>>),
}

/// What a core module has.
#[derive(Debug, Default)]
pub(crate) struct Core {
    /// Imported functions: module, name, type.
    pub(crate) imports: Vec<(String, String, Signature)>,
    /// Exported functions by name, in the order of the module.
    pub(crate) functions: Vec<(String, Signature)>,
    /// True if a memory is exported as `memory`.
    pub(crate) has_memory: bool,
    /// Contents of the sections `sparklet.udf`.
    pub(crate) descriptions: Vec<Vec<u8>>,
}

/// Type of a core function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    pub(crate) params: Vec<ValType>,
    pub(crate) results: Vec<ValType>,
}

impl From<&FuncType> for Signature {
    fn from(of: &FuncType) -> Self {
        Self { params: of.params().to_vec(), results: of.results().to_vec() }
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "({}) -> ({})", list(&self.params), list(&self.results))
    }
}

impl Core {
    /// Type of the function exported as `name`.
    pub(crate) fn function(&self, name: &str) -> Option<&Signature> {
        self.functions.iter().find(|(n, _)| n == name).map(|(_, signature)| signature)
    }
}

/// The proposals that guests may use: what the engine has switched on.
pub(crate) fn features() -> WasmFeatures {
    WasmFeatures::MUTABLE_GLOBAL
        | WasmFeatures::SATURATING_FLOAT_TO_INT
        | WasmFeatures::SIGN_EXTENSION
        | WasmFeatures::REFERENCE_TYPES
        | WasmFeatures::MULTI_VALUE
        | WasmFeatures::BULK_MEMORY
        | WasmFeatures::BULK_MEMORY_OPT
        | WasmFeatures::CALL_INDIRECT_OVERLONG
        | WasmFeatures::SIMD
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::TAIL_CALL
        | WasmFeatures::EXTENDED_CONST
        | WasmFeatures::FLOATS
        | WasmFeatures::COMPONENT_MODEL
}

/// Validates `bytes` and says what is in them.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspected, Cause> {
    if bytes.len() > MAX_MODULE {
        return Err(too_large(bytes.len(), MAX_MODULE));
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Cause::Invalid("it does not begin with the bytes `\\0asm`".to_owned()));
    }
    let invalid =
        |e: wasmparser::BinaryReaderError| Cause::Invalid(cut(&format!("{} (at byte {})", e.message(), e.offset())));
    // What is small to look at comes first: sizes, before the validator does its work.
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Component, .. } => {
                Validator::new_with_features(features()).validate_all(bytes).map_err(invalid)?;
                return component(bytes).map(Inspected::Component);
            }
            Payload::CodeSectionStart { count, .. } if count > MAX_BODIES => {
                return Err(Cause::TooLarge(format!("{count} functions, {MAX_BODIES} are allowed")));
            }
            Payload::CodeSectionEntry(body) if body.range().len() > MAX_BODY => {
                let size = body.range().len();
                return Err(Cause::TooLarge(format!("a function of {size} bytes, {MAX_BODY} are allowed")));
            }
            _ => {}
        }
    }
    if bytes.len() > MAX_CORE_MODULE {
        return Err(too_large(bytes.len(), MAX_CORE_MODULE));
    }
    let types = Validator::new_with_features(features()).validate_all(bytes).map_err(invalid)?;
    let signature = |of: EntityType| match of {
        EntityType::Func(id) | EntityType::FuncExact(id) => {
            types.as_ref().get(id).map(|sub| Signature::from(sub.unwrap_func()))
        }
        _ => None,
    };
    let mut core = Core::default();
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(invalid)?;
                    let of = types.as_ref().entity_type_from_import(&import).and_then(signature);
                    let (module, name) = (shorten(import.module), shorten(import.name));
                    let Some(of) = of else {
                        let message = format!("it imports `{module}.{name}`, which is no function");
                        return Err(Cause::Import(message));
                    };
                    core.imports.push((module, name, of));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    core.has_memory |= export.kind == wasmparser::ExternalKind::Memory && export.name == "memory";
                    let Some(of) = types.as_ref().entity_type_from_export(&export).and_then(signature) else {
                        continue;
                    };
                    if export.name.len() > MAX_NAME {
                        let name = shorten(export.name);
                        return Err(Cause::Invalid(format!(
                            "the name of the exported function `{name}` is longer than {MAX_NAME} bytes"
                        )));
                    }
                    names.insert(export.name.to_owned(), ());
                    core.functions.push((export.name.to_owned(), of));
                }
            }
            Payload::CustomSection(section) if section.name() == SECTION => {
                core.descriptions.push(section.data().to_vec());
            }
            _ => {}
        }
    }
    Ok(Inspected::Core(core))
}

/// The sections `sparklet.udf` of a component itself; those of modules and components within it are not its own.
fn component(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Cause> {
    let (mut descriptions, mut depth) = (Vec::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|e| Cause::Invalid(cut(e.message())))? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::CustomSection(section) if depth == 1 && section.name() == SECTION => {
                descriptions.push(section.data().to_vec());
            }
            _ => {}
        }
    }
    Ok(descriptions)
}

fn too_large(bytes: usize, limit: usize) -> Cause {
    Cause::TooLarge(format!("{} MiB, {} MiB are allowed", bytes >> 20, limit >> 20))
}

/// A name of the guest's, for messages.
fn shorten(name: &str) -> String {
    cut(&name.escape_debug().to_string())
}

/// The first 200 characters.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
