//! Modules in the text format, called through DataFusion.

mod calls;
mod fuzz;
mod hostile;
mod pieces;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::register::{Registered, enter, functions};
use crate::{Compiler, Declared, Error, Limits, Module, Scope};

/// A context with the functions of some modules, and the pool that they are charged to.
pub(crate) struct Setting {
    context: SessionContext,
    pub(crate) pool: Arc<dyn MemoryPool>,
}

impl Setting {
    pub(crate) fn new(modules: impl IntoIterator<Item = Module>) -> Self {
        Self::with_partitions(2, modules)
    }

    /// With 1 no task is left when an error is told.
    pub(crate) fn with_partitions(partitions: usize, modules: impl IntoIterator<Item = Module>) -> Self {
        Self::with_batches(partitions, 100, modules)
    }

    /// With batches of `rows` rows.
    pub(crate) fn with_batches(partitions: usize, rows: usize, modules: impl IntoIterator<Item = Module>) -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let config = SessionConfig::new().with_target_partitions(partitions).with_batch_size(rows);
        let context = SessionContext::new_with_config(config);
        let scope = Scope::of_session(Arc::clone(&pool));
        for module in modules {
            for function in functions(&Arc::new(module), &scope) {
                match function {
                    Registered::Scalar(f) => context.register_udf((*f).clone()),
                    Registered::Aggregate(f) => context.register_udaf((*f).clone()),
                    Registered::Table(name, f) => context.register_udtf(&name, f),
                }
            }
        }
        Self { context, pool }
    }

    pub(crate) async fn batches(&self, sql: &str) -> (datafusion::error::Result<Vec<RecordBatch>>, Arc<Scope>) {
        let scope = Scope::of_query(Arc::clone(&self.pool));
        let done = self.batches_in(sql, &scope).await;
        scope.release();
        (done, scope)
    }

    pub(crate) async fn batches_in(
        &self,
        sql: &str,
        scope: &Arc<Scope>,
    ) -> datafusion::error::Result<Vec<RecordBatch>> {
        let plan = self.context.state().create_logical_plan(sql).await?;
        let plan = enter(plan, scope)?;
        self.context.execute_logical_plan(plan).await?.collect().await
    }

    /// The rows, as a table.
    pub(crate) async fn rows(&self, sql: &str) -> String {
        pretty_format_batches(&self.batches(sql).await.0.unwrap()).unwrap().to_string()
    }

    /// The first value.
    pub(crate) async fn value(&self, sql: &str) -> String {
        let batches = self.batches(sql).await.0.unwrap();
        let batch = batches.iter().find(|b| b.num_rows() > 0).unwrap();
        arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
    }

    /// The sandbox's error.
    pub(crate) async fn error(&self, sql: &str) -> Error {
        sandbox_error(&self.batches(sql).await.0.unwrap_err())
    }
}

/// The sandbox's error in `error`.
pub(crate) fn sandbox_error(error: &datafusion::error::DataFusionError) -> Error {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return found.clone();
        }
        next = match error.downcast_ref::<datafusion::error::DataFusionError>() {
            Some(datafusion::error::DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(datafusion::error::DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    panic!("not an error of the sandbox: {error}")
}

pub(crate) fn limits() -> Limits {
    Limits { timeout: std::time::Duration::from_millis(300), ..Limits::default() }
}

pub(crate) fn load(text: &str) -> Result<Module, Error> {
    let declared = Declared { limits: limits(), ..Declared::default() };
    Module::load(text.as_bytes().to_vec(), "test.wasm", declared, &Compiler::default())
}

pub(crate) fn module(text: &str) -> Module {
    load(text).unwrap()
}

/// A module of the columnar mode: the description, and what else is in it. Has `$alloc`, `$col` (out, type, place, bytes).
pub(crate) fn columnar(description: &str, rest: &str) -> String {
    let description = description.replace('"', "\\\"");
    format!(
        r#"(module
  (@custom "sparklet.udf" "{description}")
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 65536))
  (func (export "sparklet_abi") (result i32) i32.const 65536)
  (func $alloc (export "sparklet_alloc") (param $size i32) (param $align i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 63)) (i32.const -64)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (block $room
      (br_if $room (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
      (if (i32.eq (i32.const -1) (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $size) (i32.const 16)))))
        (then (return (i32.const 0)))))
    (local.get $at))
  (func (export "sparklet_free") (param i32 i32 i32))
  (func (export "sparklet_error") (result i64) i64.const 0)
  (func $col (param $out i32) (param $type i32) (param $at i32) (param $bytes i32)
    (i32.store (local.get $out) (local.get $type))
    (i32.store offset=4 (local.get $out) (i32.const 0))
    (i32.store offset=8 (local.get $out) (i32.const 0))
    (i32.store offset=12 (local.get $out) (i32.const 0))
    (i32.store offset=16 (local.get $out) (local.get $at))
    (i32.store offset=20 (local.get $out) (local.get $bytes)))
  {rest})"#
    )
}
