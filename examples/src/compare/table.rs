//! The figures of a contest as a table in Markdown.

use std::fmt;

use super::contest::{Contest, Entry};
use super::scenario::Goal;
use crate::report::{Change, Times};

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let medians = medians(self.entries.first().map_or(0, |entry| entry.times.len()));
        let latency = self.latency.as_secs_f64() * 1e3;
        writeln!(f, "{} {} at {latency} ms; {medians}", self.rows, self.scenario.counted)?;
        writeln!(f)?;
        let lines: Vec<Vec<String>> =
            std::iter::once(self.heads()).chain(self.entries.iter().map(|entry| self.line(entry))).collect();
        markdown(f, &lines)?;
        if let Some(yardstick) = self.scenario.yardstick {
            writeln!(f, "\n{}: {:.2} ms", yardstick.name, self.yardstick.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

/// What figures of so many rounds are.
pub(super) fn medians(rounds: usize) -> String {
    if rounds == 1 { "one round".to_owned() } else { format!("medians of {rounds} rounds") }
}

/// A table of these lines, of which the first are the heads.
pub(super) fn markdown(f: &mut fmt::Formatter<'_>, lines: &[Vec<String>]) -> fmt::Result {
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or_default())
        .collect();
    for (number, line) in lines.iter().enumerate() {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            if at == 0 { write!(f, "| {cell:<width$} |")? } else { write!(f, " {cell:>width$} |")? }
        }
        writeln!(f)?;
        if number == 0 {
            rule(f, &widths)?;
        }
    }
    Ok(())
}

/// What lies under the heads: the names to the left, figures to the right.
fn rule(f: &mut fmt::Formatter<'_>, widths: &[usize]) -> fmt::Result {
    for (at, width) in widths.iter().enumerate() {
        if at == 0 { write!(f, "| {} |", "-".repeat(*width))? } else { write!(f, " {}: |", "-".repeat(width - 1))? }
    }
    writeln!(f)
}

impl Contest {
    fn heads(&self) -> Vec<String> {
        let speed = format!("{}/s", self.scenario.unit);
        let mut heads: Vec<String> =
            ["", "seconds", "±", &speed, "statements", "round trips", "peak MiB"].map(str::to_owned).into();
        heads.push(match self.scenario.goal {
            Goal::Faster => "× plain".to_owned(),
            Goal::NotSlower => "than plain".to_owned(),
        });
        if self.copy().is_some() {
            heads.push("× COPY's time".to_owned());
        }
        heads
    }

    fn line(&self, entry: &Entry) -> Vec<String> {
        let seconds = entry.time().as_secs_f64();
        let nothing = || "–".to_owned();
        let to_plain = self.plain(entry.way).map(|plain| match self.scenario.goal {
            Goal::Faster => Times(plain.time().as_secs_f64() / seconds).to_string(),
            Goal::NotSlower => Change(entry.ratio_to(plain)).to_string(),
        });
        let mut line = vec![
            entry.way.name.to_owned(),
            format!("{seconds:.4}"),
            format!("{:.0} %", 100.0 * entry.spread()),
            format!("{:.0}", self.speed(entry)),
            entry.wire.statements.to_string(),
            entry.wire.round_trips.to_string(),
            entry.peak_memory.map_or_else(nothing, |kib| format!("{:.1}", kib as f64 / 1024.0)),
            to_plain.unwrap_or_else(nothing),
        ];
        line.extend(self.copy().map(|copy| Times(seconds / copy.time().as_secs_f64()).to_string()));
        line
    }
}
