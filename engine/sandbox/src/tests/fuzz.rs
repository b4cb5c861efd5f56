//! Changed modules, and changed outputs of guests: whatever they are, there is an error or a valid result, soon, and nothing is left.
//!
//! A few seconds of fixed seeds; `SPARKLET_FUZZ_MINUTES=30` goes on for so long with new ones. What fails is told by its seed, which
//! `SPARKLET_FUZZ_SEED` runs again alone, and a module is left in the folder for temporary files.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, ListArray, StringArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{calls, columnar, load, pieces};
use crate::decode::{Pieces, Reader};
use crate::encode::{Block, Column};
use crate::guest::{Batch, Emit};
use crate::scope::Owner;
use crate::types::parse_type;
use crate::{Compiler, Declared, FunctionSpec, Limits, Module, Shape};

/// Rounds of a normal test.
const MODULES: u64 = 400;
const OUTPUTS: u64 = 6_000;
const GUESTS: u64 = 400;

/// Longest time of one round: compiling and a few calls, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Runs `round` with generators of other numbers each time; true if often.
fn rounds(normal: u64, mut round: impl FnMut(&mut SmallRng, u64)) -> bool {
    let setting = |name| std::env::var(name).ok();
    let minutes = setting("SPARKLET_FUZZ_MINUTES").and_then(|text| text.parse::<f64>().ok());
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    let alone = setting("SPARKLET_FUZZ_SEED").and_then(|text| text.parse::<u64>().ok());
    let first = alone.unwrap_or_else(|| if until.is_some() { rand::random::<u64>() >> 1 } else { 0 });
    for i in 0.. {
        if until.map_or(i == normal, |until| Instant::now() > until) || (alone.is_some() && i == 1) {
            break;
        }
        let seed = first + i;
        let start = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| round(&mut SmallRng::seed_from_u64(seed), seed))).is_err() {
            panic!("seed {seed}");
        }
        assert!(start.elapsed() < SOON, "seed {seed}: {:?}", start.elapsed());
    }
    alone.is_none()
}

/// A type out of all that cross the boundary.
fn any_type(random: &mut SmallRng) -> DataType {
    const TYPES: [&str; 20] = [
        "Boolean",
        "Int8",
        "Int16",
        "Int32",
        "Int64",
        "UInt8",
        "UInt16",
        "UInt32",
        "UInt64",
        "Float32",
        "Float64",
        "Utf8",
        "Binary",
        "Decimal128(9, 2)",
        "Date32",
        "Timestamp(us)",
        "Duration(ms)",
        "List(Utf8)",
        "List(List(Boolean))",
        "Struct(a: Int32, b: List(Struct(c: Date32, d: Utf8)), e: Boolean)",
    ];
    parse_type(TYPES[random.random_range(0..TYPES.len())]).unwrap()
}

/// `rows` values of type `of`, NULL or not, perhaps a slice of more.
fn any_array(random: &mut SmallRng, of: &DataType, rows: usize) -> ArrayRef {
    let before = if random.random_bool(0.5) { random.random_range(0..10) } else { 0 };
    let all = before + rows + random.random_range(0..3);
    let nulls = random
        .random_bool(0.5)
        .then(|| NullBuffer::from((0..all).map(|_| random.random_bool(0.8)).collect::<Vec<bool>>()));
    let array: ArrayRef = match of {
        DataType::Boolean => Arc::new(BooleanArray::new((0..all).map(|_| random.random()).collect(), nulls)),
        DataType::Utf8 | DataType::Binary => {
            let text = |random: &mut SmallRng| {
                let len = [0, 1, 5, 12, 13, 40][random.random_range(0..6)];
                (0..len).map(|_| ['a', 'é', '€', 'z'][random.random_range(0..4)]).collect::<String>()
            };
            let texts: Vec<String> = (0..all).map(|_| text(random)).collect();
            let valid = |i: usize| nulls.as_ref().is_none_or(|n| n.is_valid(i));
            let values = texts.iter().enumerate().map(|(i, text)| valid(i).then_some(text.as_str()));
            match of {
                DataType::Utf8 => Arc::new(values.collect::<StringArray>()),
                _ => Arc::new(values.map(|v| v.map(str::as_bytes)).collect::<BinaryArray>()),
            }
        }
        DataType::List(item) => {
            let lengths: Vec<usize> = (0..all).map(|_| random.random_range(0..4)).collect();
            let items = any_array(random, item.data_type(), lengths.iter().sum());
            Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), items, nulls))
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| any_array(random, field.data_type(), all)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, nulls))
        }
        number => {
            let values: Vec<i64> = (0..all).map(|_| random.random_range(0..100)).collect();
            let values: ArrayRef = Arc::new(Int64Array::new(values.into(), nulls));
            let values = if *number == DataType::Date32 { cast(&values, &DataType::Int32).unwrap() } else { values };
            cast(&values, number).unwrap()
        }
    };
    array.slice(before, rows)
}

/// That `found` is what Arrow would take for a column of this type with so many rows.
fn is_valid(found: &ArrayRef, of: &DataType, rows: usize) {
    assert_eq!((found.data_type(), found.len()), (of, rows));
    found.to_data().validate_full().unwrap();
    let shown = arrow::util::display::ArrayFormatter::try_new(found, &Default::default()).unwrap();
    (0..rows).for_each(|row| drop(shown.value(row).to_string()));
}

/// A number that is right or nearly so somewhere.
fn odd_word(random: &mut SmallRng, memory: usize) -> u32 {
    let memory = memory as u32;
    let odd = [0, 1, 2, 7, 8, 12, 48, 64, memory, memory - 1, memory - 48, 1 << 31, u32::MAX, u32::MAX - 63, 1 << 16];
    match random.random_range(0..4) {
        0 => random.random(),
        1 => random.random_range(0..memory),
        _ => odd[random.random_range(0..odd.len())],
    }
}

/// A column as a guest may lay it: as the host does it, for both lay it in the same way. The memory, and where the column stands.
fn laid(array: &ArrayRef, base: u32) -> (Vec<u8>, u32) {
    let column = Column::rows(Arc::clone(array));
    let block = Block::of(array.len(), std::slice::from_ref(&column)).unwrap();
    let mut memory = vec![0xA5; base as usize + block.size() + 64];
    block.write(&mut memory, base).unwrap();
    let at = base as usize + block.batch + 8;
    let at = u32::from_le_bytes(memory[at..at + 4].try_into().unwrap());
    (memory, at)
}

#[test]
fn what_is_written_is_read() {
    rounds(OUTPUTS / 10, |random, _| {
        let of = any_type(random);
        let rows = random.random_range(0..70);
        let array = any_array(random, &of, rows);
        let read = |array: &ArrayRef| {
            let (memory, at) = laid(array, 64);
            Reader { memory: &memory, budget: u64::MAX }.column(at, &of, rows).unwrap()
        };
        let found = read(&array);
        is_valid(&found, &of, rows);
        assert_eq!(&found, &array);
        let views = match of {
            DataType::Utf8 => cast(&array, &DataType::Utf8View).unwrap(),
            DataType::Binary => cast(&array, &DataType::BinaryView).unwrap(),
            _ => return,
        };
        let start = random.random_range(0..=rows);
        let len = random.random_range(0..=rows - start);
        let (memory, at) = laid(&views.slice(start, len), 128);
        let found = Reader { memory: &memory, budget: u64::MAX }.column(at, &of, len).unwrap();
        is_valid(&found, &of, len);
        assert_eq!(&found, &array.slice(start, len));
    });
}

#[test]
fn outputs_that_were_changed_are_refused_or_valid() {
    let (mut refused, mut taken) = (0, 0);
    let many = rounds(OUTPUTS, |random, _| {
        let of = any_type(random);
        let rows = random.random_range(0..40);
        let (mut memory, at) = laid(&any_array(random, &of, rows), 64);
        for _ in 0..random.random_range(1..5) {
            let place = match random.random_bool(0.7) {
                // In a struct of the column itself.
                true => at as usize + 4 * random.random_range(0..12),
                false => random.random_range(0..memory.len() - 4),
            };
            match random.random_range(0..3) {
                0 => memory[place] ^= 1 << random.random_range(0..8),
                1 => memory[place] = random.random(),
                _ => {
                    let word = odd_word(random, memory.len());
                    memory[place..place + 4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        let budget = 4 * memory.len() as u64;
        let mut reader = Reader { memory: &memory, budget };
        match reader.column(at, &of, rows) {
            Ok(found) => {
                is_valid(&found, &of, rows);
                taken += 1;
            }
            Err(why) => {
                assert!(!why.is_empty() && why.len() < 4 << 10, "{why}");
                refused += 1;
            }
        }
        if let Some(mut pieces) = Pieces::new(&of, 2 * rows) {
            let mut reader = Reader { memory: &memory, budget };
            let first = reader.piece(at, &of, rows, &mut pieces);
            if first.is_ok() && reader.piece(at, &of, rows, &mut pieces).is_ok() {
                is_valid(&pieces.finish(&of, 2 * rows).unwrap(), &of, 2 * rows);
            }
        }
        let anywhere = random.random_range(0..memory.len() as u32 + 8);
        let mut reader = Reader { memory: &memory, budget };
        if let Ok(head) = reader.batch(anywhere) {
            let types = [of.clone(), of];
            for (i, found) in reader.columns(&head, &types).into_iter().flatten().enumerate() {
                is_valid(&found, &types[i], head.rows as usize);
            }
        }
    });
    // Neither all nor nothing is taken, or the changes are none.
    assert!(!many || (refused > taken / 4 && taken > refused / 100), "{refused} refused, {taken} taken");
}

/// Guests whose output is their argument: its first 48 bytes are the column, the rest goes to address 1,024. They have the usual time: on a
/// busy machine the process may wait longer than the other tests' guests may run.
fn mirror(of: &str) -> Module {
    let description = format!(r#"{{"name":"mirror","args":["Binary"],"returns":"{of}","nulls":"called"}}"#);
    let text = columnar(
        &description,
        r#"
  (func (export "mirror") (param $batch i32) (param $out i32) (result i32)
    (local $col i32) (local $from i32) (local $len i32)
    (local.set $col (i32.load offset=8 (local.get $batch)))
    (local.set $from (i32.load offset=24 (local.get $col)))
    (local.set $len (i32.load offset=4 (i32.load offset=16 (local.get $col))))
    (memory.copy (local.get $out) (local.get $from) (i32.const 48))
    (memory.copy (i32.const 1024) (i32.add (local.get $from) (i32.const 48)) (i32.sub (local.get $len) (i32.const 48)))
    (i32.const 0))"#,
    );
    Module::load(text.into(), "mirror.wasm", Declared::default(), &Compiler::default()).unwrap()
}

#[test]
fn guests_that_give_anything() {
    const TYPES: [&str; 6] =
        ["Int64", "Utf8", "Boolean", "Decimal128(9, 2)", "List(Utf8)", "Struct(a: Int32, b: Utf8)"];
    let mirrors: Vec<(DataType, Module)> = TYPES.iter().map(|of| (parse_type(of).unwrap(), mirror(of))).collect();
    rounds(GUESTS, |random, _| {
        let (of, module) = &mirrors[random.random_range(0..mirrors.len())];
        let (owner, pool) = owner();
        let mut guest = module.instantiate(&owner).unwrap();
        for _ in 0..4 {
            let rows = random.random_range(1..40);
            let (memory, at) = laid(&any_array(random, of, rows), 1024);
            let mut bytes = memory[at as usize..at as usize + 48].to_vec();
            bytes.extend_from_slice(&memory[1024..]);
            let changed = random.random_range(0..4);
            for _ in 0..changed {
                let place = if random.random_bool(0.7) {
                    random.random_range(0..44)
                } else {
                    random.random_range(0..bytes.len() - 4)
                };
                let word = odd_word(random, 128 << 10);
                bytes[place..place + 4].copy_from_slice(&word.to_le_bytes());
            }
            let argument: ArrayRef = Arc::new(BinaryArray::from_iter_values([bytes]));
            let columns = [Column { array: argument, constant: true }];
            let batch = Batch { rows, columns: &columns };
            match guest.scalar(&module.functions()[0], &batch) {
                Ok(found) => is_valid(&found, of, rows),
                Err(cause) => {
                    assert!(changed > 0, "{cause}");
                    break;
                }
            }
        }
        drop(guest);
        assert_eq!(pool.reserved(), 0);
    });
}

fn owner() -> (Owner, Arc<dyn MemoryPool>) {
    let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(256 << 20));
    (Owner::of_pool(Arc::clone(&pool)), pool)
}

fn corpus() -> Vec<Vec<u8>> {
    let texts = [
        calls::PLAIN.to_owned(), calls::plus_one(), calls::total(), calls::count_up(), pieces::many(), pieces::weigh(),
        r#"(module (table 4 funcref) (memory (export "memory") 1 4) (global $g (mut i32) (i32.const 3))
             (type $t (func (param i32) (result i32))) (elem (i32.const 0) $a $b) (data (i32.const 8) "some data")
             (func $a (type $t) (i32.add (local.get 0) (global.get $g))) (func $b (type $t) (i32.load8_u (local.get 0)))
             (func $start (global.set $g (i32.const 4))) (start $start)
             (func (export "pick") (param i32 i32) (result i32) (call_indirect (type $t) (local.get 0) (local.get 1))))"#
            .to_owned(),
    ];
    let mut corpus: Vec<Vec<u8>> = texts.iter().map(|text| wat::parse_str(text).unwrap()).collect();
    // Those of the languages whose compilers are here, as far as they are small.
    let folder = crate::conformance::folder();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        if entry.path().extension().is_some_and(|e| e == "wasm")
            && bytes.len() < 48 << 10
            && bytes.starts_with(b"\0asm\x01\0\0\0")
        {
            corpus.push(bytes);
        }
    }
    corpus
}

/// Where the sections of a module are, heads included.
fn sections(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let mut reader = wasmparser::BinaryReader::new(&bytes[at + 1..], 0);
        let Ok(len) = reader.read_var_u32() else { break };
        let end = at + 1 + reader.original_position() + len as usize;
        if end > bytes.len() {
            break;
        }
        found.push(at..end);
        at = end;
    }
    found
}

fn changed(random: &mut SmallRng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..4) {
        if bytes.len() < 16 {
            break;
        }
        let at = random.random_range(8..bytes.len());
        match random.random_range(0..9) {
            0..4 => bytes[at] ^= 1 << random.random_range(0..8),
            4 => bytes[at] = random.random(),
            5 => bytes.truncate(at),
            6 => bytes.insert(at, random.random()),
            7 => {
                let len = random.random_range(1..20).min(bytes.len() - at);
                bytes.drain(at..at + len);
            }
            _ => {
                // Two sections change places, one comes twice, one goes, or comes from elsewhere.
                let found = sections(&bytes);
                let Some(one) = found.get(random.random_range(0..found.len().max(1))).cloned() else { continue };
                let other = found[random.random_range(0..found.len())].clone();
                let mut parts: Vec<Vec<u8>> = found.iter().map(|r| bytes[r.clone()].to_vec()).collect();
                let (a, b) =
                    (found.iter().position(|r| *r == one).unwrap(), found.iter().position(|r| *r == other).unwrap());
                match random.random_range(0..4) {
                    0 => parts.swap(a, b),
                    1 => parts.insert(b, parts[a].clone()),
                    2 => drop(parts.remove(a)),
                    _ => {
                        let from = &corpus[random.random_range(0..corpus.len())];
                        let theirs = sections(from);
                        parts[a] = from[theirs[random.random_range(0..theirs.len())].clone()].to_vec();
                    }
                }
                bytes.truncate(8);
                bytes.extend(parts.concat());
            }
        }
    }
    bytes
}

/// Calls what is in a module, as far as it goes.
fn call(random: &mut SmallRng, module: &Module) -> usize {
    let (owner, pool) = owner();
    let mut right = 0;
    for function in module.functions().iter().take(3) {
        right += usize::from(call_one(random, module, function, &owner).is_some());
        assert_eq!(pool.reserved(), 0);
    }
    right
}

fn call_one(random: &mut SmallRng, module: &Module, function: &FunctionSpec, owner: &Owner) -> Option<()> {
    let mut guest = module.instantiate(owner).ok()?;
    let rows = if matches!(function.shape, Shape::Table { .. }) { 1 } else { random.random_range(1..30) };
    let columns: Vec<Column> = function.args.iter().map(|of| Column::rows(any_array(random, of, rows))).collect();
    let batch = Batch { rows, columns: &columns };
    match &function.shape {
        Shape::Scalar { returns } => is_valid(&guest.scalar(function, &batch).ok()?, returns, rows),
        Shape::Aggregate { returns, state } => {
            const GROUPS: usize = 5;
            let handle = guest.begin(function).ok()?;
            let groups: Vec<u32> = (0..rows).map(|_| random.random_range(0..GROUPS as u32)).collect();
            guest.update(function, handle, &batch, &groups, GROUPS).ok()?;
            let states = guest.emit(function, handle, GROUPS, Emit::State).ok()?;
            states.iter().zip(state).for_each(|(found, of)| is_valid(found, of, GROUPS));
            let states: Vec<Column> = states.into_iter().map(Column::rows).collect();
            let groups: Vec<u32> = (0..GROUPS as u32).collect();
            let batch = Batch { rows: GROUPS, columns: &states };
            guest.merge(function, handle, &batch, &groups, GROUPS).ok()?;
            let values = guest.emit(function, handle, GROUPS, Emit::Value).ok()?;
            values.iter().for_each(|found| is_valid(found, returns, GROUPS));
        }
        Shape::Table { columns } => {
            let handle = guest.open(function, &batch).ok()?;
            for _ in 0..3 {
                let Some((rows, found)) = guest.next(function, handle).ok()? else { break };
                found.iter().zip(columns).for_each(|(found, (_, of))| is_valid(found, of, rows));
            }
        }
    }
    Some(())
}

#[test]
fn modules_that_were_changed_do_no_harm() {
    // The engine of all modules lives as long as one does.
    let kept = load(calls::PLAIN).unwrap();
    let corpus = corpus();
    let limits = Limits { memory: 2 << 20, timeout: Duration::from_millis(50), ..Limits::default() };
    let declared = Declared { limits, ..Declared::default() };
    let (mut loaded, mut right) = (0, 0);
    let many = rounds(MODULES, |random, seed| {
        let bytes = changed(random, &corpus);
        let tried = catch_unwind(AssertUnwindSafe(|| {
            if let Ok(module) = Module::load(bytes.clone(), "changed.wasm", declared.clone(), &Compiler::default()) {
                loaded += 1;
                right += call(random, &module);
            }
        }));
        if tried.is_err() {
            let file = std::env::temp_dir().join(format!("sparklet-fuzz-{seed}.wasm"));
            std::fs::write(&file, &bytes).unwrap();
            panic!("`{}`", file.display());
        }
    });
    assert!(!many || (loaded > 0 && right > 0), "{loaded} loaded, {right} calls went well");
    drop(kept);
}

#[test]
fn the_corpus_is_good_as_it_is() {
    let mut random = SmallRng::seed_from_u64(1);
    for bytes in corpus() {
        let limits = Limits { timeout: Duration::from_secs(10), ..Limits::default() };
        let declared = Declared { limits, ..Declared::default() };
        let module = Module::load(bytes, "corpus.wasm", declared, &Compiler::default()).unwrap();
        call(&mut random, &module);
    }
}
