//! The figures of a contest as a table in Markdown.

use std::fmt;

use super::contest::{Contest, Entry};
use crate::report::Times;

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.entries.first().map_or(0, |entry| entry.times.len());
        writeln!(f, "{} rows at {} ms; medians of {rounds} rounds", self.rows, self.latency.as_secs_f64() * 1e3)?;
        writeln!(f)?;
        let heads = ["", "seconds", "±", "rows/s", "statements", "round trips", "peak MiB", "× plain", "× COPY's time"];
        let lines: Vec<[String; 9]> = self.entries.iter().map(|entry| self.line(entry)).collect();
        let widths: Vec<usize> = (0..heads.len())
            .map(|at| {
                lines.iter().map(|line| line[at].chars().count()).chain([heads[at].chars().count()]).max().unwrap_or(0)
            })
            .collect();
        let write = |f: &mut fmt::Formatter<'_>, cells: &[&str]| -> fmt::Result {
            for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
                if at == 0 { write!(f, "| {cell:<width$} |")? } else { write!(f, " {cell:>width$} |")? }
            }
            writeln!(f)
        };
        write(f, &heads)?;
        let rules: Vec<String> = widths.iter().enumerate().map(|(at, width)| rule(at, *width)).collect();
        write(f, &rules.iter().map(String::as_str).collect::<Vec<_>>())?;
        for line in &lines {
            write(f, &line.each_ref().map(String::as_str))?;
        }
        Ok(())
    }
}

fn rule(at: usize, width: usize) -> String {
    if at == 0 { "-".repeat(width) } else { format!("{}:", "-".repeat(width.saturating_sub(1))) }
}

impl Contest {
    fn line(&self, entry: &Entry) -> [String; 9] {
        let seconds = entry.time().as_secs_f64();
        let faster = self.plain(entry.way).map(|plain| Times(plain.time().as_secs_f64() / seconds).to_string());
        let slower = self.copy().map(|copy| Times(seconds / copy.time().as_secs_f64()).to_string());
        let nothing = || "–".to_owned();
        [
            entry.way.name.to_owned(),
            format!("{seconds:.4}"),
            format!("{:.0} %", 100.0 * entry.spread()),
            format!("{:.0}", self.rows as f64 / seconds),
            entry.wire.statements.to_string(),
            entry.wire.round_trips.to_string(),
            entry.peak_memory.map_or_else(nothing, |kib| format!("{:.1}", kib as f64 / 1024.0)),
            faster.unwrap_or_else(nothing),
            slower.unwrap_or_else(nothing),
        ]
    }
}
