//! User functions beside the same in Rust, in the same DataFusion plan over a million rows in memory, on one core; and what an instance
//! costs. Each pair takes turns, `SPARKLET_BENCH_ROUNDS` times (15), and the fastest of each counts. The results of a pair are compared.
//!
//! Guests of the plain mode are text; the others are C (`udf/guest.c`), built by clang or, where `udf-sdk/conformance/install` has put it,
//! Zig; and one function each in Python and JavaScript, with what `install-all` installs. What cannot be built is not measured, and that is said.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench: it stops at what goes wrong, and prints")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use criterion::Criterion;
use datafusion::common::config::ConfigOptions;
use datafusion::datasource::MemTable;
use datafusion::error::Result;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, ScalarFunctionArgs,
    ScalarUDF, Signature, Volatility, create_udf,
};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use sparklet::core::sandbox::register::{Registered, functions};
use sparklet::core::sandbox::{Compiler, Declared, Module, Scope, compile};

const ROWS: usize = 1_000_000;
const BATCH: usize = 8192;
const GROUPS: usize = 10_000;

const PLAIN: &str = r#"(module (func (export "plain_margin") (param f64 f64) (result f64)
  (f64.add (f64.mul (local.get 0) (local.get 1)) (f64.const 1))))"#;

/// What a pair is held to.
enum Bar {
    /// Nano-seconds a row more than in Rust.
    Added(f64),
    /// Times what Rust takes.
    Times(f64),
    /// It is told and held to nothing: an interpreter's time is its own.
    Told,
}

fn rounds() -> usize {
    std::env::var("SPARKLET_BENCH_ROUNDS").ok().map_or(15, |text| text.parse().unwrap())
}

// ---- the same in Rust ----

fn mix(mut x: u64) -> u64 {
    for _ in 0..64 {
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    }
    x
}

/// FNV-1a.
fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn native(name: &str, of: DataType, work: fn(&ArrayRef) -> Int64Array) -> ScalarUDF {
    let call = move |args: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(args)?;
        Ok(ColumnarValue::Array(Arc::new(work(&arrays[0]))))
    };
    create_udf(name, vec![of], DataType::Int64, Volatility::Immutable, Arc::new(call))
}

fn native_mix(values: &ArrayRef) -> Int64Array {
    Int64Array::from_iter_values(values.as_primitive::<Int64Type>().values().iter().map(|v| mix(*v as u64) as i64))
}

fn native_hash(values: &ArrayRef) -> Int64Array {
    let strings = values.as_string::<i32>();
    Int64Array::from_iter_values((0..strings.len()).map(|i| hash(strings.value(i).as_bytes()) as i64))
}

fn native_hash_of_views(values: &ArrayRef) -> Int64Array {
    let strings = values.as_string_view();
    Int64Array::from_iter_values((0..strings.len()).map(|i| hash(strings.value(i).as_bytes()) as i64))
}

/// A group of an aggregate.
trait Group: std::fmt::Debug + Default + Clone + Eq + std::hash::Hash + Send + 'static {
    const NAME: &'static str;
    fn args() -> DataType;
    fn state_type() -> DataType;
    fn add(groups: &mut [Self], values: &ArrayRef, ids: &[usize]);
    fn merge(groups: &mut [Self], states: &ArrayRef, ids: &[usize]);
    fn state(groups: Vec<Self>) -> ArrayRef;
    fn value(&self) -> i64;
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
struct Total(i64);

impl Group for Total {
    const NAME: &'static str = "native_total";

    fn args() -> DataType {
        DataType::Int64
    }

    fn state_type() -> DataType {
        DataType::Int64
    }

    fn add(groups: &mut [Self], values: &ArrayRef, ids: &[usize]) {
        for (value, id) in values.as_primitive::<Int64Type>().values().iter().zip(ids) {
            groups[*id].0 += value;
        }
    }

    fn merge(groups: &mut [Self], states: &ArrayRef, ids: &[usize]) {
        Self::add(groups, states, ids);
    }

    fn state(groups: Vec<Self>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(groups.iter().map(|g| g.0)))
    }

    fn value(&self) -> i64 {
        self.0
    }
}

/// A sorted array of texts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Hash)]
struct Kinds(Vec<Box<[u8]>>);

impl Kinds {
    fn insert(&mut self, text: &[u8]) {
        if let Err(at) = self.0.binary_search_by(|t| (**t).cmp(text)) {
            self.0.insert(at, text.into());
        }
    }
}

impl Group for Kinds {
    const NAME: &'static str = "native_kinds";

    fn args() -> DataType {
        DataType::Utf8
    }

    fn state_type() -> DataType {
        DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
    }

    fn add(groups: &mut [Self], values: &ArrayRef, ids: &[usize]) {
        let strings = values.as_string::<i32>();
        ids.iter().enumerate().for_each(|(i, id)| groups[*id].insert(strings.value(i).as_bytes()));
    }

    fn merge(groups: &mut [Self], states: &ArrayRef, ids: &[usize]) {
        let lists = states.as_list::<i32>();
        for (i, id) in ids.iter().enumerate() {
            let texts = lists.value(i);
            texts.as_string::<i32>().iter().flatten().for_each(|text| groups[*id].insert(text.as_bytes()));
        }
    }

    fn state(groups: Vec<Self>) -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for group in &groups {
            group.0.iter().for_each(|text| lists.values().append_value(String::from_utf8_lossy(text)));
            lists.append(true);
        }
        Arc::new(lists.finish())
    }

    fn value(&self) -> i64 {
        self.0.len() as i64
    }
}

struct Groups<G>(Vec<G>);

impl<G: Group> Groups<G> {
    fn take(&mut self, emit: EmitTo) -> Vec<G> {
        emit.take_needed(&mut self.0)
    }
}

impl<G: Group> GroupsAccumulator for Groups<G> {
    fn update_batch(&mut self, values: &[ArrayRef], ids: &[usize], _: Option<&BooleanArray>, all: usize) -> Result<()> {
        self.0.resize(all, G::default());
        G::add(&mut self.0, &values[0], ids);
        Ok(())
    }

    fn evaluate(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(self.take(emit).iter().map(G::value))))
    }

    fn state(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![G::state(self.take(emit))])
    }

    fn merge_batch(&mut self, values: &[ArrayRef], ids: &[usize], all: usize) -> Result<()> {
        self.0.resize(all, G::default());
        G::merge(&mut self.0, &values[0], ids);
        Ok(())
    }

    fn convert_to_state(&self, values: &[ArrayRef], _: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let mut each = Self(vec![G::default(); values[0].len()]);
        G::add(&mut each.0, &values[0], &(0..values[0].len()).collect::<Vec<_>>());
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.0.len() * size_of::<G>()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Native<G> {
    signature: Signature,
    group: std::marker::PhantomData<fn() -> G>,
}

impl<G: Group> AggregateUDFImpl for Native<G> {
    fn name(&self) -> &str {
        G::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{} state", args.name), G::state_type(), true))])
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        datafusion::common::not_impl_err!("one group alone")
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Groups::<G>(Vec::new())))
    }
}

fn native_aggregate<G: Group>() -> AggregateUDF {
    let signature = Signature::exact(vec![G::args()], Volatility::Immutable);
    AggregateUDF::new_from_impl(Native::<G> { signature, group: std::marker::PhantomData })
}

// ---- guests ----

/// Where `udf-sdk/conformance/install` puts compilers.
fn tools() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"), PathBuf::from);
    std::env::var_os("SPARKLET_TOOLCHAINS").map_or_else(|| cache.join("sparklet/toolchains"), PathBuf::from)
}

/// The guests in Python and JavaScript, with what they are called; the missing tool where one cannot be built.
fn components(folder: &Path) -> [(&'static str, std::result::Result<Vec<u8>, String>); 2] {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(tools().join("componentize-py/bin/python"));
    python.env("PYTHONPATH", here.join("udf-sdk/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    python.args(["-m", "sparklet_udf.build", "build"]).arg(here.join("benches/udf/guest.py"));
    let qjs = tools().join("componentize-qjs/node_modules/componentize-qjs/bin/componentize-qjs");
    let mut node = Command::new("node");
    node.env("COMPONENTIZE_QJS", &qjs);
    node.arg(here.join("udf-sdk/js/build.js")).arg("build").arg(here.join("benches/udf/guest.js"));
    [("python", python), ("javascript", node)].map(|(name, mut build)| {
        let out = folder.join(format!("{name}.wasm"));
        let made = match build.arg("-o").arg(&out).output() {
            Ok(done) if done.status.success() => Ok(std::fs::read(&out).unwrap()),
            Ok(done) => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
            Err(_) => Err(format!("there is no {}", build.get_program().display())),
        };
        (name, made)
    })
}

/// The guest in C, as `udf new --lang c --sdk` builds one; the missing tool where it cannot be built.
fn built(folder: &Path) -> std::result::Result<Vec<u8>, String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (source, sdk, out) = (here.join("benches/udf/guest.c"), here.join("udf-sdk/c"), folder.join("guest.wasm"));
    let mut clang = Command::new("clang");
    clang.args(["--target=wasm32", "-ffreestanding"]);
    let mut zig = Command::new(tools().join("ziglang/bin/python"));
    zig.args(["-m", "ziglang", "cc", "-target", "wasm32-freestanding"]);
    let mut said = Vec::new();
    for mut compiler in [clang, zig] {
        compiler.args(["-O3", "-nostdlib", "-Wl,--no-entry"]).arg("-I").arg(&sdk).arg(&source).arg("-o").arg(&out);
        match compiler.output() {
            Ok(done) if done.status.success() => return Ok(std::fs::read(&out).unwrap()),
            Ok(done) => said.push(String::from_utf8_lossy(&done.stderr).into_owned()),
            Err(_) => said.push(format!("there is no {}", compiler.get_program().display())),
        }
    }
    Err(said.join("; "))
}

fn load(bytes: Vec<u8>, name: &str) -> Arc<Module> {
    let module = Arc::new(Module::load(bytes, name, Declared::default(), &Compiler::default()).unwrap());
    module.compile().unwrap();
    module
}

/// Registers the functions of `module`, in the place of those of the same names.
fn register(context: &SessionContext, module: &Arc<Module>) {
    let scope = Scope::of_query(Arc::new(UnboundedMemoryPool::default()));
    for function in functions(module, &scope) {
        match function {
            Registered::Scalar(f) => context.register_udf((*f).clone()),
            Registered::Aggregate(f) => context.register_udaf((*f).clone()),
            Registered::Table(..) => {}
        }
    }
}

// ---- measuring ----

fn table() -> MemTable {
    let fields = [("a", DataType::Float64), ("b", DataType::Float64), ("i", DataType::Int64), ("g", DataType::Int64)];
    let strings = [("s", DataType::Utf8), ("v", DataType::Utf8View), ("k", DataType::Utf8)];
    let fields: Vec<Field> = fields.into_iter().chain(strings).map(|(name, of)| Field::new(name, of, false)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut batches = Vec::new();
    for start in (0..ROWS).step_by(BATCH) {
        let rows = start..ROWS.min(start + BATCH);
        // Spread, and the same in each run.
        let number = |i: usize| (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let strings: ArrayRef = Arc::new(StringArray::from_iter_values(
            rows.clone().map(|i| format!("customer {} of {}", number(i) % 50_000, ["north", "the south"][i % 2])),
        ));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from_iter_values(rows.clone().map(|i| number(i) as f64 / 1e9))),
            Arc::new(Float64Array::from_iter_values(rows.clone().map(|i| i as f64 / 3.0))),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|i| number(i) as i64))),
            Arc::new(Int64Array::from_iter_values(rows.clone().map(|i| (number(i) % GROUPS as u64) as i64))),
            Arc::clone(&strings),
            cast(&strings, &DataType::Utf8View).unwrap(),
            Arc::new(StringArray::from_iter_values(rows.map(|i| format!("kind {}", number(i) % 37)))),
        ];
        batches.push(RecordBatch::try_new(Arc::clone(&schema), columns).unwrap());
    }
    MemTable::try_new(schema, vec![batches]).unwrap()
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    context: SessionContext,
    missed: Vec<String>,
}

impl Bench {
    fn plan(&self, sql: &str) -> Arc<dyn ExecutionPlan> {
        self.runtime.block_on(async { self.context.sql(sql).await.unwrap().create_physical_plan().await.unwrap() })
    }

    /// Runs `plan`; its rows are dropped as they come.
    fn time(&self, plan: &Arc<dyn ExecutionPlan>) -> Duration {
        self.runtime.block_on(async {
            let start = Instant::now();
            let mut stream = execute_stream(Arc::clone(plan), self.context.task_ctx()).unwrap();
            while let Some(batch) = stream.next().await {
                black_box(batch.unwrap());
            }
            start.elapsed()
        })
    }

    fn rows(&self, sql: &str) -> RecordBatch {
        self.runtime.block_on(async {
            let batches = self.context.sql(sql).await.unwrap().collect().await.unwrap();
            concat_batches(&batches[0].schema(), &batches).unwrap()
        })
    }

    /// Measures `guest` beside `native`, two expressions; grouped by `g` if they are aggregates.
    fn pair(&mut self, name: &str, native: &str, guest: &str, grouped: bool, bar: &Bar) {
        let sql = |call: &str| match grouped {
            true => format!("SELECT g, {call} AS x FROM t GROUP BY g"),
            false => format!("SELECT {call} AS x FROM t"),
        };
        let order = if grouped { " ORDER BY g" } else { "" };
        let (same, other) = (self.rows(&(sql(native) + order)), self.rows(&(sql(guest) + order)));
        assert_eq!(same.columns(), other.columns(), "{name}: results differ");
        let (native, guest) = (self.plan(&sql(native)), self.plan(&sql(guest)));
        let mut best = [Duration::MAX; 2];
        for _ in 0..rounds() {
            for (best, plan) in best.iter_mut().zip([&native, &guest]) {
                *best = self.time(plan).min(*best);
            }
        }
        let [native, guest] = best.map(|best| best.as_nanos() as f64 / ROWS as f64);
        let (bar, met) = match bar {
            Bar::Added(bar) => (format!("+{bar} ns"), guest - native <= *bar),
            Bar::Times(bar) => (format!("{bar} x"), guest / native <= *bar),
            Bar::Told => (String::new(), true),
        };
        println!(
            "{name:32} {native:8.2} {guest:8.2} {:8.2} {:6.2} {:8.1}  {bar:8} {}",
            guest - native,
            guest / native,
            1e3 / guest,
            match (bar.is_empty(), met) {
                (true, _) => "",
                (_, true) => "met",
                (_, false) => "MISSED",
            }
        );
        if !met {
            self.missed.push(name.to_owned());
        }
    }
}

/// What an instance costs: a call on one row by a new one, and by one that is there.
fn instances(criterion: &mut Criterion, module: &Arc<Module>, name: &str) {
    let pool = || Arc::new(UnboundedMemoryPool::default());
    let mut took = Vec::new();
    for (how, scope) in [("new", Scope::of_session(pool())), ("kept", Scope::of_query(pool()))] {
        let functions = functions(module, &scope);
        let Some(Registered::Scalar(function)) = functions.iter().find(|f| f.name().ends_with("margin")) else {
            return;
        };
        let one: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        let field = Arc::new(Field::new("x", DataType::Float64, true));
        let args = ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(Arc::clone(&one)), ColumnarValue::Array(one)],
            arg_fields: vec![Arc::clone(&field), Arc::clone(&field)],
            number_rows: 1,
            return_field: field,
            config_options: Arc::new(ConfigOptions::default()),
        };
        let mut best = Duration::MAX;
        criterion.bench_function(&format!("{name}_call_by_a_{how}_instance"), |b| {
            b.iter_custom(|iterations| {
                let one = |_| {
                    let start = Instant::now();
                    black_box(function.invoke_with_args(args.clone()).unwrap());
                    let took = start.elapsed();
                    best = best.min(took);
                    took
                };
                (0..iterations).map(one).sum()
            });
        });
        took.push(best);
    }
    if let [new, kept] = took.as_slice()
        && *new < Duration::MAX
    {
        let cost = new.saturating_sub(*kept).as_nanos() as f64 / 1e3;
        println!(
            "{name}: an instance takes {cost:.1} us (bar: 100 us, {})",
            if cost <= 100.0 { "met" } else { "MISSED" }
        );
    }
}

fn main() -> ExitCode {
    // Large modules are compiled by a process of this program.
    if let Some(code) = compile::serve(std::env::args_os()) {
        return code;
    }
    compile::use_this_program();
    let mut criterion = Criterion::default().sample_size(20).configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = SessionConfig::new().with_target_partitions(1).with_batch_size(BATCH);
    let context = SessionContext::new_with_config(config);
    context.register_table("t", Arc::new(table())).unwrap();
    context.register_udf(native("native_mix", DataType::Int64, native_mix));
    context.register_udf(native("native_hash", DataType::Utf8, native_hash));
    context.register_udf(native("native_hash_of_views", DataType::Utf8View, native_hash_of_views));
    context.register_udaf(native_aggregate::<Total>());
    context.register_udaf(native_aggregate::<Kinds>());
    let folder = tempfile::tempdir().unwrap();
    let plain = load(PLAIN.into(), "plain.wat");
    register(&context, &plain);
    let mut bench = Bench { runtime, context, missed: Vec::new() };
    println!("{:32} {:>8} {:>8} {:>8} {:>6} {:>8}  bar", "ns a row", "Rust", "guest", "added", "times", "M rows/s");
    bench.pair("plain a*b+1", "a * b + 1.0", "plain_margin(a, b)", false, &Bar::Added(4.0));
    let mut columnar = None;
    match built(folder.path()) {
        Ok(bytes) => {
            let module = load(bytes, "guest.c");
            register(&bench.context, &module);
            columnar = Some(module);
            bench.pair("columnar a*b+1", "a * b + 1.0", "margin(a, b)", false, &Bar::Added(1.5));
            bench.pair("columnar 64-step mix", "native_mix(i)", "mix(i)", false, &Bar::Times(1.3));
            bench.pair("columnar hash of strings", "native_hash(s)", "hash(s)", false, &Bar::Times(1.3));
            bench.pair("columnar hash of views", "native_hash_of_views(v)", "hash(v)", false, &Bar::Times(1.3));
            bench.pair("aggregate: sum of integers", "native_total(i)", "total(i)", true, &Bar::Times(2.0));
            bench.pair("aggregate: set of strings", "native_kinds(k)", "kinds(k)", true, &Bar::Times(2.0));
        }
        Err(why) => println!("!! NOT MEASURED: functions of the columnar mode, they need clang and lld, or Zig: {why}"),
    }
    for (name, made) in components(folder.path()) {
        match made {
            Ok(bytes) => {
                register(&bench.context, &load(bytes, name));
                bench.pair(&format!("{name} a*b+1"), "a * b + 1.0", &format!("{name}_margin(a, b)"), false, &Bar::Told);
            }
            Err(why) => println!("!! NOT MEASURED: {name}, it needs udf-sdk/conformance/install-all: {why}"),
        }
    }
    instances(&mut criterion, &plain, "plain");
    if let Some(module) = &columnar {
        instances(&mut criterion, module, "columnar");
    }
    criterion.final_summary();
    if !bench.missed.is_empty() {
        println!("missed: {}", bench.missed.join(", "));
    }
    ExitCode::SUCCESS
}
