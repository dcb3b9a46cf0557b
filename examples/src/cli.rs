//! What the command lines of the programs have in common, and those with which they start themselves.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// The latency asked for by `--latency-ms`, or `None` if it was the help.
///
/// # Errors
///
/// If an argument is not understood.
pub fn latency() -> Result<Option<Duration>> {
    use lexopt::prelude::*;

    let mut latency = Duration::from_millis(3);
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("latency-ms") => latency = milliseconds(&args.value()?)?,
            Short('h') | Long("help") => return Ok(None),
            other => bail!("{}; try --help", other.unexpected()),
        }
    }
    Ok(Some(latency))
}

/// A number of milliseconds, which may have a fraction.
///
/// # Errors
///
/// If it is none.
pub fn milliseconds(value: &OsStr) -> Result<Duration> {
    value
        .to_str()
        .and_then(|ms| ms.parse::<f64>().ok())
        .and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok())
        .with_context(|| format!("--latency-ms takes a number of milliseconds, such as 3 or 0.5, not {value:?}"))
}

/// The program in a process that may take so many KiB of private memory, as the shell's `ulimit -d` counts it. Arguments that are
/// added are the program's.
pub fn limited(program: &Path, kib: usize) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -d {kib} && exec \"$0\" \"$@\"")).arg(program);
    command
}

/// On standard error; where that is no terminal, a line at the start takes the bar's place.
///
/// # Errors
///
/// None that is known of: the template is a fixed one.
pub fn progress_bar(name: &'static str, rows: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{prefix:34} {bar:40} {human_pos:>5}/{human_len} rows {elapsed:>4}")?;
    let bar = ProgressBar::new(rows as u64).with_style(style).with_prefix(name);
    if bar.is_hidden() {
        eprintln!("importing {rows} rows over {name}");
    }
    Ok(bar)
}
