//! How well the time of a query is predicted that never ran: each query in turn is left out of the past of all others.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sparklet_history::{History, HistoryOptions, Remembered};

use crate::engine::{Plain, Sparklet, learn};
use crate::error::{Failure, Result};
use crate::record::Trace;
use crate::report::{Quantiles, against};
use crate::runs::Plan;

/// Prediction and time of a query.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Unseen {
    pub(crate) query: String,
    /// CPU time as it was predicted, with the ends of its interval, in micro-seconds.
    pub(crate) predicted_us: [u64; 3],
    /// CPU time of the run in micro-seconds.
    pub(crate) took_us: u64,
}

impl Unseen {
    fn q_error(&self) -> f64 {
        let [said, ..] = self.predicted_us.map(|us| us.max(1) as f64);
        let was = self.took_us.max(1) as f64;
        (said / was).max(was / said)
    }

    fn within(&self) -> bool {
        let [_, low, high] = self.predicted_us;
        (low..=high).contains(&self.took_us)
    }
}

/// Runs all queries of `plan` once, then each with a past of all others.
pub(crate) async fn measure(
    plan: &Plan,
    tables: &[(String, PathBuf)],
    work: &Path,
    out: &mut dyn Write,
) -> Result<Vec<Unseen>> {
    let scout = Plain::new(&plan.settings, &Default::default())?;
    scout.register(tables).await?;
    let mut sparklet = Sparklet::new(&plan.settings, plan.workload.name(), None)?;
    sparklet.register(tables).await?;
    let mut trace = Trace::default();
    for query in &plan.queries {
        let (name, at) = (query.name(), |e: Failure| e.at(query.name()));
        scout.run(&query.sql).await.map_err(at)?;
        let (answer, prepared) = sparklet.run(&name, &query.sql).await.map_err(at)?;
        let rows = answer.batches.iter().map(|b| b.num_rows() as u64).sum();
        trace.add(&name, &query.sql, answer.cost, rows, &prepared, prepared.observe_with_texts());
    }
    let (all, texts) = trace.finish(sparklet.session(), &sparklet.sources);
    let mut measured = Vec::new();
    for query in &plan.queries {
        let name = query.name();
        let past = History::new(work.join(format!("without-{name}")), HistoryOptions::default());
        let mut others = all.clone();
        others.steps.retain(|step| step.name != name);
        if !matches!(past.remember(&others, &texts), Remembered::Stored { .. }) {
            return Err(Failure::new("the past of the other queries could not be kept").at(name));
        }
        learn(&past).map_err(|e| Failure::new(e.to_string()))?;
        let mut sparklet = Sparklet::new(&plan.settings, plan.workload.name(), Some(&past))?;
        sparklet.register(tables).await?;
        let (answer, prepared) = sparklet.run(&name, &query.sql).await.map_err(|e| e.at(&name))?;
        let choice = prepared.choice_after(&prepared.observe());
        if let Some(predicted) = choice.predicted.filter(|_| choice.fell_back.is_none()) {
            measured.push(Unseen {
                query: name,
                predicted_us: [predicted.cpu_us, predicted.low_us, predicted.high_us],
                took_us: answer.cost.cpu_us,
            });
        }
        write!(out, "\r{} of {} … ", measured.len(), plan.queries.len())?;
        out.flush()?;
    }
    writeln!(out)?;
    Ok(measured)
}

/// Tells what was found against the bars.
pub(crate) fn summarise(measured: &[Unseen], out: &mut dyn Write) -> Result<bool> {
    const BARS: [f64; 2] = [1.5, 3.0];
    let mut worst: Vec<&Unseen> = measured.iter().collect();
    worst.sort_by(|a, b| b.q_error().total_cmp(&a.q_error()));
    for unseen in worst.iter().take(10) {
        let ms = |us: u64| us as f64 / 1000.0;
        writeln!(
            out,
            "{}: predicted {:.0} ms, took {:.0} ms",
            unseen.query,
            ms(unseen.predicted_us[0]),
            ms(unseen.took_us)
        )?;
    }
    let of = Quantiles::of(&measured.iter().map(Unseen::q_error).collect::<Vec<_>>());
    let within = measured.iter().filter(|unseen| unseen.within()).count() as f64 / measured.len().max(1) as f64;
    let (fine, verdict) = against(&of, BARS);
    writeln!(
        out,
        "CPU time of {} queries that never ran, predicted from the others: {verdict}; {:.0} % within their interval",
        of.count,
        within * 100.0
    )?;
    Ok(fine)
}
