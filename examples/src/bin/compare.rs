//! Measures every way of writing rows that users of Diesel, diesel-async and SeaORM have, in one run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use batch_examples::cli::milliseconds;
use batch_examples::compare::concurrent::{
    self,
    trial::{self, Trial},
};
use batch_examples::compare::contest::{self, Contest, Rules};
use batch_examples::compare::plot;
use batch_examples::compare::scenario::{SCENARIOS, Scenario};
use batch_support::Server;

const HELP: &str = "\
Does one piece of work in one transaction, in every way that Diesel, diesel-async, SeaORM and tokio-postgres have and with
batched inserts, each several times in turn and in a process of its own, and compares them.

Usage: compare [OPTIONS]

Options:
      --scenario <NAME>        What is done [default: table]
                                 table           N rows into one table
                                 annotations     N sequences, and 6 annotations that refer to each by its id
                                 find-or-create  N items, half of them repeated: SELECT by name, INSERT if it is not there
                                 selects         N SELECTs by primary key, which are to take no longer with batching
                                 ingestion       N rows through an expensive stage into transactions of 10,000, which is
                                                 overlapped with them or not; each process may take 256 MiB
                                 concurrent      single INSERTs outside of transactions, each committed on its own, by many
                                                 clients at a time, plain and with group commit
      --rows <N,…>             How many; several numbers make a series [default: 1000, for selects 3000, for ingestion 100000]
      --latency-ms <MS>        Round-trip time added to the connection, in milliseconds [default: 3, for selects and ingestion 0]
      --rounds <N>             How often each way is run [default: 5, for selects 31, for ingestion 3]
      --row-by-row-up-to <N>   Leaves the plain ways, row by row or not overlapped, out of larger numbers of rows, as at 3 ms
                               they take an hour for a million [default: 100000]
      --markdown <FILE>        Writes the tables to a file as well
      --plot <FILE.svg>        Draws the speed over the number of rows
      --durable                Has a server that is started here write as one that has to keep its data: fsync on
  -h, --help                   Print this help

Options of --scenario concurrent, which takes --latency-ms [default: 0], --rounds [default: 5], --markdown and --durable as well:
      --clients <N,…>          How many insert at the same time [default: 1,8,64,256]
      --seconds <S>            How long each way is measured in each round, after half a second that is not [default: 3]
      --orm <NAME>             diesel, diesel-async or seaorm alone [default: all]
      --pool <N,…>             Connections of a pool (r2d2, deadpool, sqlx) that clients take one from for each insert; several numbers
                               make a series [default: a connection for each client, and for SeaORM a pool of at most 64]
      --duplicates <PERCENT>   So many of the inserts fail, as a unique index has their text already [default: 0]
      --threads <N>            Worker threads of tokio [default: 2]
      --groups-per-table <N>   Groups of the table that are on their way at a time [default: by the server's distance]

Before the transaction that is measured, each way does 100 of the same in one of its own: statements are prepared and ids in
stock as in a service that has run for a while. Every other round goes from the last way to the first. After each run the
rows are checked.

Statements and round trips are counted by the proxy that adds the latency. Without latency there is nothing between the ways
and Postgres while they are timed, and they are counted in a round before.

Postgres is taken from DATABASE_URL, else from Docker, else from the machine's own server binaries; which one it was is
printed. The database is a fresh one, dropped at the end.
";

/// What the command line asks for.
struct Arguments {
    scenario: Scenario,
    rows: Vec<usize>,
    rules: Rules,
    /// The scenario is the one of clients that insert at the same time.
    concurrent: Option<trial::Rules>,
    durable: bool,
    markdown: Option<PathBuf>,
    plot: Option<PathBuf>,
    /// The process is to do one way, for another that measures.
    way: Option<(String, String)>,
    /// What that has measured for all ways.
    yardstick: Duration,
}

fn main() -> Result<()> {
    let Some(arguments) = arguments()? else {
        write!(std::io::stdout(), "{HELP}")?;
        return Ok(());
    };
    if let Some((way, url)) = &arguments.way {
        return contest::serve(arguments.scenario, way, arguments.rows[0], arguments.yardstick, url);
    }
    if arguments.durable {
        Server::try_shared_durable()?
    } else {
        Server::try_shared()?
    };
    if let Some(rules) = &arguments.concurrent {
        return concurrent(rules, arguments.markdown.as_deref());
    }
    let mut contests = Vec::new();
    for &rows in &arguments.rows {
        let held = Contest::hold(arguments.scenario, rows, arguments.rules)?;
        writeln!(std::io::stdout(), "{held}")?;
        contests.push(held);
    }
    if let Some(file) = &arguments.markdown {
        write_tables(&contests, file)?;
    }
    if let Some(file) = &arguments.plot {
        plot::draw(&contests, file)?;
    }
    Ok(())
}

fn concurrent(rules: &trial::Rules, markdown: Option<&Path>) -> Result<()> {
    let mut trials = Vec::new();
    let pools = if rules.pools.is_empty() { vec![None] } else { rules.pools.iter().copied().map(Some).collect() };
    for &clients in &rules.clients {
        for &pool in &pools {
            let held = Trial::hold(clients, pool, rules)?;
            writeln!(std::io::stdout(), "{held}")?;
            trials.push(held);
        }
    }
    markdown.map_or(Ok(()), |file| write_tables(&trials, file))
}

fn write_tables(tables: &[impl ToString], file: &Path) -> Result<()> {
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    std::fs::write(file, tables.join("\n")).with_context(|| format!("cannot write {}", file.display()))
}

fn arguments() -> Result<Option<Arguments>> {
    use lexopt::prelude::*;

    let mut scenario = SCENARIOS[0];
    let (mut rows, mut latency, mut rounds) = (None, None, None);
    let mut row_by_row_up_to = 100_000;
    let (mut markdown, mut plot) = (None, None);
    let (mut way, mut url, mut yardstick) = (None, None, Duration::ZERO);
    let (mut is_concurrent, mut durable, mut concurrent) = (false, false, trial::Rules::default());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("scenario") => {
                let name = parser.value()?.string()?;
                is_concurrent = name == concurrent::NAME;
                if !is_concurrent {
                    scenario = named(&name)?;
                }
            }
            Long("rows") => rows = Some(numbers(&parser.value()?.string()?)?),
            Long("latency-ms") => latency = Some(milliseconds(&parser.value()?)?),
            Long("rounds") => rounds = Some(number(&parser.value()?.string()?)?),
            Long("row-by-row-up-to") => row_by_row_up_to = number(&parser.value()?.string()?)?,
            Long("markdown") => markdown = Some(parser.value()?.into()),
            Long("plot") => plot = Some(parser.value()?.into()),
            Long("way") => way = Some(parser.value()?.string()?),
            Long("url") => url = Some(parser.value()?.string()?),
            Long("durable") => durable = true,
            Long("clients") => concurrent.clients = numbers(&parser.value()?.string()?)?,
            Long("seconds") => concurrent.time = seconds(&parser.value()?.string()?)?,
            Long("orm") => concurrent.orm = Some(parser.value()?.string()?),
            Long("pool") => concurrent.pools = numbers(&parser.value()?.string()?)?,
            Long("duplicates") => concurrent.duplicates = percent(&parser.value()?.string()?)?,
            Long("threads") => concurrent.threads = number(&parser.value()?.string()?)?,
            Long("groups-per-table") => concurrent.groups_per_table = Some(number(&parser.value()?.string()?)?),
            Long("yardstick-us") => yardstick = Duration::from_micros(parser.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            other => bail!("{}; try --help", other.unexpected()),
        }
    }
    concurrent.latency = latency.unwrap_or(concurrent.latency);
    concurrent.rounds = rounds.unwrap_or(concurrent.rounds);
    let concurrent = is_concurrent.then_some(concurrent);
    ensure!(plot.is_none() || concurrent.is_none(), "--plot draws the scenarios whose work is one transaction");
    let rules = Rules {
        latency: latency.unwrap_or(scenario.latency),
        rounds: rounds.unwrap_or(scenario.rounds),
        row_by_row_up_to,
    };
    let rows = rows.unwrap_or_else(|| vec![scenario.rows]);
    Ok(Some(Arguments { scenario, rows, rules, concurrent, durable, markdown, plot, way: way.zip(url), yardstick }))
}

fn named(name: &str) -> Result<Scenario> {
    Scenario::named(name).with_context(|| {
        let names = SCENARIOS.map(|scenario| scenario.name);
        format!("there is no scenario {name:?}, but {}, {}", names.join(", "), concurrent::NAME)
    })
}

fn numbers(text: &str) -> Result<Vec<usize>> {
    text.split(',').map(number).collect()
}

fn seconds(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().filter(|&seconds| seconds > 0.0).map(Duration::try_from_secs_f64);
    seconds.and_then(Result::ok).with_context(|| format!("{text:?} is not a number of seconds above 0"))
}

fn percent(text: &str) -> Result<u32> {
    let percent = text.parse().ok().filter(|percent| (0..=100).contains(percent));
    percent.with_context(|| format!("{text:?} is not a percentage"))
}

/// `10_000`
fn number(text: &str) -> Result<usize> {
    let number = text.trim().replace('_', "").parse().ok().filter(|&number| number > 0);
    number.with_context(|| format!("{text:?} is not a number above 0"))
}
