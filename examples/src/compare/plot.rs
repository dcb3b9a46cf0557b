//! The figures of several contests as a plot.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::full_palette::{BLUE_700, GREEN_700, GREY_700, ORANGE_800};

use super::contest::{Contest, Entry};
use super::way::Kind;

/// The part of the axis right of the last point, where the lines' names stand.
const LABEL_ROOM: f64 = 6.0;
/// How far apart names are at least, as a ratio of speeds.
const LABEL_GAP: f64 = 1.15;

/// Rows per second over the number of rows in a transaction, a line for each way.
///
/// # Errors
///
/// If the file cannot be written, or there is nothing to draw.
pub fn draw(contests: &[Contest], file: &Path) -> Result<()> {
    let trouble = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    let speed = |contest: &Contest, entry: &Entry| contest.speed(entry);
    let all = || contests.iter().flat_map(|contest| contest.entries.iter().map(move |entry| speed(contest, entry)));
    let (slowest, fastest) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let rows = || contests.iter().map(|contest| contest.rows as f64);
    let (fewest, most) = (rows().fold(f64::INFINITY, f64::min), rows().fold(0.0, f64::max));
    let Some(first) = contests.first().filter(|_| most > 0.0) else { return Err(trouble(&"there is nothing to draw")) };

    let area = SVGBackend::new(file, (960, 560)).into_drawing_area();
    area.fill(&WHITE).map_err(|error| trouble(&error))?;
    let title = format!("rows per second at {} ms of round-trip latency", first.latency.as_secs_f64() * 1e3);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d((fewest / 1.2..most * LABEL_ROOM).log_scale(), (slowest / 2.0..fastest * 2.0).log_scale())
        .map_err(|error| trouble(&error))?;
    let number = |value: &f64| format!("{value:.0}");
    chart
        .configure_mesh()
        .x_desc("rows in one transaction")
        .y_desc("rows per second")
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .draw()
        .map_err(|error| trouble(&error))?;
    let mut labels = Vec::new();
    for &way in first.scenario.ways {
        let points: Vec<(f64, f64)> = contests
            .iter()
            .flat_map(|contest| {
                let mine = contest.entries.iter().filter(|entry| entry.way.name == way.name);
                mine.map(|entry| (contest.rows as f64, speed(contest, entry)))
            })
            .collect();
        // Those that ask for no ids lie beside those that do.
        if way.name.contains("no ids") {
            continue;
        }
        let color = match way.kind {
            Kind::Plain => GREY_700,
            Kind::Bulk => BLUE_700,
            Kind::Batched => GREEN_700,
            Kind::Copy => ORANGE_800,
        };
        let Some(&last) = points.last() else { continue };
        labels.push((way.name, last, color));
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2))).map_err(|error| trouble(&error))?;
        chart
            .draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))
            .map_err(|error| trouble(&error))?;
    }
    // From the slowest up, each at its line or above the one below it.
    labels.sort_by(|(_, (_, one), _), (_, (_, other), _)| one.total_cmp(other));
    let mut lowest = 0.0;
    for (name, (x, y), color) in labels {
        let y = f64::max(y, lowest);
        lowest = y * LABEL_GAP;
        let label = Text::new(name, (x * 1.1, y), ("sans-serif", 14).into_font().color(&color));
        chart.draw_series(std::iter::once(label)).map_err(|error| trouble(&error))?;
    }
    area.present().map_err(|error| trouble(&error))
}
