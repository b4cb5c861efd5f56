//! What earlier runs have found of the keys of sources: which are heavy, and where none is.

use std::collections::HashMap;

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan};
use sparklet_history::{KeyRecord, Recalled, RunId, RunRecord, SourceRecord};
use sparklet_optimizer::{Learning, SourceId, SourceNames};

use crate::exchange::KeyFacts;
use crate::planning::growth;
use crate::session::Session;

/// Expected time ÷ time without a heavy key from which inputs run first because of it: what keeping both inputs of a join costs, measured.
const GAIN: f64 = 1.5;

/// The same below which there is nothing to look for; what rises above costs less than it would to find out.
const NO_GAIN: f64 = 1.1;

/// Fewest rows that are worth cutting: two tasks.
const MIN_ROWS: f64 = (256 << 10) as f64;

/// Factor by which a source may have grown or shrunk since it was found to have no heavy key.
const MOST_GROWTH: f64 = 2.0;

/// Columns of a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SourceKey {
    /// See [`SourceId`].
    source: String,
    /// In order of their names.
    columns: Vec<String>,
}

/// What a run found of a key.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    run: RunId,
    table: String,
    /// Of the heaviest key.
    share: f64,
    /// Rows to be expected now.
    rows: f64,
    /// Rows of the source now ÷ then.
    growth: f64,
}

/// What earlier runs have found of keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct KnownKeys {
    of: HashMap<SourceKey, Known>,
}

/// What earlier runs say of an operator over keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lesson {
    Nothing,
    /// A key is heavy enough for its operator to begin with the split.
    Heavy(Heavy),
    /// No key of any input is.
    Even(RunId),
}

/// A heavy key of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heavy {
    pub(crate) run: RunId,
    /// The columns, with the name of their table.
    pub(crate) columns: Vec<String>,
    /// Share of the rows that have it.
    pub(crate) percent: u32,
}

impl KnownKeys {
    /// What `session` knows, as far as it has read the past: for a query that is step `step`, first what that step has found.
    pub(crate) fn of(session: &Session, step: Option<&str>) -> Self {
        if session.learning() != Learning::On || !session.adaptive().known_keys || !session.has_recalled() {
            return Self::default();
        }
        Self::within(&session.recalled(), step, &session.source_records())
    }

    fn within(recalled: &Recalled, step: Option<&str>, now: &[SourceRecord]) -> Self {
        let mut known = Self::default();
        for own in [true, false] {
            for run in &recalled.runs {
                let mut of_run = HashMap::new();
                for measured in run.steps.iter().filter(|s| !own || Some(s.name.as_str()) == step) {
                    measured.keys.iter().for_each(|key| note(&mut of_run, run, key, now));
                }
                // The newest run counts.
                for (key, found) in of_run {
                    known.of.entry(key).or_insert(found);
                }
            }
        }
        known
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// What is known of an operator on `slots` slots whose inputs are divided by these keys.
    pub(crate) fn lesson(&self, keys: &[Option<SourceKey>], slots: usize) -> Lesson {
        let found: Vec<Option<(&SourceKey, &Known)>> =
            keys.iter().map(|key| self.of.get_key_value(key.as_ref()?)).collect();
        let gain = |known: &Known| 1.0 + known.share * (slots.max(1) - 1) as f64;
        let heaviest = found.iter().rev().flatten().max_by(|a, b| a.1.share.total_cmp(&b.1.share));
        if let Some((key, known)) = heaviest
            && gain(known) >= GAIN
            && known.rows >= MIN_ROWS
        {
            return Lesson::Heavy(Heavy {
                run: known.run.clone(),
                columns: key.columns.iter().map(|column| format!("{}.{column}", known.table)).collect(),
                percent: (known.share * 100.0).round() as u32,
            });
        }
        let even = |known: &Known| gain(known) < NO_GAIN && (1.0 / MOST_GROWTH..=MOST_GROWTH).contains(&known.growth);
        match found.first() {
            Some(Some((_, first))) if found.iter().all(|found| found.is_some_and(|(_, known)| even(known))) => {
                Lesson::Even(first.run.clone())
            }
            _ => Lesson::Nothing,
        }
    }
}

fn note(of_run: &mut HashMap<SourceKey, Known>, run: &RunRecord, key: &KeyRecord, now: &[SourceRecord]) {
    let share = key.heavy.iter().map(|heavy| heavy.share).fold(0.0, f64::max);
    let own = |sources: &[SourceRecord]| -> Vec<SourceRecord> {
        sources.iter().filter(|source| source.name == key.table).cloned().collect()
    };
    // The output of a step has no size before it is made: what the run reads tells how much it grows.
    let growth = match own(&run.sources).as_slice() {
        [] => growth(&run.sources, now),
        then => growth(then, &own(now)),
    };
    let found = Known { run: run.id.clone(), table: key.table.clone(), share, rows: key.rows as f64 * growth, growth };
    let key = SourceKey { source: key.source.clone(), columns: key.columns.clone() };
    of_run
        .entry(key)
        .and_modify(|known| {
            known.share = known.share.max(share);
            known.rows = known.rows.max(found.rows);
        })
        .or_insert(found);
}

/// The columns of one source that `keys` of `plan` are, row by row; none where one of them is computed, or there is no such source.
pub(crate) fn source_key(plan: &LogicalPlan, keys: &[Expr], sources: &dyn SourceNames) -> Option<SourceKey> {
    origin_of(plan, keys, sources).map(|(id, columns)| SourceKey { source: id.to_string(), columns })
}

/// What is kept of `facts` about `keys` of `plan`, as [`source_key`].
pub(super) fn record(
    plan: &LogicalPlan,
    keys: &[Expr],
    sources: &dyn SourceNames,
    facts: &KeyFacts,
) -> Option<KeyRecord> {
    let (id, columns) = origin_of(plan, keys, sources)?;
    let heavy = facts.heavy.iter().map(|hitter| sparklet_history::HeavyKey {
        key: hitter.key.as_ref().map(|key| key.iter().map(ToString::to_string).collect()),
        share: hitter.share,
    });
    Some(KeyRecord {
        source: id.to_string(),
        table: id.name().to_owned(),
        columns,
        rows: facts.rows,
        null_rows: facts.null_rows,
        distinct: facts.distinct,
        heavy: heavy.collect(),
    })
}

fn origin_of(plan: &LogicalPlan, keys: &[Expr], sources: &dyn SourceNames) -> Option<(SourceId, Vec<String>)> {
    let mut found: Option<SourceId> = None;
    let mut columns = Vec::new();
    for key in keys {
        let Expr::Column(column) = key else { return None };
        let (id, name) = origin(plan, column, sources)?;
        if found.get_or_insert_with(|| id.clone()) != &id {
            return None;
        }
        columns.push(name);
    }
    columns.sort_unstable();
    Some((found?, columns))
}

/// The source, and the column of it, whose values `column` of `plan` has. Through an aggregate there is none: it keeps one row a key.
#[recursive::recursive]
fn origin(plan: &LogicalPlan, column: &Column, sources: &dyn SourceNames) -> Option<(SourceId, String)> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            plan.schema().maybe_index_of_column(column)?;
            Some((sources.by_table(&scan.table_name)?, column.name.clone()))
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let at = alias.schema.maybe_index_of_column(column)?;
            origin(&alias.input, &Column::from(alias.input.schema().qualified_field(at)), sources)
        }
        LogicalPlan::Projection(projection) => {
            let at = projection.schema.maybe_index_of_column(column)?;
            match projection.expr.get(at)?.clone().unalias() {
                Expr::Column(below) => origin(&projection.input, &below, sources),
                _ => None,
            }
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Join(_) => {
            let has = |input: &&LogicalPlan| input.schema().maybe_index_of_column(column).is_some();
            origin(plan.inputs().into_iter().find(has)?, column, sources)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use chrono::{DateTime, Utc};
    use datafusion::prelude::SessionContext;
    use sparklet_history::{
        EngineRecord, Fingerprint, HeavyKey, MachineRecord, Outcome, RECORD_VERSION, Scope, StepRecord,
    };
    use sparklet_optimizer::SourceMap;

    use super::*;

    pub(in crate::adaptive) const SCOPE: Scope<'_> = Scope { pipeline: "sql", environment: "default" };

    /// A run with one step, which has measured `keys`.
    pub(in crate::adaptive) fn run(step: &str, keys: Vec<KeyRecord>, sources: Vec<SourceRecord>) -> RunRecord {
        let step = StepRecord {
            wall_us: 1,
            cpu_us: 1,
            execution_us: 1,
            rows: 1,
            keys,
            ..StepRecord::unmeasured(step, Outcome::Succeeded)
        };
        RunRecord {
            version: RECORD_VERSION,
            id: RunId::random(),
            pipeline: SCOPE.pipeline.to_owned(),
            environment: SCOPE.environment.to_owned(),
            started_at: DateTime::<Utc>::UNIX_EPOCH,
            outcome: Outcome::Succeeded,
            wall_us: 1,
            cpu_us: 1,
            peak_memory_bytes: 0,
            peak_rss_bytes: None,
            engine: EngineRecord { sparklet: String::new(), datafusion: String::new() },
            machine: MachineRecord { cores: 2, memory_bytes: 0, platform: String::new() },
            settings: BTreeMap::new(),
            params: BTreeMap::new(),
            slots: 2,
            memory_limit_bytes: 0,
            code_version: Fingerprint::of(""),
            sources,
            steps: vec![step],
            notes: Vec::new(),
            error: None,
        }
    }

    /// Column `k` of table `t`, a key of which so many of `rows` rows have.
    fn key(share: f64, rows: u64) -> KeyRecord {
        let heavy = (share > 0.0).then_some(HeavyKey { key: None, share }).into_iter().collect();
        let (table, columns) = ("t".to_owned(), vec!["k".to_owned()]);
        KeyRecord { source: "source t".to_owned(), table, columns, rows, null_rows: 0, distinct: 100, heavy }
    }

    fn source(rows: u64) -> Vec<SourceRecord> {
        let version = Fingerprint::of("");
        let (name, location, format) = ("t".to_owned(), String::new(), String::new());
        let (data_version, schema_version) = (version, version);
        vec![SourceRecord {
            name,
            location,
            format,
            files: 1,
            bytes: 1,
            rows: Some(rows),
            data_version,
            schema_version,
        }]
    }

    fn asked() -> [Option<SourceKey>; 1] {
        [Some(SourceKey { source: "source t".to_owned(), columns: vec!["k".to_owned()] })]
    }

    #[test]
    fn what_is_heavy_depends_on_the_slots_and_on_growth() {
        let lesson = |share: f64, rows: u64, slots: usize, now: u64| {
            let runs = vec![run("a", vec![key(share, rows)], source(1000))];
            let known = KnownKeys::within(&Recalled::of(SCOPE, runs), Some("a"), &source(now));
            match known.lesson(&asked(), slots) {
                Lesson::Nothing => 'n',
                Lesson::Heavy(heavy) => {
                    assert_eq!(heavy.columns, ["t.k"]);
                    'h'
                }
                Lesson::Even(_) => 'e',
            }
        };
        assert_eq!(lesson(0.4, 1_000_000, 4, 1000), 'h');
        assert_eq!(lesson(0.4, 1_000_000, 2, 1000), 'n', "little to win, yet no reason to be sure");
        assert_eq!(lesson(0.4, 1_000_000, 1, 1000), 'e');
        assert_eq!(lesson(0.4, 1_000, 4, 1000), 'n', "few rows");
        assert_eq!(lesson(0.4, 100_000, 4, 3000), 'h', "there are more by now");
        assert_eq!(lesson(0.02, 1_000_000, 4, 1000), 'e');
        assert_eq!(lesson(0.02, 1_000_000, 64, 1000), 'h');
        assert_eq!((lesson(0.0, 1_000, 4, 1900), lesson(0.0, 1_000, 4, 2100)), ('e', 'n'), "other data by now");
        assert_eq!(lesson(0.0, 1_000, 4, 400), 'n');
    }

    #[test]
    fn the_newest_run_counts_and_the_own_step_first() {
        let runs = || {
            vec![
                run("b", vec![key(0.0, 1_000_000)], Vec::new()),
                run("a", vec![key(0.1, 1_000_000), key(0.5, 1_000_000)], Vec::new()),
                run("a", vec![key(0.9, 1_000_000)], Vec::new()),
            ]
        };
        let lesson = |step, runs: Vec<RunRecord>, keys: &[Option<SourceKey>]| {
            KnownKeys::within(&Recalled::of(SCOPE, runs), step, &[]).lesson(keys, 4)
        };
        let heavy = |percent| move |lesson: Lesson| matches!(lesson, Lesson::Heavy(heavy) if heavy.percent == percent);
        assert!(heavy(50)(lesson(Some("a"), runs(), &asked())));
        assert!(matches!(lesson(Some("b"), runs(), &asked()), Lesson::Even(_)));
        assert!(matches!(lesson(None, runs(), &asked()), Lesson::Even(_)));
        let [one] = asked();
        assert_eq!(lesson(Some("b"), runs(), &[one.clone(), None]), Lesson::Nothing, "one input is not known");
        assert!(heavy(50)(lesson(Some("a"), runs(), &[None, one])), "one is enough");
        assert_eq!(lesson(Some("a"), runs(), &[]), Lesson::Nothing);
        assert_eq!(lesson(Some("a"), Vec::new(), &asked()), Lesson::Nothing);
    }

    #[tokio::test]
    async fn keys_are_traced_to_their_source() {
        let context = SessionContext::new();
        for table in ["t", "u"] {
            let sql = format!("CREATE TABLE {table} (k BIGINT, v BIGINT, w VARCHAR) AS VALUES (1, 2, 'a')");
            context.sql(&sql).await.unwrap().collect().await.unwrap();
        }
        let mut sources = SourceMap::default();
        for step in ["t", "u"] {
            sources.add_table(step, SourceId::Step { pipeline: "p".to_owned(), step: step.to_owned() });
        }
        let sources: Arc<dyn SourceNames> = Arc::new(sources);
        let traced = async |sql: &str, keys: &[&str]| {
            let plan = context.sql(sql).await.unwrap().into_optimized_plan().unwrap();
            let keys: Vec<Expr> = keys
                .iter()
                .map(|key| {
                    Expr::Column(Column::from(plan.schema().qualified_field_with_unqualified_name(key).unwrap()))
                })
                .collect();
            origin_of(&plan, &keys, sources.as_ref())
                .map(|(id, columns)| format!("{}: {}", id.name(), columns.join(", ")))
        };
        assert_eq!(traced("SELECT k FROM t WHERE v > 0", &["k"]).await.as_deref(), Some("t: k"));
        let renamed = "SELECT x AS y, w, v + 1 AS z FROM (SELECT a.k AS x, a.v, b.w FROM t a JOIN u b ON a.k = b.k) q WHERE v > 3";
        assert_eq!(traced(renamed, &["y"]).await.as_deref(), Some("t: k"));
        assert_eq!(traced(renamed, &["w"]).await.as_deref(), Some("u: w"));
        assert_eq!(traced(renamed, &["z"]).await, None, "computed");
        assert_eq!(traced(renamed, &["y", "w"]).await, None, "of two sources");
        assert_eq!(traced("SELECT * FROM t", &["v", "k"]).await.as_deref(), Some("t: k, v"));
        assert_eq!(traced("SELECT k, count(*) FROM t GROUP BY k", &["k"]).await, None, "one row a key");
        assert_eq!(traced("SELECT k FROM t UNION ALL SELECT v FROM u", &["k"]).await, None);
    }
}
