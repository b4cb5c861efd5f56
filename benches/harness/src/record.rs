//! The record of one run of a workload: a pipeline whose steps are the queries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use sparklet_core::{Observed, PreparedQuery, Session, conclude};
use sparklet_history::{
    CanonicalTexts, EngineRecord, Fingerprint, History, HistoryOptions, MachineRecord, Outcome, RECORD_VERSION, RunId,
    RunRecord, SourceRecord, StepRecord,
};

use crate::engine::{Sparklet, learn};
use crate::error::{Failure, Result};
use crate::measure::Cost;
use crate::runs::Plan;

/// Runs all queries of `plan` over `tables` so many times, each remembered in `work`: the past, and a session for the next run.
pub(crate) async fn learned(
    plan: &Plan,
    tables: &[(String, PathBuf)],
    work: &Path,
    runs: u32,
) -> Result<(History, Sparklet)> {
    let state = History::new(work.join("state"), HistoryOptions::default());
    let session = async || {
        let mut sparklet = Sparklet::new(&plan.settings, plan.workload.name(), Some(&state))?;
        sparklet.register(tables).await?;
        Ok::<_, Failure>(sparklet)
    };
    for _ in 0..runs {
        let sparklet = session().await?;
        let mut trace = Trace::default();
        for query in &plan.queries {
            let (answer, prepared) = sparklet.run(&query.name(), &query.sql).await.map_err(|e| e.at(query.name()))?;
            let rows = answer.batches.iter().map(|b| b.num_rows() as u64).sum();
            trace.add(&query.name(), &query.sql, answer.cost, rows, &prepared, prepared.observe_with_texts());
        }
        let (record, texts) = trace.finish(sparklet.session(), &sparklet.sources);
        state.remember(&record, &texts);
        learn(&state).map_err(|e| Failure::new(e.to_string()))?;
    }
    let sparklet = session().await?;
    Ok((state, sparklet))
}

/// What one run of the workload has left behind so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    started_at: Option<DateTime<Utc>>,
    steps: Vec<StepRecord>,
    texts: CanonicalTexts,
    cost: Cost,
    sql: String,
}

impl Trace {
    /// Adds a finished query: its name and text, what it took, its rows, its plan with the canonical texts of that.
    pub(crate) fn add(
        &mut self,
        query: &str,
        sql: &str,
        cost: Cost,
        rows: u64,
        prepared: &PreparedQuery,
        observed: Observed,
    ) {
        self.started_at.get_or_insert_with(Utc::now);
        self.steps.push(StepRecord {
            started_us: self.cost.wall_us,
            wall_us: cost.wall_us,
            cpu_us: cost.cpu_us,
            planning_us: cost.planning_us,
            execution_us: cost.wall_us.saturating_sub(cost.planning_us),
            rows,
            peak_memory_bytes: cost.peak_memory_bytes,
            decisions: prepared.decisions().to_vec(),
            choice: Some({
                let mut choice = Box::new(prepared.choice_after(&observed.plan));
                conclude(&mut choice, Outcome::Succeeded, cost.cpu_us, cost.wall_us.saturating_sub(cost.planning_us));
                choice
            }),
            plan: Some(observed.plan),
            adaptations: prepared.adaptations(),
            keys: prepared.keys(),
            ..StepRecord::unmeasured(query, Outcome::Succeeded)
        });
        self.cost += cost;
        self.texts.extend(observed.texts);
        self.sql.push_str(sql);
        self.sql.push('\n');
    }

    /// The record of the run, and its texts.
    pub(crate) fn finish(self, session: &Session, sources: &[SourceRecord]) -> (RunRecord, CanonicalTexts) {
        let record = RunRecord {
            version: RECORD_VERSION,
            id: RunId::random(),
            pipeline: session.pipeline().to_owned(),
            environment: "default".to_owned(),
            started_at: self.started_at.unwrap_or_else(Utc::now),
            outcome: Outcome::Succeeded,
            wall_us: self.cost.wall_us,
            cpu_us: self.cost.cpu_us,
            peak_memory_bytes: self.cost.peak_memory_bytes,
            peak_rss_bytes: Some(self.cost.peak_rss_bytes).filter(|&bytes| bytes > 0),
            engine: EngineRecord {
                sparklet: env!("CARGO_PKG_VERSION").to_owned(),
                datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            },
            machine: machine(),
            settings: BTreeMap::new(),
            params: BTreeMap::new(),
            slots: session.slots() as u32,
            memory_limit_bytes: session.memory().limit,
            code_version: Fingerprint::of(&self.sql),
            sources: sources.to_vec(),
            steps: self.steps,
            notes: Vec::new(),
            error: None,
        };
        (record, self.texts)
    }
}

/// This machine.
pub(crate) fn machine() -> MachineRecord {
    MachineRecord {
        cores: std::thread::available_parallelism().map_or(1, usize::from) as u32,
        memory_bytes: sparklet_core::memory::usable_memory(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
    }
}
