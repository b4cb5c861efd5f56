//! Loops that call a function of a guest for each row: generated, so that the host is not called for rows.
//!
//! A loop works in a memory of the host's own, in which the host lays arguments and from which it takes results. It has the parameters
//! rows, validity (0: no NULLs), results, and for each argument a place and a step (0: a constant). The row at work stands at address
//! [`ROW`], so that a trap can be told with its arguments.
//!
//! Loops are added to the guest's own module ([`within`]), behind all that it has: what they call is near, and short functions are
//! copied into them. The host's memory is then the last one of the module. The guest cannot reach it: its code was validated as code of a
//! module with one memory at most, so it names no other, and memories have no addresses in each other. Where a module cannot be
//! added to, a loop is a module of its own ([`module`]).

use std::collections::{BTreeMap, HashMap};

use wasm_encoder::{
    BlockType, CodeSection, Encode, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    MemArg, MemorySection, MemoryType, Module, RawSection, SectionId, TypeSection, ValType,
};
use wasmparser::{ExternalKind, FunctionBody, Operator, Parser, Payload, TypeRef, Validator, WasmFeatures};

use crate::inspect::{Signature, features};

/// Where the row at work stands.
pub(crate) const ROW: usize = 8;

/// Where columns may lie.
pub(crate) const FIRST: usize = 64;

/// The export of the host's memory.
pub(crate) const MEMORY: &str = "sparklet rows";

const ROWS: u32 = 0;
const VALID: u32 = 1;
const OUT: u32 = 2;
const ARGS: u32 = 3;

/// Most arguments of a function.
pub(crate) const MAX_ARGS: usize = 32;

/// Longest body in bytes that is copied into a loop, and most locals of one.
const MAX_COPIED: usize = 1 << 10;
const MAX_LOCALS: u32 = 64;

/// The export of the loop for the function exported as `function`.
pub(crate) fn export(function: &str) -> String {
    format!("sparklet loop {function}")
}

/// The module for a function of type `of`, which has one result and numeric parameters.
pub(crate) fn module(of: &Signature) -> Option<Vec<u8>> {
    let of = Numbers::of(of)?;
    let mut types = TypeSection::new();
    types.ty().function(of.params.iter().copied(), [of.result]);
    types.ty().function(of.run(), []);
    let mut imports = ImportSection::new();
    imports.import("guest", "f", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export(MEMORY, ExportKind::Memory, 0);
    exports.export("run", ExportKind::Func, 1);
    let mut bodies = CodeSection::new();
    bodies.function(&of.body(&Callee::Called(0), 0));
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports).section(&bodies);
    Some(module.finish())
}

/// The module `bytes`, which is valid, with loops for `wanted`, some of its exports. None where it has what is in the way.
pub(crate) fn within(bytes: &[u8], wanted: &BTreeMap<&str, &Signature>) -> Option<Vec<u8>> {
    let parts = Parts::of(bytes)?;
    if parts.taken.contains_key(MEMORY) || parts.memories > 1 {
        return None;
    }
    let memory = parts.memories;
    let (mut types, mut functions, mut exports, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    MEMORY.encode(&mut exports);
    exports.push(0x02);
    memory.encode(&mut exports);
    let mut count = 0;
    for (name, signature) in wanted {
        let of = Numbers::of(signature)?;
        let function = (*parts.taken.get(name)?)?;
        let own = export(name);
        if parts.taken.contains_key(own.as_str()) {
            return None;
        }
        let copied = function.checked_sub(parts.imported).and_then(|i| parts.bodies.get(i as usize));
        let callee = copied.and_then(|body| of.copied(body, bytes)).unwrap_or(Callee::Called(function));
        // A function type: its parameters, no results.
        types.push(0x60);
        of.run().as_slice().encode(&mut types);
        0u32.encode(&mut types);
        (parts.types + count).encode(&mut functions);
        own.as_str().encode(&mut exports);
        exports.push(0x00);
        (parts.imported + parts.defined + count).encode(&mut exports);
        of.body(&callee, memory).encode(&mut bodies);
        count += 1;
    }
    // No pages in the beginning, no maximum.
    let more = [
        (SectionId::Type, count, types),
        (SectionId::Function, count, functions),
        (SectionId::Memory, 1, vec![0x00, 0x00]),
        (SectionId::Export, count + 1, exports),
        (SectionId::Code, count, bodies),
    ];
    let mut sections: BTreeMap<usize, (u8, Vec<u8>)> = BTreeMap::new();
    for (id, contents) in &parts.sections {
        sections.insert(place(*id)?, (*id, contents.to_vec()));
    }
    for (id, count, entries) in more {
        let id = id as u8;
        let (_, contents) = sections.entry(place(id)?).or_insert_with(|| (id, vec![0]));
        *contents = longer(contents, count, &entries)?;
    }
    let mut module = Module::new();
    for (id, data) in sections.values() {
        module.section(&RawSection { id: *id, data });
    }
    let made = module.finish();
    let features = features() | WasmFeatures::MULTI_MEMORY;
    Validator::new_with_features(features).validate_all(&made).is_ok().then_some(made)
}

/// Where sections stand; none for those that there are not.
fn place(id: u8) -> Option<usize> {
    use SectionId::{Code, Data, DataCount, Element, Export, Function, Global, Import, Memory, Start, Table, Type};
    let order = [Type, Import, Function, Table, Memory, Global, Export, Start, Element, DataCount, Code, Data];
    order.iter().position(|of| *of as u8 == id)
}

/// A section of `count` more `entries`.
fn longer(contents: &[u8], count: u32, entries: &[u8]) -> Option<Vec<u8>> {
    let mut reader = wasmparser::BinaryReader::new(contents, 0);
    let old = reader.read_var_u32().ok()?;
    let mut made = Vec::with_capacity(contents.len() + entries.len() + 4);
    old.checked_add(count)?.encode(&mut made);
    made.extend_from_slice(&contents[reader.original_position()..]);
    made.extend_from_slice(entries);
    Some(made)
}

/// What is in a module.
#[derive(Default)]
struct Parts<'a> {
    sections: Vec<(u8, &'a [u8])>,
    types: u32,
    imported: u32,
    defined: u32,
    memories: u32,
    /// Exports by name, with the number of those that are functions.
    taken: HashMap<&'a str, Option<u32>>,
    bodies: Vec<FunctionBody<'a>>,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut parts = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.ok()?;
            match &payload {
                Payload::TypeSection(section) => parts.types = section.count(),
                Payload::ImportSection(section) => {
                    for import in section.clone().into_imports() {
                        if !matches!(import.ok()?.ty, TypeRef::Func(_)) {
                            return None;
                        }
                        parts.imported += 1;
                    }
                }
                Payload::FunctionSection(section) => parts.defined = section.count(),
                Payload::MemorySection(section) => parts.memories = section.count(),
                Payload::ExportSection(section) => {
                    for export in section.clone() {
                        let export = export.ok()?;
                        let function = (export.kind == ExternalKind::Func).then_some(export.index);
                        parts.taken.insert(export.name, function);
                    }
                }
                Payload::CodeSectionEntry(body) => parts.bodies.push(body.clone()),
                // Names and the like: nothing that runs.
                Payload::CustomSection(_) => continue,
                _ => {}
            }
            if let Some((id, range)) = payload.as_section() {
                parts.sections.push((id, bytes.get(range)?));
            }
        }
        Some(parts)
    }
}

/// The function of the guest in a loop.
enum Callee {
    /// By its number.
    Called(u32),
    /// Its own locals without the parameters, and its instructions but for the places of locals, ended by `end`.
    Copied(Vec<ValType>, Vec<Code>),
}

/// A part of a copied body.
enum Code {
    Same(Vec<u8>),
    Get(u32),
    Set(u32),
    Tee(u32),
    /// Out of the body, from so many blocks in it.
    Return(u32),
}

/// A signature over numbers.
struct Numbers {
    params: Vec<ValType>,
    result: ValType,
}

impl Numbers {
    fn of(signature: &Signature) -> Option<Self> {
        let params = signature.params.iter().map(|p| numeric(*p)).collect::<Option<_>>()?;
        let [result] = signature.results.as_slice() else { return None };
        Some(Self { params, result: numeric(*result)? })
    }

    /// Parameters of the loop.
    fn run(&self) -> Vec<ValType> {
        vec![ValType::I32; ARGS as usize + 2 * self.params.len()]
    }

    /// `body`, if it is short and simple.
    fn copied(&self, body: &FunctionBody<'_>, bytes: &[u8]) -> Option<Callee> {
        if body.range().len() > MAX_COPIED {
            return None;
        }
        let mut locals = Vec::new();
        for group in body.get_locals_reader().ok()? {
            let (count, of) = group.ok()?;
            if count > MAX_LOCALS - locals.len() as u32 {
                return None;
            }
            let of = if of == wasmparser::ValType::V128 { ValType::V128 } else { numeric(of)? };
            locals.extend(std::iter::repeat_n(of, count as usize));
        }
        let (mut code, mut depth) = (Vec::new(), 0u32);
        let mut reader = body.get_operators_reader().ok()?;
        while !reader.eof() {
            let (operator, start) = reader.read_with_offset().ok()?;
            code.push(match operator {
                Operator::LocalGet { local_index } => Code::Get(local_index),
                Operator::LocalSet { local_index } => Code::Set(local_index),
                Operator::LocalTee { local_index } => Code::Tee(local_index),
                Operator::Return => Code::Return(depth),
                Operator::ReturnCall { .. } | Operator::ReturnCallIndirect { .. } => return None,
                other => {
                    match other {
                        Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                        // The last one ends the body.
                        Operator::End => depth = depth.saturating_sub(1),
                        _ => {}
                    }
                    Code::Same(bytes.get(start..reader.original_position())?.to_vec())
                }
            });
        }
        Some(Callee::Copied(locals, code))
    }

    /// The body of the loop; the host's memory is number `memory`.
    fn body(&self, callee: &Callee, memory: u32) -> Function {
        let row = ARGS + 2 * self.params.len() as u32;
        let mut locals = vec![ValType::I32];
        if let Callee::Copied(own, _) = callee {
            locals.extend(self.params.iter().chain(own));
        }
        let mut body = Function::new(locals.into_iter().map(|of| (1, of)));
        body.instructions().local_get(VALID).if_(BlockType::Empty);
        self.rows(&mut body, callee, row, memory, true);
        body.instructions().else_();
        self.rows(&mut body, callee, row, memory, false);
        body.instructions().end().end();
        body
    }

    /// The loop over the rows.
    fn rows(&self, body: &mut Function, callee: &Callee, row: u32, memory: u32, nulls: bool) {
        let at = |align: u32| MemArg { offset: 0, align, memory_index: memory };
        let mut code = body.instructions();
        code.block(BlockType::Empty).loop_(BlockType::Empty);
        code.local_get(row).local_get(ROWS).i32_ge_u().br_if(1);
        if nulls {
            // valid[row / 8] >> row % 8 & 1
            code.local_get(VALID).local_get(row).i32_const(3).i32_shr_u().i32_add().i32_load8_u(at(0));
            code.local_get(row).i32_const(7).i32_and().i32_shr_u().i32_const(1).i32_and();
            code.if_(BlockType::Empty);
        }
        code.i32_const(ROW as i32).local_get(row).i32_store(at(2));
        code.local_get(OUT);
        for (i, param) in self.params.iter().enumerate() {
            code.local_get(ARGS + 2 * i as u32);
            match param {
                ValType::I32 => code.i32_load(at(2)),
                ValType::I64 => code.i64_load(at(3)),
                ValType::F32 => code.f32_load(at(2)),
                _ => code.f64_load(at(3)),
            };
        }
        match callee {
            Callee::Called(function) => {
                code.call(*function);
            }
            Callee::Copied(locals, copied) => self.copy(body, row + 1, locals, copied),
        }
        let mut code = body.instructions();
        match self.result {
            ValType::I32 => code.i32_store(at(2)),
            ValType::I64 => code.i64_store(at(3)),
            ValType::F32 => code.f32_store(at(2)),
            _ => code.f64_store(at(3)),
        };
        if nulls {
            code.end();
        }
        for i in 0..self.params.len() as u32 {
            let (place, step) = (ARGS + 2 * i, ARGS + 2 * i + 1);
            code.local_get(place).local_get(step).i32_add().local_set(place);
        }
        code.local_get(OUT).i32_const(width(self.result)).i32_add().local_set(OUT);
        code.local_get(row).i32_const(1).i32_add().local_set(row);
        code.br(0).end().end();
    }

    /// The copied function: takes its arguments from the stack, as a call does; its locals begin at `first`.
    fn copy(&self, body: &mut Function, first: u32, locals: &[ValType], copied: &[Code]) {
        let mut code = body.instructions();
        for i in (0..self.params.len() as u32).rev() {
            code.local_set(first + i);
        }
        for (i, of) in locals.iter().enumerate() {
            match of {
                ValType::I32 => code.i32_const(0),
                ValType::I64 => code.i64_const(0),
                ValType::F32 => code.f32_const(0.0f32.into()),
                ValType::F64 => code.f64_const(0.0f64.into()),
                _ => code.v128_const(0),
            };
            code.local_set(first + (self.params.len() + i) as u32);
        }
        // In the body, the function itself is the outermost block.
        code.block(BlockType::Result(self.result));
        for part in copied {
            let mut code = body.instructions();
            match part {
                Code::Same(bytes) => {
                    body.raw(bytes.iter().copied());
                }
                Code::Get(local) => {
                    code.local_get(first + local);
                }
                Code::Set(local) => {
                    code.local_set(first + local);
                }
                Code::Tee(local) => {
                    code.local_tee(first + local);
                }
                Code::Return(depth) => {
                    code.br(*depth);
                }
            }
        }
    }
}

fn width(of: ValType) -> i32 {
    if matches!(of, ValType::I32 | ValType::F32) { 4 } else { 8 }
}

fn numeric(of: wasmparser::ValType) -> Option<ValType> {
    Some(match of {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        _ => return None,
    })
}
