//! Runs the ways in turn, each in a process of its own: so its peak memory is its own, and nothing that one leaves behind
//! helps or hinders the next.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use batch_support::{Database, Proxy, Wire, peak_memory};

use super::scenario::Scenario;
use super::way::{Job, Kind, WARM_UP, Way};
use crate::cli::limited;
use crate::report::difference;

/// How a contest is held.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Of a round trip, in addition to loopback's own.
    pub latency: Duration,
    /// How often each way runs.
    pub rounds: usize,
    /// Above so many rows, row by row is left out.
    pub row_by_row_up_to: usize,
}

/// What one way cost, over all rounds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which way.
    pub way: Way,
    /// Of each round.
    pub times: Vec<Duration>,
    /// Of one round; all are alike.
    pub wire: Wire,
    /// The most memory that the process used in any round, in KiB; `None` where the system does not tell.
    pub peak_memory: Option<u64>,
}

impl Entry {
    fn without_figures(way: Way) -> Self {
        Self { way, times: Vec::new(), wire: Wire::default(), peak_memory: None }
    }

    /// The median.
    pub fn time(&self) -> Duration {
        median(self.times.iter().copied(), Duration::cmp)
    }

    /// Half of what lies between the fastest and the slowest round, as a part of the median.
    pub fn spread(&self) -> f64 {
        let fastest = self.times.iter().min().copied().unwrap_or_default();
        let slowest = self.times.iter().max().copied().unwrap_or_default();
        (slowest - fastest).as_secs_f64() / 2.0 / self.time().as_secs_f64()
    }

    /// The median of the rounds' ratios to those of `other`: a noisy minute hits both.
    pub fn ratio_to(&self, other: &Entry) -> f64 {
        let rounds = self.times.iter().zip(&other.times);
        median(rounds.map(|(mine, other)| mine.as_secs_f64() / other.as_secs_f64()), f64::total_cmp)
    }
}

/// The middle one.
pub(super) fn median<T: Copy + Default>(values: impl Iterator<Item = T>, order: fn(&T, &T) -> std::cmp::Ordering) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_by(order);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// All ways of a scenario with so many rows over a connection of this latency.
#[derive(Clone, Debug)]
pub struct Contest {
    /// What is done.
    pub scenario: Scenario,
    /// How much of it in the transaction that is measured.
    pub rows: usize,
    /// Of a round trip, in addition to loopback's own.
    pub latency: Duration,
    /// What the scenario's yardstick says, or zero.
    pub yardstick: Duration,
    /// In the order of the scenario's ways.
    pub entries: Vec<Entry>,
}

impl Contest {
    /// Runs every way in turn, every other round from the last to the first. Each begins with the same tables, and what it
    /// stored is checked.
    ///
    /// Without latency the proxy that counts would be most of a round trip. It then has a round of its own, before those that
    /// are timed.
    ///
    /// # Errors
    ///
    /// Those of a way, with its name.
    pub fn hold(scenario: Scenario, rows: usize, rules: Rules) -> Result<Self> {
        let course = Course::new(scenario, rows, rules.latency)?;
        let takes_part = |way: &Way| way.kind != Kind::Plain || rows <= rules.row_by_row_up_to;
        let mut entries: Vec<Entry> =
            scenario.ways.iter().copied().filter(takes_part).map(Entry::without_figures).collect();
        let url = if rules.latency.is_zero() {
            for entry in &mut entries {
                course.run(entry, course.proxy.url(), "counting")?;
            }
            course.database.url()
        } else {
            course.proxy.url()
        };
        for at in 1..=rules.rounds {
            let round = format!("round {at} of {}", rules.rounds);
            for entry in &mut entries {
                let time = course.run(entry, url, &round)?;
                entry.times.push(time);
            }
            // The next one goes the other way.
            entries.reverse();
        }
        if rules.rounds % 2 == 1 {
            entries.reverse();
        }
        Ok(Self { scenario, rows, latency: rules.latency, yardstick: course.yardstick, entries })
    }

    /// What the way is compared with: row by row with the same ORM.
    pub fn plain(&self, way: Way) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.way.name == way.plain)
    }

    /// The limit.
    pub fn copy(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.way.kind == Kind::Copy)
    }

    /// How many of the scenario's units the entry did per second.
    pub fn speed(&self, entry: &Entry) -> f64 {
        (self.rows * self.scenario.each) as f64 / entry.time().as_secs_f64()
    }
}

/// Where a contest takes place.
struct Course {
    scenario: Scenario,
    rows: usize,
    /// What every way has to leave.
    expected: Vec<String>,
    yardstick: Duration,
    database: Database,
    proxy: Proxy,
}

impl Course {
    fn new(scenario: Scenario, rows: usize, latency: Duration) -> Result<Self> {
        let database = Database::create();
        database.execute(scenario.schema);
        let proxy = Proxy::start(database.url(), latency);
        let url = if latency.is_zero() { database.url() } else { proxy.url() };
        let yardstick = scenario.yardstick.map_or(Ok(Duration::ZERO), |yardstick| (yardstick.measure)(url))?;
        Ok(Self { scenario, rows, expected: (scenario.expected)(WARM_UP + rows), yardstick, database, proxy })
    }

    /// Runs the entry's way once, over the proxy or straight to the server, and checks what it stored; how long it took.
    fn run(&self, entry: &mut Entry, url: &str, round: &str) -> Result<Duration> {
        let way = entry.way;
        eprintln!("{} {}, {round}: {}", self.rows, self.scenario.counted, way.name);
        self.database.execute(self.scenario.reset);
        self.database.execute("CHECKPOINT");
        let (time, peak) = self.in_a_process(way, url)?;
        if url == self.proxy.url() {
            entry.wire = self.proxy.wire();
        }
        entry.peak_memory = entry.peak_memory.max(peak);
        let stored: Vec<String> = self.database.query(self.scenario.stored).into_iter().flatten().flatten().collect();
        if let Some((at, stored, expected)) = difference(&stored, &self.expected) {
            bail!("{}: row {at} is not as it should be:\n  {stored}\n  {expected}", way.name);
        }
        Ok(time)
    }

    /// Runs the way in this program, started anew, which ends up in [`serve`]; the time that it took and its peak memory.
    fn in_a_process(&self, way: Way, url: &str) -> Result<(Duration, Option<u64>)> {
        let program = std::env::current_exe()?;
        let mut command = match self.scenario.memory_limit {
            Some(kib) => limited(&program, kib),
            None => Command::new(program),
        };
        let [rows, yardstick] = [self.rows as u128, self.yardstick.as_micros()].map(|number| number.to_string());
        let mut child = command
            .args(["--scenario", self.scenario.name, "--way", way.name, "--rows", &rows, "--url", url])
            .args(["--yardstick-us", &yardstick])
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
            self.proxy.reset();
            writeln!(input, "go")?;
            line.clear();
            output.read_line(&mut line)?;
            Ok(line)
        };
        let said = talk(&mut child);
        let status = child.wait()?;
        let said = said.with_context(|| way.name.to_owned())?;
        let mut words = said.split_whitespace();
        let micros: Option<u64> = words.next().and_then(|word| word.parse().ok());
        let Some(micros) = micros.filter(|_| status.success()) else {
            bail!("{}: the process failed ({status}); its error is above", way.name);
        };
        Ok((Duration::from_micros(micros), words.next().and_then(|word| word.parse().ok())))
    }
}

/// The other side of [`Contest::hold`]: does one way and prints the microseconds that it took and the peak memory.
///
/// # Errors
///
/// Those of the way, and an unknown name.
pub fn serve(scenario: Scenario, way: &str, rows: usize, yardstick: Duration, url: &str) -> Result<()> {
    let way = scenario.way(way).with_context(|| format!("there is no way {way:?}"))?;
    let mut ready = || -> Result<()> {
        writeln!(std::io::stdout(), "ready")?;
        std::io::stdout().flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        Ok(())
    };
    let time = way.run(Job { url, rows, yardstick, ready: &mut ready })?;
    let peak = peak_memory().map(|kib| kib.to_string()).unwrap_or_default();
    writeln!(std::io::stdout(), "{} {peak}", time.as_micros())?;
    Ok(())
}
