//! From what past runs observed of a subplan to its rows now: the same data, other data, other literals.

use std::collections::HashMap;

use sparklet_history::{
    Completeness, Evidence, Fingerprint, Observation, RunId, RunRecord, Scope, SourceRecord, Subplan, data_version,
};

use super::estimate::{Estimate, EstimateSource};
use crate::fingerprint::{Identity, Reads, SourceId};

/// Observations of a subplan, and of a template, that are looked at.
const OF_SUBPLAN: usize = 8;
const OF_TEMPLATE: usize = 24;

/// The data of now beside those that past runs read.
#[derive(Debug, Clone)]
pub struct Volumes {
    /// Over all sources of now.
    data_version: Fingerprint,
    /// Positions of the sources of now, by name.
    places: HashMap<String, usize>,
    /// By run and source of now.
    runs: HashMap<RunId, Vec<Volume>>,
}

/// Rows of a source in two runs.
#[derive(Debug, Clone, Copy, Default)]
struct Volume {
    then: f64,
    now: f64,
    same: bool,
}

impl Volumes {
    /// What `runs` read beside the sources of `now`.
    pub fn new<'a>(now: &[SourceRecord], runs: impl IntoIterator<Item = &'a RunRecord>) -> Self {
        let places: HashMap<String, usize> =
            now.iter().enumerate().map(|(at, source)| (source.name.clone(), at)).collect();
        let of_run = |run: &RunRecord| {
            let mut volumes = vec![Volume::default(); now.len()];
            for then in &run.sources {
                let Some(&at) = places.get(&then.name) else { continue };
                let (Some(volume), Some(now)) = (volumes.get_mut(at), now.get(at)) else { continue };
                let [then_rows, now_rows] = then.rows_beside(now);
                let same = (then.data_version, then.schema_version) == (now.data_version, now.schema_version);
                *volume = Volume { then: then_rows, now: now_rows, same };
            }
            (run.id.clone(), volumes)
        };
        let runs = runs.into_iter().map(of_run).collect();
        Self { data_version: data_version(now), places, runs }
    }

    /// `reads`, sources of a list, as sources of now; any where one of them is not a source of the session.
    pub(crate) fn reads(&self, reads: Reads, of: &[SourceId]) -> Reads {
        let Some(positions) = reads.positions() else { return Reads::ANY };
        let place = |at: usize| match of.get(at) {
            Some(SourceId::Table { name, .. }) => self.places.get(name).copied(),
            _ => None,
        };
        positions.fold(Reads::default(), |all, at| all.and(place(at).map_or(Reads::ANY, Reads::one)))
    }

    /// Whether what `seen` was counted in had the rows that are to be read now.
    fn same(&self, seen: &Observation, reads: Reads) -> bool {
        match reads.positions().zip(self.runs.get(&seen.run)) {
            Some((mut positions, volumes)) => positions.all(|at| volumes.get(at).is_some_and(|volume| volume.same)),
            None => seen.data_version == self.data_version,
        }
    }

    /// Rows of the sources that are read now ÷ rows that `run` read of them; none where that is not known of the run.
    fn growth(&self, run: &RunId, reads: Reads) -> Option<f64> {
        let volumes = self.runs.get(run)?;
        let sum = |sum: (f64, f64), of: &Volume| (sum.0 + of.then, sum.1 + of.now);
        let (then, now) = match reads.positions() {
            Some(positions) => positions.filter_map(|at| volumes.get(at)).fold((0.0, 0.0), sum),
            None => volumes.iter().fold((0.0, 0.0), sum),
        };
        Some(if then > 0.0 && now > 0.0 { now / then } else { 1.0 })
    }
}

/// What is known of a subplan, and the runs that it was learned from.
pub(crate) struct Found {
    pub(crate) estimate: Estimate,
    pub(crate) runs: Vec<RunId>,
}

/// The rows of the subplan with `identity`; none where no run counted it, or one alike, in full.
pub(crate) fn look_up(
    evidence: &dyn Evidence,
    scope: Scope<'_>,
    volumes: &Volumes,
    identity: &Identity,
    reads: Reads,
) -> Option<Found> {
    let subplan = Subplan { fingerprint: identity.fingerprint, template: Some(identity.template) };
    let seen = evidence.by_fingerprint(scope, &subplan, OF_SUBPLAN);
    let complete: Vec<&Observation> = seen.iter().filter(|o| o.completeness == Completeness::Complete).collect();
    if let Some(same) = complete.iter().find(|o| volumes.same(o, reads)) {
        let estimate = Estimate::exact(same.rows as f64, EstimateSource::Observed { runs: 1 });
        return Some(Found { estimate, runs: vec![same.run.clone()] });
    }
    let mut points: Vec<(f64, f64, RunId)> = Vec::new();
    for seen in complete {
        let Some(growth) = volumes.growth(&seen.run, reads) else { continue };
        if !points.iter().any(|(g, r, _)| (*g, *r) == (growth, seen.rows as f64)) {
            points.push((growth, seen.rows as f64, seen.run.clone()));
        }
    }
    if let Some(estimate) = scaled(&points) {
        return Some(Found { estimate, runs: points.into_iter().map(|(_, _, run)| run).collect() });
    }
    let alike = evidence.by_template(scope, &identity.template, OF_TEMPLATE);
    let alike = alike.into_iter().map(|(_, o)| o).filter(|o| o.completeness == Completeness::Complete);
    let mut rows: Vec<(f64, RunId)> =
        alike.map(|o| (o.rows as f64 * volumes.growth(&o.run, reads).unwrap_or(1.0), o.run)).collect();
    let estimate = quantiles(&mut rows)?;
    Some(Found { estimate, runs: rows.into_iter().map(|(_, run)| run).take(OF_SUBPLAN).collect() })
}

/// Rows at the volume of now from (volume of now ÷ of then, rows then): a power of the volume through the points where there are enough
/// of them, proportional to it where not.
fn scaled(points: &[(f64, f64, RunId)]) -> Option<Estimate> {
    let newest = points.first()?;
    let source = EstimateSource::Scaled { runs: u32::try_from(points.len()).unwrap_or(u32::MAX) };
    let logs: Vec<(f64, f64)> = points.iter().map(|(g, rows, _)| (-g.max(1e-9).ln(), rows.max(0.5).ln())).collect();
    let n = logs.len() as f64;
    let (mean_x, mean_y) = logs.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let spread_x: f64 = logs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let farthest = points.iter().map(|(g, ..)| g.max(1e-9).ln().abs()).fold(f64::INFINITY, f64::min);
    if logs.len() < 3 || spread_x < 1e-4 {
        return Some(Estimate::within(newest.1 * newest.0, 1.1 + farthest, source));
    }
    let slope = logs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum::<f64>() / spread_x;
    let slope = slope.clamp(0.0, 2.0);
    // Volume now is the unit. Through the newest point: what a pipeline reads today is nearest to what it read last.
    let rows = newest.1 * newest.0.powf(slope);
    let off: f64 = logs.iter().map(|p| (p.1 - (mean_y + slope * (p.0 - mean_x))).powi(2)).sum::<f64>() / n;
    Some(Estimate::within(rows, (1.645 * off.sqrt()).exp().max(1.05) + farthest * 0.5, source))
}

/// The middle of what subplans that differ in literals gave.
fn quantiles(rows: &mut [(f64, RunId)]) -> Option<Estimate> {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let last = rows.len().checked_sub(1)?;
    let at = |share: f64| rows.get((last as f64 * share).round() as usize).map_or(0.0, |r| r.0);
    let middle = at(0.5);
    // Few points tell little of the ends.
    let doubt = 1.0 + 2.0 / rows.len() as f64;
    let source = EstimateSource::Template { runs: u32::try_from(rows.len()).unwrap_or(u32::MAX) };
    Some(Estimate { rows: middle, low: at(0.05) / doubt, high: at(0.95).max(1.0) * doubt, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u64) -> RunId {
        RunId::from_bits(n)
    }

    #[test]
    fn one_run_scales_with_the_volume() {
        let estimate = scaled(&[(1.5, 100.0, run(1))]).unwrap();
        assert!((estimate.rows - 150.0).abs() < 1e-9);
        assert!(estimate.low < 150.0 && estimate.high > 150.0);
    }

    #[test]
    fn what_does_not_grow_with_the_volume_is_seen_after_three_runs() {
        let points = [(1.25, 40.0, run(3)), (1.5, 40.0, run(2)), (2.0, 40.0, run(1))];
        assert!((scaled(&points).unwrap().rows - 40.0).abs() < 1e-9);
        let points = [(1.25, 80.0, run(3)), (1.5, 200.0 / 3.0, run(2)), (2.0, 50.0, run(1))];
        assert!((scaled(&points).unwrap().rows - 100.0).abs() < 1e-6);
    }

    #[test]
    fn other_literals_give_the_middle() {
        let mut rows: Vec<(f64, RunId)> = (1..=9).map(|n| (n as f64 * 10.0, run(n))).collect();
        let estimate = quantiles(&mut rows).unwrap();
        assert!((estimate.rows - 50.0).abs() < 1e-9);
        assert!(estimate.low < 20.0 && estimate.high > 80.0);
        assert!(quantiles(&mut []).is_none());
    }
}
