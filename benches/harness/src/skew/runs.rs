//! Runs the cases: pairs for wall and CPU time, then on each number of slots for the tasks of the skewed stage.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use sparklet_history::Adaptation;

use super::cases::Case;
use super::data::{self, Size};
use super::timed::Stage;
use crate::engine::{Answer, Plain, Settings, Sparklet, different_settings};
use crate::error::Result;
use crate::measure::{Cost, Neighbours};
use crate::runs::difference;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) size: Size,
    pub(crate) cases: Vec<Case>,
    pub(crate) pairs: u32,
    pub(crate) seed: u64,
    /// Of the pairs.
    pub(crate) settings: Settings,
    /// Numbers of slots for which the tasks of the skewed stage are measured.
    pub(crate) spread: Vec<usize>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Column {
    /// Plain DataFusion: what all others are compared with.
    Plain,
    /// Plain DataFusion in a second context: noise.
    PlainAgain,
    /// Sparklet, which may adapt.
    Sparklet,
    /// Plain DataFusion over the even facts.
    PlainEven,
    /// Sparklet over the even facts.
    SparkletEven,
}

const COLUMNS: [Column; 5] =
    [Column::Plain, Column::PlainAgain, Column::Sparklet, Column::PlainEven, Column::SparkletEven];

impl Column {
    fn fact(self) -> &'static str {
        match self {
            Self::PlainEven | Self::SparkletEven => "even",
            _ => "fact",
        }
    }
}

/// One measured run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sample {
    pub(crate) case: &'static str,
    pub(crate) pair: u32,
    pub(crate) column: Column,
    pub(crate) cost: Cost,
}

/// A case run on both engines with a number of slots, one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Spread {
    pub(crate) case: &'static str,
    pub(crate) slots: usize,
    pub(crate) plain: Cost,
    pub(crate) sparklet: Cost,
    /// Tasks of plain DataFusion's stage over hashed rows.
    pub(crate) stage: Option<Stage>,
    pub(crate) adaptations: Vec<Adaptation>,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) samples: Vec<Sample>,
    /// By case: adaptations of the first pair over the skewed facts.
    pub(crate) adaptations: BTreeMap<&'static str, Vec<Adaptation>>,
    pub(crate) spreads: Vec<Spread>,
    pub(crate) compared: u32,
    pub(crate) mismatches: Vec<String>,
    /// Cases that did not come to their end.
    pub(crate) failures: Vec<String>,
    pub(crate) different_settings: Vec<String>,
    pub(crate) neighbours: Option<f64>,
}

/// The engines with one number of slots.
struct Engines {
    plain: Plain,
    again: Plain,
    sparklet: Sparklet,
}

impl Engines {
    async fn open(settings: &Settings, tables: &[(String, PathBuf)]) -> Result<Self> {
        let mut engines = Self {
            plain: Plain::new(settings, &BTreeMap::new())?,
            again: Plain::new(settings, &BTreeMap::new())?,
            sparklet: Sparklet::new(settings, "skew", None)?,
        };
        engines.plain.register(tables).await?;
        engines.again.register(tables).await?;
        engines.sparklet.register(tables).await?;
        Ok(engines)
    }
}

/// Runs `plan` over `tables`; what happens is told on `out`. A case that fails is noted and left.
pub(crate) async fn run(plan: &Plan, tables: &[(String, PathBuf)], out: &mut dyn Write) -> Result<Measured> {
    data::warm(tables)?;
    let mut measured = Measured::default();
    let mut random = StdRng::seed_from_u64(plan.seed);
    let neighbours = Neighbours::watch();
    let engines = Engines::open(&plan.settings, tables).await?;
    measured.different_settings = different_settings(&engines.plain, &engines.sparklet);
    for (at, case) in plan.cases.iter().enumerate() {
        for pair in 0..plan.pairs {
            write!(out, "\r{} of {}, {}, pair {} … ", at + 1, plan.cases.len(), case.name, pair + 1)?;
            out.flush()?;
            if let Err(failure) = one_pair(&engines, case, pair, &mut random, &mut measured).await {
                measured.failures.push(format!("{}: {failure}", case.name));
                break;
            }
        }
    }
    drop(engines);
    for &slots in &plan.spread {
        let engines = Engines::open(&Settings { slots, ..plan.settings.clone() }, tables).await?;
        for case in &plan.cases {
            for pair in 0..plan.pairs {
                write!(out, "\r{slots} slots, {}, pair {} … ", case.name, pair + 1)?;
                out.flush()?;
                if let Err(failure) = tasks(&engines, case, slots, &mut random, &mut measured).await {
                    measured.failures.push(format!("{} with {slots} slots: {failure}", case.name));
                    break;
                }
            }
        }
    }
    measured.neighbours = neighbours.share();
    writeln!(
        out,
        "\r{} runs, {} results compared, {} differ",
        measured.samples.len() + 2 * measured.spreads.len(),
        measured.compared,
        measured.mismatches.len()
    )?;
    Ok(measured)
}

async fn one_pair(
    engines: &Engines,
    case: &Case,
    pair: u32,
    random: &mut StdRng,
    measured: &mut Measured,
) -> Result<()> {
    let mut columns = COLUMNS;
    columns.shuffle(random);
    let mut answers: BTreeMap<Column, Answer> = BTreeMap::new();
    for column in columns {
        let sql = case.sql(column.fact());
        let answer = match column {
            Column::Plain | Column::PlainEven => engines.plain.run(&sql).await.map_err(|e| e.at("plain"))?,
            Column::PlainAgain => engines.again.run(&sql).await.map_err(|e| e.at("plain"))?,
            Column::Sparklet | Column::SparkletEven => {
                let (answer, prepared) = engines.sparklet.run("skew", &sql).await.map_err(|e| e.at("sparklet"))?;
                if column == Column::Sparklet && pair == 0 {
                    measured.adaptations.insert(case.name, prepared.adaptations());
                }
                answer
            }
        };
        measured.samples.push(Sample { case: case.name, pair, column, cost: answer.cost });
        answers.insert(column, answer);
    }
    for (ours, theirs) in [
        (Column::PlainAgain, Column::Plain),
        (Column::Sparklet, Column::Plain),
        (Column::SparkletEven, Column::PlainEven),
    ] {
        let (Some(our), Some(their)) = (answers.get(&ours), answers.get(&theirs)) else { continue };
        let place = format!("{}, pair {}, {ours:?}", case.name, pair + 1);
        compare(our, their, &case.sql(ours.fact()), &engines.plain, &place, measured).await?;
    }
    Ok(())
}

async fn tasks(
    engines: &Engines,
    case: &Case,
    slots: usize,
    random: &mut StdRng,
    measured: &mut Measured,
) -> Result<()> {
    let sql = case.sql(Column::Sparklet.fact());
    let plain = async || engines.plain.run_timed(&sql).await.map_err(|e| e.at("plain"));
    let sparklet = async || engines.sparklet.run("skew", &sql).await.map_err(|e| e.at("sparklet"));
    let ((plain, stage), (sparklet, prepared)) = if random.random() {
        let theirs = plain().await?;
        (theirs, sparklet().await?)
    } else {
        let ours = sparklet().await?;
        (plain().await?, ours)
    };
    measured.spreads.push(Spread {
        case: case.name,
        slots,
        plain: plain.cost,
        sparklet: sparklet.cost,
        stage,
        adaptations: prepared.adaptations(),
    });
    compare(&sparklet, &plain, &sql, &engines.plain, &format!("{}, {slots} slots", case.name), measured).await
}

async fn compare(
    ours: &Answer,
    theirs: &Answer,
    sql: &str,
    plain: &Plain,
    place: &str,
    measured: &mut Measured,
) -> Result<()> {
    measured.compared += 1;
    if let Some(difference) = difference(ours, theirs, sql, plain).await? {
        measured.mismatches.push(format!("{place}: {difference}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sparklet_core::{AdaptiveMode, AdaptiveSettings};

    use super::*;
    use crate::home::Home;
    use crate::skew::cases::{Kind, load};
    use crate::skew::{Report, data, write};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_case_runs_gives_what_plain_datafusion_gives_and_says_what_was_adapted() {
        let folder = tempfile::tempdir().unwrap();
        let size = Size { rows: 4_000, keys: 50 };
        let (tables, _) = data::setup(&Home::at(folder.path()), size).unwrap();
        let adaptive = AdaptiveSettings { mode: AdaptiveMode::Force, ..AdaptiveSettings::default() };
        let spill = folder.path().join("spill");
        let settings = Settings { slots: 2, memory: 256 << 20, batch_size: None, spill, adaptive };
        let plan = Plan { size, cases: load(&[]).unwrap(), pairs: 1, seed: 1, settings, spread: vec![4] };
        let measured = run(&plan, &tables, &mut Vec::new()).await.unwrap();
        assert_eq!(measured.samples.len(), plan.cases.len() * COLUMNS.len());
        assert_eq!(measured.compared as usize, plan.cases.len() * 4);
        let report = Report::new(&plan, measured, chrono::DateTime::UNIX_EPOCH);
        assert!(report.mismatches.is_empty() && report.failures.is_empty(), "{report:?}");
        for case in &report.cases {
            let spread = &case.spreads[0].runs[0];
            // DataFusion makes one distinct argument a group of its own, which is even.
            assert_eq!(case.adaptations.is_empty(), case.name == "distinct_one", "{}", case.name);
            assert_eq!(spread.sparklet.is_empty(), case.name == "distinct_one", "{}", case.name);
            if case.kind != Kind::Join {
                // Plain DataFusion broadcasts a table as small as this one; groups and windows are over hashed rows.
                assert_eq!(spread.plain_stage.as_ref().unwrap().task_cpu_us.len(), 4, "{}", case.name);
            }
        }
        let mut text = Vec::new();
        write(&report, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(report.cases.iter().all(|case| text.matches(case.name).count() >= 4), "{text}");
        assert!(!report.fine(), "one pair leaves a doubt");
        let json: serde_json::Value = serde_json::from_slice(&serde_json::to_vec(&report).unwrap()).unwrap();
        assert_eq!(json["cases"].as_array().unwrap().len(), plan.cases.len());
    }

    #[tokio::test]
    async fn a_case_that_cannot_run_is_noted_and_the_others_run() {
        let folder = tempfile::tempdir().unwrap();
        let size = Size { rows: 1_000, keys: 50 };
        let (mut tables, _) = data::setup(&Home::at(folder.path()), size).unwrap();
        tables.retain(|(name, _)| name != "dim");
        let settings = Settings {
            slots: 1,
            memory: 256 << 20,
            batch_size: None,
            spill: folder.path().join("spill"),
            adaptive: AdaptiveSettings::default(),
        };
        let cases = load(&["inner".into(), "whole_sum".into()]).unwrap();
        let plan = Plan { size, cases, pairs: 2, seed: 1, settings, spread: vec![2] };
        let measured = run(&plan, &tables, &mut Vec::new()).await.unwrap();
        assert_eq!(measured.failures.len(), 2, "{:?}", measured.failures);
        assert!(measured.failures.iter().all(|f| f.starts_with("inner") && f.contains("dim")));
        let of_sum = measured.samples.iter().filter(|s| s.case == "whole_sum").count();
        assert_eq!(of_sum, 2 * COLUMNS.len());
        let report = Report::new(&plan, measured, chrono::DateTime::UNIX_EPOCH);
        assert!(!report.fine());
        write(&report, &mut Vec::new()).unwrap();
    }
}
