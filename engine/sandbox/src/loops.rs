//! A module that calls a function of a guest for each row: generated, so that the host is not called for rows.
//!
//! It has a memory of its own, in which the host lays arguments and from which it takes results. Its `run` has the parameters
//! rows, validity (0: no NULLs), results, and for each argument a place and a step (0: a constant). The row at work stands at address
//! [`ROW`], so that a trap can be told with its arguments.

use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection,
    InstructionSink, MemArg, MemorySection, MemoryType, Module, TypeSection, ValType,
};

use crate::inspect::Signature;

/// Where the row at work stands.
pub(crate) const ROW: usize = 8;

/// Where columns may lie.
pub(crate) const FIRST: usize = 64;

const ROWS: u32 = 0;
const VALID: u32 = 1;
const OUT: u32 = 2;
const ARGS: u32 = 3;

/// Most arguments of a function.
pub(crate) const MAX_ARGS: usize = 32;

/// The module for a function of type `of`, which has one result and numeric parameters.
pub(crate) fn module(of: &Signature) -> Option<Vec<u8>> {
    let params: Vec<ValType> = of.params.iter().map(|p| numeric(*p)).collect::<Option<_>>()?;
    let [result] = of.results.as_slice() else { return None };
    let result = numeric(*result)?;
    let run = vec![ValType::I32; ARGS as usize + 2 * params.len()];

    let mut types = TypeSection::new();
    types.ty().function(params.iter().copied(), [result]);
    types.ty().function(run.iter().copied(), []);
    let mut imports = ImportSection::new();
    imports.import("guest", "f", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(1);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("run", ExportKind::Func, 1);

    let row = run.len() as u32;
    let mut body = Function::new([(1, ValType::I32)]);
    let mut code = body.instructions();
    code.local_get(VALID).if_(BlockType::Empty);
    rows(&mut code, row, &params, result, true);
    code.else_();
    rows(&mut code, row, &params, result, false);
    code.end().end();
    let mut bodies = CodeSection::new();
    bodies.function(&body);

    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories).section(&exports).section(&bodies);
    Some(module.finish())
}

/// The loop over the rows.
fn rows(code: &mut InstructionSink<'_>, row: u32, params: &[ValType], result: ValType, nulls: bool) {
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
    for (i, param) in params.iter().enumerate() {
        code.local_get(ARGS + 2 * i as u32);
        match param {
            ValType::I32 => code.i32_load(at(2)),
            ValType::I64 => code.i64_load(at(3)),
            ValType::F32 => code.f32_load(at(2)),
            _ => code.f64_load(at(3)),
        };
    }
    code.call(0);
    match result {
        ValType::I32 => code.i32_store(at(2)),
        ValType::I64 => code.i64_store(at(3)),
        ValType::F32 => code.f32_store(at(2)),
        _ => code.f64_store(at(3)),
    };
    if nulls {
        code.end();
    }
    for i in 0..params.len() as u32 {
        let (place, step) = (ARGS + 2 * i, ARGS + 2 * i + 1);
        code.local_get(place).local_get(step).i32_add().local_set(place);
    }
    code.local_get(OUT).i32_const(width(result)).i32_add().local_set(OUT);
    code.local_get(row).i32_const(1).i32_add().local_set(row);
    code.br(0).end().end();
}

fn at(align: u32) -> MemArg {
    MemArg { offset: 0, align, memory_index: 0 }
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
