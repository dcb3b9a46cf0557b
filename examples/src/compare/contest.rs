//! Runs the ways in turn, each in a process of its own: so its peak memory is its own, and nothing that one leaves behind
//! helps or hinders the next.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use batch_support::{Database, Proxy, Wire, peak_memory};

use super::ways::{Job, Kind, SCHEMA, WAYS, Way};

/// Above so many rows, row by row takes minutes and is left out.
pub const MAX_PLAIN_ROWS: usize = 100_000;

/// What one way cost, over all rounds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which way.
    pub way: Way,
    /// Of each round, sorted.
    pub times: Vec<Duration>,
    /// Of the last round; all are alike.
    pub wire: Wire,
    /// The most memory that the process used in any round, in KiB; `None` where the system does not tell.
    pub peak_memory: Option<u64>,
}

impl Entry {
    /// The median.
    pub fn time(&self) -> Duration {
        self.times[self.times.len() / 2]
    }

    /// Half of what lies between the fastest and the slowest round, as a part of the median.
    pub fn spread(&self) -> f64 {
        let (first, last) = (self.times[0], self.times[self.times.len() - 1]);
        (last - first).as_secs_f64() / 2.0 / self.time().as_secs_f64()
    }
}

/// All ways with so many rows over a connection of this latency.
#[derive(Clone, Debug)]
pub struct Contest {
    /// Rows in the transaction that is measured.
    pub rows: usize,
    /// Of a round trip, in addition to loopback's own.
    pub latency: Duration,
    /// In the order of [`WAYS`].
    pub entries: Vec<Entry>,
}

impl Contest {
    /// Runs every way `rounds` times, in turn. Each begins with an empty table and checks what it stored.
    ///
    /// # Errors
    ///
    /// Those of a way, with its name.
    pub fn hold(rows: usize, latency: Duration, rounds: usize) -> Result<Self> {
        let database = Database::create();
        database.execute(SCHEMA);
        let proxy = Proxy::start(database.url(), latency);
        let ways = WAYS.into_iter().filter(|way| way.kind != Kind::Plain || rows <= MAX_PLAIN_ROWS);
        let mut entries: Vec<Entry> =
            ways.map(|way| Entry { way, times: Vec::new(), wire: Wire::default(), peak_memory: None }).collect();
        for round in 1..=rounds {
            for entry in &mut entries {
                eprintln!("{rows} rows, round {round} of {rounds}: {}", entry.way.name);
                database.execute("TRUNCATE users");
                database.execute("CHECKPOINT");
                let (time, peak) = in_a_process(entry, rows, &proxy)?;
                let stored = database.query("SELECT count(*), count(DISTINCT id), sum(age) FROM users");
                check(entry.way, rows, &stored)?;
                entry.times.push(time);
                entry.peak_memory = entry.peak_memory.max(peak);
            }
        }
        for entry in &mut entries {
            entry.times.sort();
        }
        Ok(Self { rows, latency, entries })
    }

    /// What the way is compared with: row by row with the same ORM.
    pub fn plain(&self, way: Way) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.way.name == way.plain)
    }

    /// The limit.
    pub fn copy(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.way.kind == Kind::Copy)
    }
}

/// Whether the rows of the warm-up and the others are there, each with an id of its own.
fn check(way: Way, rows: usize, stored: &[Vec<Option<String>>]) -> Result<()> {
    let sum_to = |rows: usize| rows * rows.saturating_sub(1) / 2;
    let count = rows + super::ways::WARM_UP;
    let expected = [count, count, sum_to(rows) + sum_to(super::ways::WARM_UP)].map(|number| Some(number.to_string()));
    if stored != [expected.to_vec()] {
        bail!("{}: the table holds {stored:?} and not {expected:?}", way.name);
    }
    Ok(())
}

/// Runs the way in this program, started anew, which ends up in [`serve`].
fn in_a_process(entry: &mut Entry, rows: usize, proxy: &Proxy) -> Result<(Duration, Option<u64>)> {
    let program = std::env::current_exe()?;
    let mut child = Command::new(program)
        .args(["--way", entry.way.name, "--rows", &rows.to_string(), "--url", proxy.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let talk = |child: &mut Child| -> Result<String> {
        let mut input = child.stdin.take().context("no pipe to the process")?;
        let mut output = BufReader::new(child.stdout.take().context("no pipe from the process")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("the process ended before it was ready");
        }
        proxy.reset();
        writeln!(input, "go")?;
        line.clear();
        output.read_line(&mut line)?;
        Ok(line)
    };
    let said = talk(&mut child);
    let wire = proxy.wire();
    let status = child.wait()?;
    let said = said.with_context(|| entry.way.name.to_owned())?;
    let mut words = said.split_whitespace();
    let micros: Option<u64> = words.next().and_then(|word| word.parse().ok());
    let Some(micros) = micros.filter(|_| status.success()) else {
        bail!("{}: the process failed ({status}); its error is above", entry.way.name);
    };
    entry.wire = wire;
    Ok((Duration::from_micros(micros), words.next().and_then(|word| word.parse().ok())))
}

/// The other side of [`Contest::hold`]: does one way and prints the microseconds that it took and the peak memory.
///
/// # Errors
///
/// Those of the way, and an unknown name.
pub fn serve(way: &str, rows: usize, url: &str) -> Result<()> {
    let way = Way::named(way).with_context(|| format!("there is no way {way:?}"))?;
    let mut out = std::io::stdout();
    let mut ready = || -> Result<()> {
        writeln!(std::io::stdout(), "ready")?;
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        Ok(())
    };
    let time = way.run(Job { url, rows, ready: &mut ready })?;
    let peak = peak_memory().map(|kib| kib.to_string()).unwrap_or_default();
    writeln!(out, "{} {peak}", time.as_micros())?;
    Ok(())
}
