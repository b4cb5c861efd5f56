//! What guests may import: a log, a way to fail, and WASI that denies.

use wasmtime::{Caller, Extern, ExternType, FuncType, Linker, Module, Val, ValType};

use crate::error::Cause;
use crate::inspect::{Core, Signature};
use crate::state::{self, State};

const WASI: &str = "wasi_snapshot_preview1";
const OWN: &str = "sparklet1";

/// `EBADF`, `ENOSYS`, `ENOTCAPABLE` of WASI preview 1.
const BAD_DESCRIPTOR: i32 = 8;
const NOT_CAPABLE: i32 = 76;

/// The clock of guests: 2000-01-01, always.
const NOW: u64 = 946_684_800_000_000_000;

/// Checks that all imports can be satisfied.
pub(crate) fn check(core: &Core) -> Result<(), Cause> {
    for (module, name, signature) in &core.imports {
        let known = match module.as_str() {
            OWN => match name.as_str() {
                "log" => signature.params.len() == 3 && signature.results.is_empty(),
                "fail" => signature.params.len() == 2 && signature.results.is_empty(),
                _ => false,
            },
            WASI => wasi_type(signature),
            _ => false,
        };
        let all_i32 = module != OWN || signature.params.iter().all(|p| *p == wasmparser::ValType::I32);
        if !known || !all_i32 {
            return Err(Cause::Import(format!(
                "it imports `{module}.{name}`, of type {signature}, which there is not"
            )));
        }
    }
    Ok(())
}

fn wasi_type(signature: &Signature) -> bool {
    use wasmparser::ValType::{I32, I64};
    signature.params.iter().all(|p| matches!(p, I32 | I64)) && matches!(signature.results.as_slice(), [] | [I32])
}

/// A linker with what `module` imports; [`check`] has seen that there is nothing else.
pub(crate) fn linker(module: &Module) -> Result<Linker<State>, Cause> {
    let mut linker = Linker::new(module.engine());
    let internal = |e: wasmtime::Error| Cause::Internal(format!("{e:#}"));
    let mut done: Vec<(String, String)> = Vec::new();
    for import in module.imports() {
        let ExternType::Func(of) = import.ty() else { continue };
        let key = (import.module().to_owned(), import.name().to_owned());
        if done.contains(&key) {
            continue;
        }
        match (import.module(), import.name()) {
            (OWN, "log") => linker.func_wrap(OWN, "log", log).map(drop),
            (OWN, "fail") => linker.func_wrap(OWN, "fail", fail).map(drop),
            (WASI, name) => {
                let call = name.to_owned();
                linker
                    .func_new(WASI, name, of.clone(), move |caller, args, results| {
                        wasi(&call, &of, caller, args, results)
                    })
                    .map(drop)
            }
            _ => Ok(()),
        }
        .map_err(internal)?;
        done.push(key);
    }
    Ok(linker)
}

fn memory_of<'a>(caller: &'a mut Caller<'_, State>) -> Option<(&'a mut [u8], &'a mut State)> {
    match caller.get_export("memory")? {
        Extern::Memory(memory) => Some(memory.data_and_store_mut(caller)),
        _ => None,
    }
}

fn log(mut caller: Caller<'_, State>, level: i32, ptr: i32, len: i32) {
    if caller.data().log_is_full() {
        return;
    }
    let Some((memory, state)) = memory_of(&mut caller) else { return };
    let text = state::message(memory, ptr.cast_unsigned(), len.cast_unsigned());
    let text = text.unwrap_or_else(|| "(a message outside of its memory)".to_owned());
    state.log(level, &text.escape_debug().to_string());
}

fn fail(mut caller: Caller<'_, State>, ptr: i32, len: i32) -> wasmtime::Result<()> {
    let text = memory_of(&mut caller)
        .and_then(|(memory, _)| state::message(memory, ptr.cast_unsigned(), len.cast_unsigned()))
        .unwrap_or_else(|| "it failed, with a message outside of its memory".to_owned());
    caller.data_mut().failure = Some(text);
    Err(wasmtime::Error::msg("the guest failed"))
}

/// One call of WASI preview 1: enough that runtimes start, nothing that reaches outside.
fn wasi(
    name: &str,
    of: &FuncType,
    mut caller: Caller<'_, State>,
    args: &[Val],
    results: &mut [Val],
) -> wasmtime::Result<()> {
    let arg = |i: usize| match args.get(i) {
        Some(Val::I32(value)) => value.cast_unsigned(),
        Some(Val::I64(value)) => value.cast_unsigned().try_into().unwrap_or(u32::MAX),
        _ => 0,
    };
    let code = match name {
        "proc_exit" => {
            let code = arg(0).cast_signed();
            let stderr = String::from_utf8_lossy(&caller.data().stderr).trim().escape_debug().to_string();
            let said = if stderr.is_empty() { String::new() } else { format!("; it wrote: {stderr}") };
            caller.data_mut().failure = Some(crate::inspect::cut(&format!("it called exit({code}){said}")));
            return Err(wasmtime::Error::msg("the guest exited"));
        }
        "args_sizes_get" | "environ_sizes_get" => {
            put(&mut caller, arg(0), &0u32.to_le_bytes()).max(put(&mut caller, arg(1), &0u32.to_le_bytes()))
        }
        "args_get" | "environ_get" | "sched_yield" => 0,
        "clock_time_get" => put(&mut caller, arg(2), &NOW.to_le_bytes()),
        "clock_res_get" => put(&mut caller, arg(1), &1_000_000u64.to_le_bytes()),
        "random_get" => random(&mut caller, arg(0), arg(1)),
        "fd_write" if matches!(arg(0), 1 | 2) => write(&mut caller, arg(0), arg(1), arg(2), arg(3)),
        // A character device without any right.
        "fd_fdstat_get" if arg(0) < 3 => {
            let mut stat = [0u8; 24];
            stat[0] = 2;
            put(&mut caller, arg(1), &stat)
        }
        "fd_close" | "fd_fdstat_set_flags" if arg(0) < 3 => 0,
        _ if name.starts_with("fd_") => BAD_DESCRIPTOR,
        _ => NOT_CAPABLE,
    };
    for (result, of) in results.iter_mut().zip(of.results()) {
        *result = if matches!(of, ValType::I64) { Val::I64(code.into()) } else { Val::I32(code) };
    }
    Ok(())
}

fn put(caller: &mut Caller<'_, State>, at: u32, bytes: &[u8]) -> i32 {
    const FAULT: i32 = 21;
    let Some((memory, _)) = memory_of(caller) else { return FAULT };
    let at = at as usize;
    match at.checked_add(bytes.len()).and_then(|end| memory.get_mut(at..end)) {
        Some(place) => {
            place.copy_from_slice(bytes);
            0
        }
        None => FAULT,
    }
}

fn random(caller: &mut Caller<'_, State>, at: u32, len: u32) -> i32 {
    let Some((memory, state)) = memory_of(caller) else { return BAD_DESCRIPTOR };
    // More in one call would be time that no deadline sees.
    let len = (len as usize).min(64 << 10);
    let Some(place) = (at as usize).checked_add(len).and_then(|end| memory.get_mut(at as usize..end)) else {
        return BAD_DESCRIPTOR;
    };
    for byte in place {
        // xorshift64 (Marsaglia 2003)
        state.random ^= state.random << 13;
        state.random ^= state.random >> 7;
        state.random ^= state.random << 17;
        *byte = state.random.to_le_bytes()[3];
    }
    0
}

/// Takes what is written to standard output or error; the end of the latter may explain a trap.
fn write(caller: &mut Caller<'_, State>, fd: u32, vectors: u32, count: u32, written: u32) -> i32 {
    let Some((memory, state)) = memory_of(caller) else { return BAD_DESCRIPTOR };
    let word = |at: u64| -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        Some(u64::from(u32::from_le_bytes(memory.get(at..at.checked_add(4)?)?.try_into().ok()?)))
    };
    let mut total = 0u64;
    for i in 0..u64::from(count.min(64)) {
        let at = u64::from(vectors) + 8 * i;
        let (Some(ptr), Some(len)) = (word(at), word(at + 4)) else { return BAD_DESCRIPTOR };
        let (Ok(start), Ok(end)) = (usize::try_from(ptr), usize::try_from(ptr + len)) else { return BAD_DESCRIPTOR };
        let Some(bytes) = memory.get(start..end) else { return BAD_DESCRIPTOR };
        total += len;
        if fd == 2 && state.stderr.len() < state::MAX_MESSAGE {
            state.stderr.extend_from_slice(&bytes[..bytes.len().min(state::MAX_MESSAGE)]);
        }
    }
    put(caller, written, &u32::try_from(total).unwrap_or(u32::MAX).to_le_bytes())
}
