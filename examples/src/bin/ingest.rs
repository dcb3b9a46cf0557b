//! Ingests a million features in a process of its own that may take 256 MiB, kills it half-way, starts it again, and checks
//! that every row is there once.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use batch_examples::cli::{limited, progress_bar};
use batch_examples::genbank;
use batch_examples::ingestion::{self, features_of_a_copy, items, organisms};
use batch_support::{Database, Server, peak_memory};
use indicatif::ProgressBar;

const HELP: &str = "\
Ingests GenBank files over and over into three tables: a file is parsed while the batch before is committed. It does so in a
process of its own that may take 256 MiB, kills that half-way (kill -9), starts it again, and checks that every row is there once.

Usage: ingest [--features <N>]

Options:
      --features <N>  At least so many [default: 1000000]
  -h, --help          Print this help

Postgres is taken from DATABASE_URL, else from Docker, else from the machine's own server binaries, else
an embedded one; which one it was is printed. The run has a fresh database of its own, dropped at the end.
";

/// Of private memory.
const LIMIT_KIB: usize = 256 << 10;

const DIFFERENT_SQL: &str = "
SELECT count(*) FROM (
    SELECT name FROM (
        SELECT split_part(accession, '#', 1) AS name, count(f.id) AS features, md5(string_agg(location, ' ' ORDER BY f.id)) AS locations
        FROM sequences s LEFT JOIN features f ON f.sequence_id = s.id GROUP BY s.id
    ) AS each
    GROUP BY name HAVING count(DISTINCT (features, locations)) > 1
) AS different";

struct Arguments {
    features: usize,
    /// The process is the one that ingests.
    url: Option<String>,
}

fn main() -> Result<()> {
    let Some(Arguments { features, url }) = arguments()? else {
        write!(std::io::stdout(), "{HELP}")?;
        return Ok(());
    };
    let of_a_copy = features_of_a_copy()?;
    let copies = features.div_ceil(of_a_copy);
    match url {
        Some(url) => work(&url, copies),
        None => supervise(copies, copies * of_a_copy),
    }
}

fn arguments() -> Result<Option<Arguments>> {
    use lexopt::prelude::*;

    let mut arguments = Arguments { features: 1_000_000, url: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("features") => arguments.features = parser.value()?.parse()?,
            Long("url") => arguments.url = Some(parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(None),
            other => bail!("{}; try --help", other.unexpected()),
        }
    }
    Ok(Some(arguments))
}

/// Ingests, and tells of each batch on a line of its own.
fn work(url: &str, copies: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(ingestion::ingest(url, copies, |done| println!("committed {}", done.rows)))?;
    println!("done {} {} {}", report.items, report.skipped, peak_memory().unwrap_or_default());
    Ok(())
}

/// What a run of the process told.
struct Run {
    rows: usize,
    /// Items, items skipped, and peak memory in KiB, if it came to its end.
    end: Option<[u64; 3]>,
    seconds: f64,
}

fn supervise(copies: usize, features: usize) -> Result<()> {
    Server::try_shared()?;
    let database = Database::create();
    database.execute(ingestion::SQL);
    let all_items = items(copies).count();
    let sequences = copies * genbank::records()?.len();
    let rows = features + sequences;

    let bar = progress_bar("ingest, killed half-way", rows)?;
    let first = run(&database, features, &bar, Some(rows / 2))?;
    ensure!(first.end.is_none(), "the first run came to its end before it was killed: try more --features");
    let marked = count(&database, "SELECT count(*) FROM batch_ingest_marks")?;
    bar.set_prefix("ingest, again");
    let second = run(&database, features, &bar, None)?;
    let [ingested, skipped, peak] = second.end.context("the second run did not come to its end")?;
    bar.finish();

    println!("killed after {} of {rows} rows, with {marked} of {all_items} files marked as done", first.rows);
    println!(
        "started again: {skipped} files skipped, {ingested} ingested, {} rows in {:.1} s ({:.0} rows/s)",
        second.rows,
        second.seconds,
        second.rows as f64 / second.seconds
    );
    println!(
        "peak memory of the second run: {:.0} MiB, of {} MiB that it may take",
        peak as f64 / 1024.0,
        LIMIT_KIB >> 10
    );

    ensure!(skipped as usize >= marked && ingested + skipped == all_items as u64, "not every file was met once");
    for (what, expected, sql) in [
        ("features", features, "SELECT count(*) FROM features"),
        ("sequences", sequences, "SELECT count(*) FROM sequences"),
        ("organisms", organisms()?, "SELECT count(*) FROM organisms"),
        ("names of sequences", sequences, "SELECT count(DISTINCT accession) FROM sequences"),
        ("marks", all_items, "SELECT count(*) FROM batch_ingest_marks"),
        ("sequences that differ from their other copies", 0, DIFFERENT_SQL),
    ] {
        let stored = count(&database, sql)?;
        ensure!(stored == expected, "{what}: {stored} are stored, and {expected} should be");
    }
    println!("every row once: {features} features of {sequences} sequences");
    Ok(())
}

fn count(database: &Database, sql: &str) -> Result<usize> {
    let rows = database.query(sql);
    let count = rows.first().and_then(|row| row.first()).and_then(|value| value.as_deref());
    count.and_then(|count| count.parse().ok()).with_context(|| format!("{sql} gave no number"))
}

/// Runs the process, to its end or until it has committed so many rows.
fn run(database: &Database, features: usize, bar: &ProgressBar, kill_after: Option<usize>) -> Result<Run> {
    let start = Instant::now();
    let mut child = start_limited(database, features)?;
    let said = BufReader::new(child.stdout.take().context("the process has no output")?);
    let mut run = Run { rows: 0, end: None, seconds: 0.0 };
    for line in said.lines() {
        let line = line?;
        match line.split_once(' ') {
            Some(("committed", rows)) => {
                let rows: usize = rows.parse()?;
                run.rows += rows;
                bar.inc(rows as u64);
            }
            Some(("done", figures)) => {
                let figures: Vec<u64> = figures.split(' ').map(str::parse).collect::<Result<_, _>>()?;
                run.end = Some(figures.try_into().map_err(|_| anyhow::anyhow!("{line:?} was not understood"))?);
            }
            _ => bail!("{line:?} was not understood"),
        }
        if kill_after.is_some_and(|rows| run.rows >= rows) {
            // SIGKILL: nothing of the process' own runs any more.
            child.kill()?;
            break;
        }
    }
    run.seconds = start.elapsed().as_secs_f64();
    let status = child.wait()?;
    ensure!(status.success() || kill_after.is_some(), "the process failed ({status}); its error is above");
    Ok(run)
}

fn start_limited(database: &Database, features: usize) -> Result<Child> {
    let mut command = limited(&std::env::current_exe()?, LIMIT_KIB);
    command.args(["--features", &features.to_string(), "--url", database.url()]);
    Ok(command.stdout(Stdio::piped()).spawn()?)
}
