//! Runs a workload day by day: sparklet beside plain DataFusion, query by query, in random order.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use sparklet_history::{Completeness, History, HistoryOptions, NodeRecord, Remembered, StepRecord};

use crate::compare::{Rows, Verdict, compare};
use crate::engine::{Answer, Plain, Settings, Sparklet, different_settings, learn};
use crate::error::{Failure, Result};
use crate::home::{Home, Manifest, View, Workload};
use crate::learning::Choice;
use crate::literals::{self, Domains};
use crate::measure::{Clock, Cost, Neighbours};
use crate::queries::{self, Query};
use crate::record::Trace;
use crate::{data, domains};

/// What changes from day to day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Track {
    /// The same data and the same literals every day.
    Frozen,
    /// Every day appends data and draws new literals.
    Moving,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Column {
    /// Sparklet, with the state that its earlier runs left.
    Sparklet,
    /// Plain DataFusion: what all others are compared with.
    Plain,
    /// Plain DataFusion once more, in a context of its own: what is left when nothing differs is noise.
    PlainAgain,
    /// Plain DataFusion under the best global settings.
    Tuned,
}

/// One measured run of a query.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) day: u32,
    pub(crate) query: u32,
    pub(crate) pair: u32,
    pub(crate) column: Column,
    pub(crate) cost: Cost,
    /// What came after the result was out: reading the observations of the plan (sparklet only).
    pub(crate) after: Cost,
}

/// Everything that a workload's runs showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub(crate) samples: Vec<Sample>,
    /// Registering all tables, by day and column.
    pub(crate) registration: Vec<(u32, Column, Cost)>,
    /// Making and remembering the record of a run of all queries, by day and pair.
    pub(crate) remembering: Vec<(u32, u32, Cost)>,
    /// Training a cost model after the run of a day.
    pub(crate) training: Vec<(u32, Cost)>,
    /// Choices of plans, of the first pair of each day.
    pub(crate) choices: Vec<Choice>,
    /// Operators with a complete count by day, of sparklet's first pair.
    pub(crate) counted: BTreeMap<u32, Vec<CountedOperator>>,
    /// Results compared, and those that differ.
    pub(crate) compared: u32,
    pub(crate) mismatches: Vec<String>,
    /// Runs whose record did not reach the store.
    pub(crate) not_stored: Vec<String>,
    /// Settings that the two engines do not share.
    pub(crate) different_settings: Vec<String>,
    /// Share of the machine that other processes used meanwhile.
    pub(crate) neighbours: Option<f64>,
    /// Changes of plans in mid-run by query, in sparklet's first pair of each day.
    pub(crate) adaptations: BTreeMap<String, usize>,
    /// Queries of the moving track without a row, of all.
    pub(crate) empty: u32,
    pub(crate) drawn: u32,
}

/// An operator whose rows were counted in full.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CountedOperator {
    pub(crate) query: String,
    /// As DataFusion writes it.
    pub(crate) operator: String,
    pub(crate) expected: u64,
    pub(crate) rows: u64,
    pub(crate) q_error: f64,
}

impl CountedOperator {
    pub(crate) fn of(query: &str, node: &NodeRecord) -> Option<Self> {
        let (q_error, expected, rows) = (node.q_error()?, node.estimated_rows?, node.rows?);
        let operator = format!("{} {}", node.operator, node.detail);
        let whole = node.completeness == Completeness::Complete;
        whole.then(|| Self { query: query.to_owned(), operator, expected, rows, q_error })
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) workload: Workload,
    pub(crate) scale: f64,
    pub(crate) track: Track,
    pub(crate) days: u32,
    pub(crate) pairs: u32,
    pub(crate) queries: Vec<Query>,
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    /// Options of the third column; none: no third column.
    pub(crate) tuned: Option<BTreeMap<String, String>>,
}

/// Draws of literals until a query of the moving track has rows.
const DRAWS: u64 = 4;

/// Runs `plan` with the fresh state folder `work`; what happens is told on `out`.
pub(crate) async fn run(home: &Home, plan: &Plan, work: &Path, out: &mut dyn Write) -> Result<Measured> {
    let manifest =
        data::require(home, plan.workload, plan.scale, if plan.track == Track::Moving { plan.days } else { 0 })?;
    let view = View::new(&home.data(plan.workload, plan.scale), &manifest, work.join("view"));
    let memory = Memories {
        state: History::new(work.join("state"), HistoryOptions::default()),
        aside: History::new(work.join("state-aside"), HistoryOptions::default()),
    };
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut measured = Measured::default();
    let neighbours = Neighbours::watch();
    for day in 1..=plan.days {
        view.advance(if plan.track == Track::Moving { day } else { manifest.days })?;
        let mut today = Day::open(plan, day, &view.tables(), &memory.state, &mut random, &mut measured).await?;
        if day == 1 {
            measured.different_settings = different_settings(&today.plain, &today.sparklet);
        }
        let domains = match plan.track {
            Track::Moving => Some(arrived(&today.scout, plan, &manifest, day).await?),
            Track::Frozen => None,
        };
        let mut traces: Vec<Trace> = (0..plan.pairs).map(|_| Trace::default()).collect();
        for query in &plan.queries {
            let sql =
                today.text(query, domains.as_ref(), plan, day, &mut measured).await.map_err(|e| e.at(query.name()))?;
            for (pair, trace) in (0..).zip(&mut traces) {
                let at = At { day, pair, query };
                today.pair(&at, &sql, trace, &mut random, &mut measured).await.map_err(|e| e.at(query.name()))?;
            }
            write!(out, "\rday {day} of {}, {} … ", plan.days, query.name())?;
            out.flush()?;
        }
        for (pair, trace) in (0..).zip(traces) {
            memory.remember(day, pair, trace, &today.sparklet, &mut measured);
        }
    }
    measured.neighbours = neighbours.share();
    writeln!(
        out,
        "\r{} runs, {} results compared, {} differ",
        measured.samples.len(),
        measured.compared,
        measured.mismatches.len()
    )?;
    Ok(measured)
}

/// Values of the columns that the queries compare, and the days that have data.
async fn arrived(scout: &Plain, plan: &Plan, manifest: &Manifest, day: u32) -> Result<Domains> {
    let mut columns = std::collections::BTreeSet::new();
    for query in &plan.queries {
        columns.extend(literals::compared_columns(&query.sql).map_err(|e| e.at(query.name()))?);
    }
    domains::load(scout, plan.workload, manifest, day, &columns).await
}

/// Where runs are remembered. A day leaves one run in the state, whatever the number of pairs: more evidence than a user would have
/// must not teach. The runs of the other pairs are remembered aside, for the clock.
struct Memories {
    state: History,
    aside: History,
}

impl Memories {
    fn remember(&self, day: u32, pair: u32, trace: Trace, sparklet: &Sparklet, measured: &mut Measured) {
        let history = if pair == 0 { &self.state } else { &self.aside };
        let clock = Clock::start();
        let (record, texts) = trace.finish(sparklet.session(), &sparklet.sources);
        if pair == 0 {
            let choice = |step: &StepRecord| Some(Choice::of(day, step.name.clone(), step.choice.as_deref()?.clone()));
            measured.choices.extend(record.steps.iter().filter_map(choice));
        }
        let remembered = history.remember(&record, &texts);
        measured.remembering.push((day, pair, clock.stop()));
        match remembered {
            // As the command line does; only the clock of the day's own run counts it.
            Remembered::Stored { .. } if pair == 0 => {
                let clock = Clock::start();
                if let Err(error) = learn(history) {
                    measured.not_stored.push(format!("day {day}: no model was trained: {error}"));
                }
                measured.training.push((day, clock.stop()));
            }
            Remembered::Stored { .. } => {}
            other => measured.not_stored.push(format!("day {day}: {other:?}")),
        }
    }
}

struct At<'a> {
    day: u32,
    pair: u32,
    query: &'a Query,
}

/// The engines of a day: each with a fresh context, as a fresh process would have.
struct Day {
    plain: Plain,
    again: Plain,
    tuned: Option<Plain>,
    sparklet: Sparklet,
    /// Draws literals and warms the page cache; never measured.
    scout: Plain,
}

impl Day {
    async fn open(
        plan: &Plan,
        day: u32,
        tables: &[(String, PathBuf)],
        past: &History,
        random: &mut StdRng,
        measured: &mut Measured,
    ) -> Result<Self> {
        let defaults = BTreeMap::new();
        let mut engines = Self {
            plain: Plain::new(&plan.settings, &defaults)?,
            again: Plain::new(&plan.settings, &defaults)?,
            tuned: plan.tuned.as_ref().map(|options| Plain::new(&plan.settings, options)).transpose()?,
            sparklet: Sparklet::new(&plan.settings, plan.workload.name(), Some(past))?,
            scout: Plain::new(&plan.settings, &defaults)?,
        };
        engines.scout.register(tables).await?;
        for column in engines.columns(random) {
            let cost = match column {
                Column::Sparklet => engines.sparklet.register(tables).await?,
                other => engines.plain_of(other)?.register(tables).await?,
            };
            measured.registration.push((day, column, cost));
        }
        Ok(engines)
    }

    /// The columns in an order drawn anew.
    fn columns(&self, random: &mut StdRng) -> Vec<Column> {
        let mut columns = vec![Column::Sparklet, Column::Plain, Column::PlainAgain];
        columns.extend(self.tuned.as_ref().map(|_| Column::Tuned));
        columns.shuffle(random);
        columns
    }

    fn plain_of(&self, column: Column) -> Result<&Plain> {
        match column {
            Column::Plain => Ok(&self.plain),
            Column::PlainAgain => Ok(&self.again),
            Column::Tuned => self.tuned.as_ref().ok_or_else(|| Failure::new("there is no tuned column")),
            Column::Sparklet => Err(Failure::new("sparklet is not plain")),
        }
    }

    /// The text of a query for this day; it has run once, unmeasured.
    async fn text(
        &self,
        query: &Query,
        domains: Option<&Domains>,
        plan: &Plan,
        day: u32,
        measured: &mut Measured,
    ) -> Result<String> {
        let Some(domains) = domains else {
            if day == 1 {
                self.scout.run(&query.sql).await?;
            }
            return Ok(query.sql.clone());
        };
        measured.drawn += 1;
        let mut sql = query.sql.clone();
        for draw in 0..DRAWS {
            let seed = plan.seed ^ (u64::from(query.number) << 40) ^ (u64::from(day) << 8) ^ draw;
            sql = literals::redraw(&query.sql, domains, StdRng::seed_from_u64(seed).random())?;
            let answer = self.scout.run(&sql).await.map_err(|e| e.at(format!("literals drawn with seed {seed}")))?;
            if answer.batches.iter().any(|b| b.num_rows() > 0) {
                return Ok(sql);
            }
        }
        measured.empty += 1;
        Ok(sql)
    }

    /// Runs the query once in every column; the first pair of a day also compares the results.
    async fn pair(
        &mut self,
        at: &At<'_>,
        sql: &str,
        trace: &mut Trace,
        random: &mut StdRng,
        measured: &mut Measured,
    ) -> Result<()> {
        let mut answers: BTreeMap<Column, Answer> = BTreeMap::new();
        for column in self.columns(random) {
            let (answer, after) = match column {
                Column::Sparklet => self.sparklet_run(at, sql, trace, measured).await?,
                other => (self.plain_of(other)?.run(sql).await?, Cost::default()),
            };
            let cost = answer.cost;
            measured.samples.push(Sample { day: at.day, query: at.query.number, pair: at.pair, column, cost, after });
            if at.pair == 0 {
                answers.insert(column, answer);
            }
        }
        if at.pair == 0 {
            for column in [Column::Sparklet, Column::PlainAgain, Column::Tuned] {
                let (Some(ours), Some(theirs)) = (answers.get(&column), answers.get(&Column::Plain)) else { continue };
                measured.compared += 1;
                if let Some(difference) = difference(ours, theirs, sql, &self.scout).await? {
                    measured.mismatches.push(format!(
                        "day {}, {}, {column:?} against plain: {difference}",
                        at.day,
                        at.query.name()
                    ));
                }
            }
        }
        Ok(())
    }

    async fn sparklet_run(
        &self,
        at: &At<'_>,
        sql: &str,
        trace: &mut Trace,
        measured: &mut Measured,
    ) -> Result<(Answer, Cost)> {
        let (answer, prepared) = self.sparklet.run(&at.query.name(), sql).await?;
        let clock = Clock::start();
        let observed = prepared.observe_with_texts();
        let after = clock.stop();
        if at.pair == 0 {
            let counted = observed.plan.nodes.iter().filter_map(|node| CountedOperator::of(&at.query.name(), node));
            measured.counted.entry(at.day).or_default().extend(counted);
            let adaptations = prepared.adaptations().len();
            if adaptations > 0 {
                *measured.adaptations.entry(at.query.name()).or_default() += adaptations;
            }
        }
        let rows = answer.batches.iter().map(|b| b.num_rows() as u64).sum();
        trace.add(&at.query.name(), sql, answer.cost, rows, &prepared, observed);
        Ok((answer, after))
    }
}

/// How the results of a query differ; none if they do not.
pub(crate) async fn difference(ours: &Answer, theirs: &Answer, sql: &str, plain: &Plain) -> Result<Option<String>> {
    let context = plain.context();
    let (shape, unlimited) = queries::shape(&context.state().create_logical_plan(sql).await?);
    let (left, right) = (Rows::new(&ours.schema, &ours.batches)?, Rows::new(&theirs.schema, &theirs.batches)?);
    let verdict = match compare(&left, &right, &shape, None) {
        Verdict::NeedsUnlimited => {
            let plan = unlimited.ok_or_else(|| Failure::new("a query without a LIMIT cannot be cut by one"))?;
            let frame = context.execute_logical_plan(plan).await?;
            let (schema, batches) = (frame.schema().inner().clone(), frame.collect().await?);
            compare(&left, &right, &shape, Some(&Rows::new(&schema, &batches)?))
        }
        verdict => verdict,
    };
    Ok(match verdict {
        Verdict::Same => None,
        Verdict::Different(difference) => Some(difference),
        Verdict::NeedsUnlimited => Some("a tie at the LIMIT could not be decided".to_owned()),
    })
}

/// Days of data as a calendar.
pub(crate) fn day_from_epoch(days: i32) -> NaiveDate {
    NaiveDate::default() + chrono::Duration::days(i64::from(days))
}
