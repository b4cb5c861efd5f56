//! Pasts that are made up: what a session makes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::util::pretty::pretty_format_batches;
use chrono::Utc;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use sparklet_history::{
    ChoiceReason, EngineRecord, FallBackReason, Fingerprint, GuardPhase, MachineRecord, Measured, Outcome, PlanChange,
    PlanRole, RECORD_VERSION, Recall, Recalled, RunId, RunRecord, Scope, StepRecord,
};

use super::early;
use super::past::engine;
use crate::source::Format;
use crate::{Session, SessionConfig, conclude};

const SCOPE: Scope<'_> = Scope { pipeline: "sql", environment: "default" };

/// A filter of which nothing is known keeps 120 of 1,200,000 rows; DataFusion expects a fifth of them, and builds the other side.
const QUERY: &str = "SELECT count(*) AS n, sum(s.w) AS w FROM s JOIN b ON s.k = b.k WHERE b.v % 10000 = 3";

async fn table(session: &Session, folder: &Path, name: &str, rows: &str) {
    let path = folder.join(format!("{name}.parquet"));
    if !path.exists() {
        let copy = format!("COPY ({rows}) TO '{}'", path.display());
        session.sql(&copy, &BTreeMap::new()).await.unwrap().collect().await.unwrap();
    }
    session.register_source(name, &crate::tests::source(&path, Format::Parquet)).await.unwrap();
}

/// One run of [`QUERY`] after `runs`: its rows, and its record.
async fn run(folder: &Path, runs: &[RunRecord]) -> (String, RunRecord) {
    run_within(folder, runs, None).await
}

/// The same; a trial has `deadline`.
async fn run_within(folder: &Path, runs: &[RunRecord], deadline: Option<Duration>) -> (String, RunRecord) {
    run_query(folder, QUERY, runs, deadline, false).await
}

/// The same of `sql`; the past is read `ahead`, or when it is asked for.
async fn run_query(
    folder: &Path,
    sql: &str,
    runs: &[RunRecord],
    deadline: Option<Duration>,
    ahead: bool,
) -> (String, RunRecord) {
    let newest_first = runs.iter().rev().cloned().collect();
    let config = SessionConfig {
        memory_limit: Some(256 << 20),
        slots: Some(2),
        spill_dir: folder.join("spill"),
        past: Some(Arc::new(Recalled::of(SCOPE, newest_first))),
        ..SessionConfig::default()
    };
    let session = Session::new(config).unwrap();
    table(&session, folder, "b", "SELECT value % 500000 AS k, value AS v FROM range(0, 1200000)").await;
    table(&session, folder, "s", "SELECT value AS k, value * 2 AS w, value + 7 AS x FROM range(0, 220000)").await;
    if ahead {
        session.recalled();
    }
    let frame = session.sql(sql, &BTreeMap::new()).await.unwrap().of_step("step");
    let mut prepared = frame.prepare().await.unwrap();
    if let Some(deadline) = deadline {
        prepared.set_deadline(deadline);
    }
    let rows = pretty_format_batches(&prepared.collect().await.unwrap()).unwrap().to_string();
    let plan = prepared.observe();
    let mut choice = prepared.choice_after(&plan);
    conclude(&mut choice, Outcome::Succeeded, 400_000, 200_000);
    let step = StepRecord {
        wall_us: 200_000,
        cpu_us: 400_000,
        execution_us: 200_000,
        rows: 2,
        plan: Some(plan),
        decisions: prepared.decisions().to_vec(),
        choice: Some(Box::new(choice)),
        ..StepRecord::unmeasured("step", Outcome::Succeeded)
    };
    let record = RunRecord {
        version: RECORD_VERSION,
        id: RunId::random(),
        pipeline: SCOPE.pipeline.to_owned(),
        environment: SCOPE.environment.to_owned(),
        started_at: Utc::now(),
        outcome: Outcome::Succeeded,
        wall_us: 200_000,
        cpu_us: 400_000,
        peak_memory_bytes: 0,
        peak_rss_bytes: None,
        engine: engine(),
        machine: MachineRecord { cores: 2, memory_bytes: 0, platform: String::new() },
        settings: BTreeMap::new(),
        params: BTreeMap::new(),
        slots: 2,
        memory_limit_bytes: 256 << 20,
        code_version: Fingerprint::of(QUERY),
        sources: session.source_records(),
        steps: vec![step],
        notes: Vec::new(),
        error: None,
    };
    (rows, record)
}

fn step(record: &mut RunRecord) -> &mut StepRecord {
    record.steps.first_mut().unwrap()
}

/// A first run whose default is said to have taken `cpu_us` of CPU time and `wall_us`, and to have left a large budget.
async fn first(folder: &Path, cpu_us: u64, wall_us: u64) -> (String, RunRecord) {
    let (rows, record) = run(folder, &[]).await;
    (rows, measured(record, cpu_us, wall_us))
}

fn measured(mut record: RunRecord, cpu_us: u64, wall_us: u64) -> RunRecord {
    let choice = step(&mut record).choice.as_mut().unwrap();
    assert_eq!(choice.role, PlanRole::Default);
    let measured = choice.guard.default.as_mut().unwrap();
    assert!(measured.work.is_some_and(|us| us > 0), "{measured:?}");
    *measured = Measured { cpu_us, wall_us, ..*measured };
    choice.guard.spent_us = 1 << 40;
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_query_that_proved_itself_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let from = "FROM s JOIN b ON s.k = b.k";
    let sql = |least: u32| {
        let from = format!("{from} WHERE b.v > {least}");
        format!(
            "SELECT s.w % 7 AS a, b.v % 3 AS c, sum(b.v) AS n {from} GROUP BY s.w % 7, b.v % 3 \
             UNION ALL SELECT s.w % 7, NULL, sum(b.v) {from} GROUP BY s.w % 7 \
             UNION ALL SELECT NULL, NULL, sum(b.v) {from} ORDER BY a NULLS LAST, c NULLS LAST"
        )
    };
    let (expected, first) = run_query(folder.path(), &sql(3), &[], None, false).await;
    let mut runs = vec![measured(first, 60_000_000, 60_000_000)];
    // Once on trial; then as long as it is not due for a comparison, with other literals too.
    let later = [(3, PlanRole::Trial, false), (3, PlanRole::Adopted, false), (2, PlanRole::Adopted, true)];
    for (least, role, ahead) in later {
        let (rows, mut record) = run_query(folder.path(), &sql(least), &runs, None, ahead).await;
        if least == 3 {
            assert_eq!(rows, expected);
        } else {
            let (plain, _) = run_query(folder.path(), &sql(least), &[], None, false).await;
            assert_eq!(rows, plain);
        }
        let choice = step(&mut record).choice.clone().unwrap();
        assert_eq!(choice.role, role, "{choice:#?}");
        let rewritten =
            |change: &PlanChange| matches!(change, PlanChange::Rewrite { name, .. } if name == "groups of finer ones");
        assert!(choice.chosen.changes.iter().any(rewritten), "{choice:#?}");
        let before = step(runs.last_mut().unwrap()).choice.clone().unwrap();
        if role == PlanRole::Adopted {
            assert_eq!((choice.chosen.key, choice.looked_up), (before.chosen.key, before.looked_up + 1));
            assert_eq!(choice.rows_read, before.rows_read);
        }
        runs.push(record);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_that_is_not_done_in_time_is_given_up_and_not_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, past) = first(folder.path(), 400_000, 1).await;
    let (rows, mut second) = run_within(folder.path(), std::slice::from_ref(&past), Some(Duration::ZERO)).await;
    assert_eq!(rows, expected);
    let choice = step(&mut second).choice.clone().unwrap();
    assert_eq!(choice.role, PlanRole::Trial, "{choice:#?}");
    let fell = choice.fell_back.expect("the default took over");
    assert!(matches!(fell.because, FallBackReason::Deadline { .. }), "{fell:?}");
    assert!(matches!(choice.guard.phase, GuardPhase::RolledBack { .. }), "{:?}", choice.guard);
    let (rows, mut third) = run(folder.path(), &[past, second]).await;
    assert_eq!(rows, expected);
    let choice = step(&mut third).choice.clone().unwrap();
    assert_eq!(choice.role, PlanRole::Default);
    assert!(matches!(choice.because, ChoiceReason::RolledBack { .. } | ChoiceReason::NoCertainGain), "{choice:#?}");
}

/// Queries of many shapes over the tables `b` and `s`.
const SHAPES: [&str; 5] = [
    QUERY,
    "SELECT s.k, sum(b.v) AS v FROM b JOIN s ON s.k = b.k LEFT JOIN s t ON t.x = b.v GROUP BY s.k ORDER BY v DESC LIMIT 5",
    "SELECT count(*) FROM b WHERE b.v > (SELECT avg(w) FROM s WHERE x < 500) AND b.k IN (SELECT k FROM s WHERE w > 7)",
    "SELECT k, v, rank() OVER (PARTITION BY k % 3 ORDER BY v) AS r FROM b WHERE NOT EXISTS (SELECT 1 FROM s WHERE s.k = b.v)",
    "SELECT k FROM b WHERE v < 9 UNION ALL SELECT DISTINCT s.k FROM s JOIN b ON b.v = s.x",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_that_is_finished_is_the_plan_of_all_rules() {
    let folder = tempfile::tempdir().unwrap();
    let spill_dir = folder.path().join("spill");
    let session = Session::new(SessionConfig { slots: Some(2), spill_dir, ..SessionConfig::default() }).unwrap();
    table(&session, folder.path(), "b", "SELECT value % 500 AS k, value AS v FROM range(0, 1200)").await;
    table(&session, folder.path(), "s", "SELECT value AS k, value * 2 AS w, value + 7 AS x FROM range(0, 2200)").await;
    let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(true).to_string();
    let state = session.context().state();
    for query in SHAPES {
        let frame = session.sql(query, &BTreeMap::new()).await.unwrap();
        let logical = state.optimize(frame.logical_plan()).unwrap();
        let whole = state.query_planner().create_physical_plan(&logical, &state).await.unwrap();
        let (draft, planned) = early::planned(&state, &logical).await.unwrap();
        let of_its_own = early::planned_early(&state, &logical).await.unwrap();
        let draft = draft.unwrap();
        assert_eq!(shown(&of_its_own), shown(&draft));
        assert_eq!(shown(&planned), shown(&whole));
        assert_eq!(shown(&early::finished(&state, draft).unwrap()), shown(&whole));
        assert_eq!(shown(&early::finished(&state, of_its_own).unwrap()), shown(&whole));
    }
    let frame = session.sql(&format!("EXPLAIN {QUERY}"), &BTreeMap::new()).await.unwrap();
    assert!(early::planned(&state, frame.logical_plan()).await.unwrap().0.is_none());
}

/// A past that counts how often it is read.
#[derive(Debug, Default)]
struct Counted(AtomicUsize);

impl Recall for Counted {
    fn recall(&self, _: &str) -> Recalled {
        self.0.fetch_add(1, Ordering::SeqCst);
        Recalled::of(SCOPE, Vec::new())
    }
}

#[test]
fn the_past_is_read_once_ahead_or_not_and_again_when_it_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let past = Arc::new(Counted::default());
    let config = SessionConfig {
        spill_dir: folder.path().to_owned(),
        past: Some(Arc::clone(&past) as _),
        ..SessionConfig::default()
    };
    let session = Session::new(config).unwrap();
    session.recall_ahead();
    session.recall_ahead();
    session.recalled();
    session.recall_ahead();
    session.recalled();
    assert_eq!(past.0.load(Ordering::SeqCst), 1);
    session.forget_past();
    session.recalled();
    assert_eq!(past.0.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_engine_is_watched_before_it_chooses() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, mut past) = first(folder.path(), 400_000, 200_000).await;
    past.engine = EngineRecord { sparklet: "0.0.1".to_owned(), datafusion: "54.0.0".to_owned() };
    let (rows, mut second) = run(folder.path(), std::slice::from_ref(&past)).await;
    assert_eq!(rows, expected);
    let choice = step(&mut second).choice.clone().unwrap();
    assert_eq!(choice.role, PlanRole::Default);
    assert!(matches!(choice.because, ChoiceReason::EngineChanged { .. }), "{:?}", choice.because);
    let (rows, mut third) = run(folder.path(), &[past, second]).await;
    assert_eq!(rows, expected);
    let because = step(&mut third).choice.clone().unwrap().because;
    assert!(!matches!(because, ChoiceReason::EngineChanged { .. }), "{because:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_that_lie_change_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (expected, past) = first(folder.path(), 400_000, 200_000).await;
    let lies: [fn(u64) -> u64; 5] =
        [|_| 0, |_| u64::MAX, |rows| rows.saturating_mul(1_000_000), |rows| rows / 1000, |_| 1];
    for (at, lie) in lies.into_iter().enumerate() {
        let mut past = past.clone();
        for node in &mut step(&mut past).plan.as_mut().unwrap().nodes {
            node.rows = node.rows.map(lie);
            node.elapsed_us = lie(node.elapsed_us);
        }
        let step = step(&mut past);
        step.cpu_us = lie(step.cpu_us);
        for source in &mut past.sources {
            source.rows = source.rows.map(lie);
            source.bytes = lie(source.bytes);
        }
        let (rows, _) = run(folder.path(), &[past]).await;
        assert_eq!(rows, expected, "lie {at}");
    }
    // A choice of another query under the same name, and a guard that knows a plan that there is not.
    let mut past = past;
    let choice = step(&mut past).choice.as_mut().unwrap();
    choice.query = Some(Fingerprint([9; 16]));
    choice.guard.phase = GuardPhase::Adopted { plan: Fingerprint([7; 16]), runs: 5 };
    let (rows, _) = run(folder.path(), &[past]).await;
    assert_eq!(rows, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_times_the_work_is_no_regression() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut past) = first(folder.path(), 100_000, 50_000).await;
    // The same ran when there was a third to do.
    let choice = step(&mut past).choice.as_mut().unwrap();
    let measured = choice.guard.default.as_mut().unwrap();
    measured.work = measured.work.map(|us| us / 3);
    // A run is said to take 400 ms; the default took 100 for a third of the work.
    let (_, mut second) = run_within(folder.path(), &[past], Some(Duration::from_secs(600))).await;
    let choice = step(&mut second).choice.clone().unwrap();
    assert_eq!(choice.role, PlanRole::Trial, "{choice:#?}");
    let reference = choice.reference_us.unwrap();
    assert!((250_000..350_000).contains(&reference), "{reference}");
}
