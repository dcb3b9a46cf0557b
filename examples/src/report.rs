//! The comparison that the programs print: what each run cost, and whether they stored the same.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use batch_support::Database;

use crate::measure::Cost;
use crate::schema::TABLES;

/// One way of doing the import, done.
#[derive(Debug)]
pub struct Run {
    /// The connection's type.
    pub name: &'static str,
    /// How many rows were imported.
    pub rows: usize,
    /// Connecting, and turning batching on.
    pub start_up: Cost,
    /// The import, `BEGIN` and `COMMIT` included.
    pub import: Cost,
}

impl Run {
    /// How many times faster than `other` this import was.
    #[must_use]
    pub fn speed_up_over(&self, other: &Run) -> f64 {
        other.import.time.as_secs_f64() / self.import.time.as_secs_f64()
    }
}

/// A table with a line for each run, then the start-up of each; the first run is what the others are compared with.
pub struct Comparison<'a>(pub &'a [Run]);

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else {
            return Ok(());
        };
        let width = self.0.iter().map(|run| run.name.len()).max().unwrap_or_default();

        writeln!(
            f,
            "{:width$} {:>8} {:>12} {:>12} {:>9} {:>9} {:>9}",
            "import", "rows", "statements", "round trips", "seconds", "rows/s", "speed-up"
        )?;
        for run in self.0 {
            let seconds = run.import.time.as_secs_f64();
            writeln!(
                f,
                "{:width$} {:>8} {:>12} {:>12} {:>9.3} {:>9.0} {:>9}",
                run.name,
                run.rows,
                run.import.wire.statements,
                run.import.wire.round_trips,
                seconds,
                run.rows as f64 / seconds,
                Times(run.speed_up_over(first)).to_string(),
            )?;
        }
        writeln!(f)?;
        for run in self.0 {
            writeln!(
                f,
                "start-up, not counted above: {:width$} {:.3} s, {} round trips",
                run.name,
                run.start_up.time.as_secs_f64(),
                run.start_up.wire.round_trips,
            )?;
        }
        Ok(())
    }
}

/// Prints what the two runs cost and that their databases hold the same rows; the last line is the speed-up.
///
/// # Errors
///
/// If the rows differ, or standard output is closed.
pub fn print(latency: Duration, plain: (Run, &Database), batched: (Run, &Database)) -> Result<()> {
    let speed_up = Times(batched.0.speed_up_over(&plain.0));
    let mut out = std::io::stdout();
    writeln!(out, "{} ms of round-trip latency\n", latency.as_secs_f64() * 1e3)?;
    writeln!(out, "{}", Comparison(&[plain.0, batched.0]))?;
    let rows = same_rows(plain.1, batched.1)?;
    writeln!(out, "same rows in both databases: {rows} compared, ids and foreign keys included\n")?;
    writeln!(out, "speed-up: {speed_up}")?;
    Ok(())
}

/// A ratio as people say it: `1.4×`, `112×`.
pub struct Times(pub f64);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = if self.0 < 9.95 { 1 } else { 0 };
        write!(f, "{:.decimals$}×", self.0)
    }
}

/// A ratio as people say it where it is near to one: `+1.3 %`.
pub struct Change(pub f64);

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:+.1} %", 100.0 * (self.0 - 1.0))
    }
}

/// Compares every row of the three tables, ids and foreign keys included, and returns how many there are.
///
/// The databases are read one after the other, as a server that serves a single connection demands.
///
/// # Errors
///
/// If the rows differ; the error names the first that does.
pub fn same_rows(left: &Database, right: &Database) -> Result<usize> {
    let (left, right) = (Rows::read(left), Rows::read(right));
    let mut count = 0;
    for ((table, left), right) in TABLES.iter().zip(&left.0).zip(&right.0) {
        if let Some((at, one, other)) = difference(left, right) {
            bail!("the databases differ at row {at} of {table}:\n  {one}\n  {other}");
        }
        count += left.len();
    }
    Ok(count)
}

/// The first row in which the two differ, counted from 1, as it is in either.
#[must_use]
pub fn difference<'a>(left: &'a [String], right: &'a [String]) -> Option<(usize, &'a str, &'a str)> {
    let row = |rows: &'a [String], at: usize| rows.get(at).map_or("no such row", String::as_str);
    let at = (0..left.len().max(right.len())).find(|&at| left.get(at) != right.get(at))?;
    Some((at + 1, row(left, at), row(right, at)))
}

/// The rows of each table in the order of their ids.
struct Rows([Vec<String>; TABLES.len()]);

impl Rows {
    fn read(database: &Database) -> Self {
        Self(TABLES.map(|table| {
            // As JSON, so that a difference shows the columns' names, and NULL differs from ''.
            let sql = format!("SELECT row_to_json(t)::text FROM {table} t ORDER BY id");
            database.query(&sql).into_iter().flatten().flatten().collect()
        }))
    }
}
