//! What the benchmarks have in common.

use std::time::Duration;

use batch_support::peak_memory;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The middle one.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// A line of the table: the time, and how it compares with `base`.
pub(crate) fn report(what: &str, time: Duration, base: Duration, rows: usize) {
    let seconds = time.as_secs_f64();
    println!(
        "{what:<32} {seconds:>8.3} s {:>9.2} µs/row {:>7.2}×",
        1e6 * seconds / rows as f64,
        base.as_secs_f64() / seconds
    );
}

/// A size from the environment.
pub(crate) fn from_env(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(value) => Ok(value.parse().map_err(|_| format!("{name} is not a number: {value:?}"))?),
        Err(_) => Ok(default),
    }
}

/// The peak of this process' memory, as the tables show it.
pub(crate) fn peak() -> String {
    peak_memory().map_or_else(|| "unknown".to_owned(), |kib| format!("{kib} KiB"))
}
