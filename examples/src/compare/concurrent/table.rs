//! The figures of a trial as a table in Markdown.

use std::fmt;

use super::trial::{Entry, Figures, Trial, of_pool};
use crate::compare::table::{markdown, medians};
use crate::report::Change;

const HEADS: [&str; 10] = [
    "",
    "inserts/s",
    "±",
    "p50 ms",
    "p99 ms",
    "rows/statement",
    "× plain",
    "lower quartile",
    "p50 than plain",
    "p99 than plain",
];

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, clients, pool, settings, entries } = self;
        let latency = rules.latency.as_secs_f64() * 1e3;
        let (medians, seconds) = (medians(rules.rounds), rules.time.as_secs_f64());
        let duplicates = match rules.duplicates {
            0 => String::new(),
            percent => format!(", {percent} % of the texts taken"),
        };
        let pool = of_pool(*pool);
        writeln!(f, "{clients} clients{pool} at {latency} ms{duplicates}, {settings}; {medians} of {seconds} s")?;
        writeln!(f)?;
        let heads = HEADS.map(str::to_owned).into();
        let lines: Vec<Vec<String>> =
            std::iter::once(heads).chain(entries.iter().map(|entry| self.line(entry))).collect();
        markdown(f, &lines)
    }
}

impl Trial {
    fn line(&self, entry: &Entry) -> Vec<String> {
        let p50 = |figures: &Figures| figures.p50.as_secs_f64();
        let p99 = |figures: &Figures| figures.p99.as_secs_f64();
        let plain = self.plain(entry.way).filter(|_| !entry.way.is_plain);
        let nothing = || "–".to_owned();
        let than_plain = |figure: fn(&Figures) -> f64| {
            plain.map_or_else(nothing, |plain| Change(entry.ratio_to(plain, figure)).to_string())
        };
        let groups = entry.median(|figures| figures.rows_of_statement.unwrap_or_default());
        vec![
            entry.way.name.to_owned(),
            format!("{:.0}", entry.median(|figures| figures.rows)),
            format!("{:.0} %", 100.0 * entry.spread()),
            format!("{:.2}", 1e3 * entry.median(p50)),
            format!("{:.2}", 1e3 * entry.median(p99)),
            if entry.way.is_plain { nothing() } else { format!("{groups:.1}") },
            plain.map_or_else(nothing, |plain| format!("{:.2}×", entry.ratio_to(plain, |figures| figures.rows))),
            plain.map_or_else(nothing, |plain| {
                format!("{:.2}×", entry.lower_quartile_to(plain, |figures| figures.rows))
            }),
            than_plain(p50),
            than_plain(p99),
        ]
    }
}
