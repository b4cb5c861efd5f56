//! A report as an SVG picture: the ratio of each query with its bounds, and of each day.

use std::path::Path;

use plotters::coord::combinators::{LogCoord, WithKeyPoints};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::error::{Failure, Result};
use crate::report::Report;

/// Columns in the picture, with their colours and how far they stand beside the middle of a query.
const SHOWN: [(&str, &str, RGBColor, f64); 3] = [
    ("plain_again", "plain again (noise)", RGBColor(150, 150, 150), -0.2),
    ("tuned", "plain, best global settings", RGBColor(230, 140, 20), 0.2),
    ("sparklet", "sparklet", RGBColor(20, 90, 200), 0.0),
];

/// Ratios with a line and a label.
const TICKS: [f64; 19] =
    [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 100.0];
/// Room above the points for the legend.
const HEADROOM: f64 = 1.3;

/// Draws the report into the file `path`.
pub(crate) fn draw(report: &Report, path: &Path) -> Result<()> {
    picture(report, path).map_err(|e| Failure::new(format!("`{}` cannot be drawn: {e}", path.display())))
}

fn picture(report: &Report, path: &Path) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let by_day = report.days > 1;
    let width = (260 + 22 * report.queries.len() as u32).clamp(900, 2600);
    let root = SVGBackend::new(path, (width, if by_day { 860 } else { 480 })).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, bottom) = root.split_vertically(480);
    queries(report, &top)?;
    if by_day {
        days(report, &bottom)?;
    }
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, WithKeyPoints<LogCoord<f64>>>>;

/// A logarithmic range that has all of `values`, 0.9 and 1.1 in it.
fn range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let fold = |(low, high): (f64, f64), v: f64| (low.min(v), high.max(v));
    let (low, high) = values.filter(|v| v.is_finite() && *v > 0.0).fold((0.9, 1.1), fold);
    (low * 0.95).max(1e-4)..(high * HEADROOM).min(1e4)
}

fn queries(report: &Report, area: &Area<'_>) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let names: Vec<&str> = report.queries.iter().map(|q| q.name.as_str()).collect();
    let values =
        report.queries.iter().flat_map(|q| &q.columns).filter(|(name, _)| SHOWN.iter().any(|s| s.0 == name.as_str()));
    let y = range(values.flat_map(|(_, c)| [c.wall.value, c.wall.lower, c.wall.upper]));
    let track = format!("{:?}", report.track).to_lowercase();
    let title = format!("{} scale {}, {track}: wall time ÷ plain DataFusion", report.workload.name(), report.scale);
    let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(-0.7..names.len() as f64 - 0.3, y.clone().log_scale().with_key_points(TICKS.to_vec()))?;
    let label = |x: &f64| {
        names.get(x.round() as usize).filter(|_| (x - x.round()).abs() < 0.01 && *x > -0.5).map_or("", |n| n).to_owned()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(names.len() + 2)
        .x_label_formatter(&label)
        .y_label_formatter(&|v| format!("{v:.2}"))
        .y_desc("ratio, below 1 is faster")
        .draw()?;
    one(&mut chart, names.len() as f64)?;
    for (column, legend, colour, beside) in SHOWN {
        let points: Vec<(f64, crate::stats::Estimate)> = report
            .queries
            .iter()
            .enumerate()
            .filter_map(|(i, q)| Some((i as f64 + beside, q.columns.get(column)?.wall)))
            .filter(|(_, e)| e.value.is_finite() && e.value > 0.0)
            .collect();
        if points.is_empty() {
            continue;
        }
        let bar = |(x, e): &(f64, crate::stats::Estimate)| {
            let ends = [(*x, e.lower.max(y.start)), (*x, e.upper.min(y.end))];
            PathElement::new(ends.to_vec(), colour.stroke_width(2))
        };
        chart.draw_series(points.iter().map(bar))?;
        chart
            .draw_series(points.iter().map(|(x, e)| Circle::new((*x, e.value), 3, colour.filled())))?
            .label(legend)
            .legend(move |(x, y)| Circle::new((x + 8, y), 4, colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// The line at which both take the same time.
fn one(chart: &mut Chart<'_, '_>, to: f64) -> std::result::Result<(), Box<dyn std::error::Error>> {
    chart.draw_series(LineSeries::new([(-0.7, 1.0), (to, 1.0)], BLACK.mix(0.5)))?;
    Ok(())
}

fn days(report: &Report, area: &Area<'_>) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let values =
        report.by_day.iter().flat_map(|d| &d.wall).filter(|(name, _)| SHOWN.iter().any(|s| s.0 == name.as_str()));
    let mut chart: Chart<'_, '_> = ChartBuilder::on(area)
        .caption("all queries of a day: wall time ÷ plain DataFusion", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(
            0.5..f64::from(report.days) + 0.5,
            range(values.map(|(_, v)| *v)).log_scale().with_key_points(TICKS.to_vec()),
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(report.days as usize + 1)
        .x_label_formatter(&|v| if (v - v.round()).abs() < 0.01 { format!("{v:.0}") } else { String::new() })
        .y_label_formatter(&|v| format!("{v:.2}"))
        .x_desc("day")
        .draw()?;
    one(&mut chart, f64::from(report.days) + 0.5)?;
    for (column, legend, colour, _) in SHOWN {
        let points: Vec<(f64, f64)> =
            report.by_day.iter().filter_map(|d| Some((f64::from(d.day), *d.wall.get(column)?))).collect();
        if points.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(legend)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
