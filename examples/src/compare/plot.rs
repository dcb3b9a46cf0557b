//! The figures of several contests as a plot.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::combinators::BindKeyPoints;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::contest::{Contest, Entry};
use super::scenario::Scenario;
use super::way::{Kind, Way};

/// In pixels.
const SIZE: (u32, u32) = (960, 560);
/// What is right of the plot, where the names of the lines stand.
const NAMES_WIDTH: u32 = 250;
/// From the end of a line to its name.
const TO_NAME: i32 = 26;
/// From one name to the next.
const NAME_HEIGHT: f64 = 17.0;
const FONT: &str = "sans-serif";
const FONT_SIZE: u32 = 16;

/// What a way did, as (number of rows, speed).
type Line = (Way, Vec<(f64, f64)>);

/// The speed over the number of rows in a transaction, a line for each way, both axes logarithmic.
///
/// # Errors
///
/// If the file cannot be written, or there is nothing to draw.
pub fn draw(contests: &[Contest], file: &Path) -> Result<()> {
    let trouble = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", file.display());
    let first = contests.first().ok_or_else(|| trouble(&"there is nothing to draw"))?;
    draw_lines(first, &lines(contests), file).map_err(|error| trouble(&error))
}

fn lines(contests: &[Contest]) -> Vec<Line> {
    let point = |contest: &Contest, entry: &Entry| (contest.rows as f64, contest.speed(entry));
    let line = |way: &Way| -> Line {
        let of_way = |contest: &Contest| {
            contest.entries.iter().find(|entry| entry.way.name == way.name).map(|entry| point(contest, entry))
        };
        (*way, contests.iter().filter_map(of_way).collect())
    };
    let ways = contests.first().map_or(&[] as &[Way], |contest| contest.scenario.ways);
    // Those that ask for no ids lie beside those that do.
    let shown = ways.iter().filter(|way| way.kind != Kind::BatchedNoIds);
    shown.map(line).filter(|(_, points)| !points.is_empty()).collect()
}

fn draw_lines(first: &Contest, lines: &[Line], file: &Path) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let mut rows: Vec<f64> = points().map(|point| point.0).collect();
    rows.sort_by(f64::total_cmp);
    rows.dedup();
    let (fewest, most) = (rows.first().copied().unwrap_or(1.0), rows.last().copied().unwrap_or(1.0));
    let slowest = points().map(|point| point.1).fold(f64::INFINITY, f64::min).log10().floor() as i32;
    let fastest = points().map(|point| point.1).fold(1.0, f64::max).log10().ceil() as i32;
    let speeds: Vec<f64> = (slowest..=fastest).map(|power| 10_f64.powi(power)).collect();

    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let Scenario { unit, counted, .. } = first.scenario;
    let latency = first.latency.as_secs_f64() * 1e3;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{unit} per second at {latency} ms of round-trip latency"), (FONT, FONT_SIZE + 6))
        .margin(12)
        .margin_right(NAMES_WIDTH)
        .x_label_area_size(50)
        .y_label_area_size(90)
        .build_cartesian_2d(
            (fewest / 1.2..most * 1.2).log_scale().with_key_points(rows),
            (10_f64.powi(slowest)..10_f64.powi(fastest)).log_scale().with_key_points(speeds),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style((FONT, FONT_SIZE))
        .x_desc(format!("{counted} in one transaction"))
        .y_desc(format!("{unit} per second"))
        .x_label_formatter(&|rows| grouped(*rows))
        .y_label_formatter(&|speed| grouped(*speed))
        .draw()?;
    for (way, points) in lines {
        let color = color(way.kind);
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled())))?;
    }

    let mut ends: Vec<(&Way, (i32, i32))> =
        lines.iter().filter_map(|(way, points)| points.last().map(|end| (way, chart.backend_coord(end)))).collect();
    ends.sort_by_key(|(_, end)| *end);
    for ends in ends.chunk_by(|(_, one), (_, other)| one.0 == other.0) {
        let heights: Vec<f64> = ends.iter().map(|(_, end)| f64::from(end.1)).collect();
        for ((way, end), height) in ends.iter().zip(spread(&heights, NAME_HEIGHT)) {
            let color = color(way.kind);
            let name = (end.0 + TO_NAME, height.round() as i32);
            area.draw(&PathElement::new([(end.0 + 5, end.1), (name.0 - 4, name.1)], color))?;
            let style = (FONT, FONT_SIZE).into_font().color(&color).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(way.name, name, style))?;
        }
    }
    area.present()
}

/// The colours of Okabe and Ito, which can be told apart by those who see fewer.
fn color(kind: Kind) -> RGBColor {
    match kind {
        Kind::Plain => RGBColor(0x59, 0x59, 0x59),
        Kind::Bulk => RGBColor(0x00, 0x72, 0xb2),
        Kind::Batched | Kind::BatchedNoIds => RGBColor(0xd5, 0x5e, 0x00),
        Kind::Copy => BLACK,
    }
}

/// `1000000` → `1,000,000`
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Heights as near to these, which ascend, as they can be with so much between them: those that are too near to each other
/// are centred on their mean.
fn spread(heights: &[f64], gap: f64) -> Vec<f64> {
    // Groups of neighbours: where the first stands, and how many there are.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for &height in heights {
        let (mut start, mut count) = (height, 1);
        while let Some(&(before, others)) =
            groups.last().filter(|(before, others)| before + gap * *others as f64 > start)
        {
            groups.pop();
            let all = others + count;
            start = (before * others as f64 + (start - gap * others as f64) * count as f64) / all as f64;
            count = all;
        }
        groups.push((start, count));
    }
    groups.into_iter().flat_map(|(start, count)| (0..count).map(move |at| start + gap * at as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_overlap_are_spread_around_where_they_belong() {
        assert_eq!(spread(&[10.0, 50.0], 20.0), [10.0, 50.0]);
        assert_eq!(spread(&[50.0, 50.0, 50.0], 20.0), [30.0, 50.0, 70.0]);
        // The two in the middle push the first up and the last down.
        assert_eq!(spread(&[40.0, 55.0, 55.0, 70.0], 20.0), [25.0, 45.0, 65.0, 85.0]);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([100.0, 1_000.0, 1e6].map(grouped), ["100", "1,000", "1,000,000"]);
    }
}
