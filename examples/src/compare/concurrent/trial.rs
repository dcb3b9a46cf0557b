//! Runs plain and group commit in turn, each in several rounds, and takes medians.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use batch_core::GroupCommit;
use batch_support::{Database, Proxy, Server};

use super::client::{Log, percentile};
use super::way::{Done, Groups, Job, WAYS, Way};
use crate::compare::contest::median;
use crate::report::difference;

const SCHEMA: &str = "CREATE TABLE events (
    id bigserial PRIMARY KEY, client int4 NOT NULL, number int4 NOT NULL, text text NOT NULL
)";
/// Where some texts are to be taken.
const UNIQUE: &str = "CREATE UNIQUE INDEX ON events (text)";

/// How a trial is held.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The ORM, as [`Way::orm`] calls it; all where none is named.
    pub orm: Option<String>,
    /// How many clients insert at the same time; several numbers make a series.
    pub clients: Vec<usize>,
    /// How long each way is measured in each round.
    pub time: Duration,
    /// How often each way runs.
    pub rounds: usize,
    /// Connections of the pool that clients take one from for each insert; several numbers make a series. Without, Diesel and
    /// diesel-async have a connection for each client, and SeaORM a pool of 64.
    pub pools: Vec<usize>,
    /// Of a hundred inserts, so many fail as their text is taken.
    pub duplicates: u32,
    /// Worker threads of tokio.
    pub threads: usize,
    /// See [`GroupCommit::groups_per_table`]; its default if it is not said.
    pub groups_per_table: Option<usize>,
    /// Of a round trip, in addition to loopback's own.
    pub latency: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            orm: None,
            clients: vec![1, 8, 64, 256],
            time: Duration::from_secs(3),
            rounds: 5,
            pools: Vec::new(),
            duplicates: 0,
            threads: 2,
            groups_per_table: None,
            latency: Duration::ZERO,
        }
    }
}

/// How one way did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Per second.
    pub rows: f64,
    /// What half of the inserts took at most.
    pub p50: Duration,
    /// What 99 of 100 took at most.
    pub p99: Duration,
    /// Of a statement, on average; `None` without group commit.
    pub rows_of_statement: Option<f64>,
}

/// How one way did in all rounds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which way.
    pub way: Way,
    /// Of each round.
    pub rounds: Vec<Figures>,
}

impl Entry {
    /// The median of a figure.
    pub fn median(&self, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.rounds.iter().map(figure), f64::total_cmp)
    }

    /// Half of what lies between the fastest and the slowest round, as a part of the median.
    pub fn spread(&self) -> f64 {
        let rows = || self.rounds.iter().map(|figures| figures.rows);
        (rows().fold(0.0, f64::max) - rows().fold(f64::INFINITY, f64::min)) / 2.0 / self.median(|figures| figures.rows)
    }

    /// The median of the rounds' ratios to those of `other`: a noisy minute hits both.
    pub fn ratio_to(&self, other: &Entry, figure: impl Fn(&Figures) -> f64) -> f64 {
        median(self.ratios_to(other, figure).into_iter(), f64::total_cmp)
    }

    /// What a quarter of those ratios does not exceed.
    pub fn lower_quartile_to(&self, other: &Entry, figure: impl Fn(&Figures) -> f64) -> f64 {
        lower_quartile(self.ratios_to(other, figure))
    }

    fn ratios_to(&self, other: &Entry, figure: impl Fn(&Figures) -> f64) -> Vec<f64> {
        self.rounds.iter().zip(&other.rounds).map(|(mine, other)| figure(mine) / figure(other)).collect()
    }
}

/// All ways with so many clients.
#[derive(Clone, Debug)]
pub struct Trial {
    /// How it was held.
    pub rules: Rules,
    /// How many inserted at the same time.
    pub clients: usize,
    /// Connections of their pool, if they have one.
    pub pool: Option<usize>,
    /// The server's settings that say whether a commit survives the machine's failure.
    pub settings: String,
    /// In the order of [`WAYS`].
    pub entries: Vec<Entry>,
}

impl Trial {
    /// Runs every way in turn, every other round from the last to the first. Each begins with an empty table, and what it
    /// stored is checked.
    ///
    /// # Errors
    ///
    /// Those of a way, with its name; and where no way is that of [`Rules::orm`].
    pub fn hold(clients: usize, pool: Option<usize>, rules: &Rules) -> Result<Self> {
        ensure!(
            !Server::try_shared()?.serves_one_connection(),
            "the server that was found serves one connection at a time"
        );
        let takes_part = |way: &Way| rules.orm.as_ref().is_none_or(|orm| orm == way.orm);
        let ways = WAYS.into_iter().filter(takes_part);
        let mut entries: Vec<Entry> = ways.map(|way| Entry { way, rounds: Vec::new() }).collect();
        ensure!(!entries.is_empty(), "there is no ORM {:?}, but diesel, diesel-async, seaorm", rules.orm.as_deref());
        let database = Database::create();
        database.execute(SCHEMA);
        if rules.duplicates > 0 {
            database.execute(UNIQUE);
        }
        let proxy = (!rules.latency.is_zero()).then(|| Proxy::start(database.url(), rules.latency));
        let group_commit = GroupCommit::new();
        let job = Job {
            url: proxy.as_ref().map_or(database.url(), Proxy::url),
            clients,
            time: rules.time,
            pool,
            duplicates: rules.duplicates,
            threads: rules.threads,
            group_commit: rules.groups_per_table.map_or(group_commit, |groups| group_commit.groups_per_table(groups)),
        };
        for at in 1..=rules.rounds {
            for entry in &mut entries {
                eprintln!("{clients} clients{}, round {at} of {}: {}", of_pool(pool), rules.rounds, entry.way.name);
                database.execute("TRUNCATE events");
                database.execute("CHECKPOINT");
                let done = entry.way.run(job)?;
                check(&database, &done.logs).with_context(|| entry.way.name)?;
                entry.rounds.push(Figures::of(done, rules.time));
            }
            // The next one goes the other way.
            entries.reverse();
        }
        if rules.rounds % 2 == 1 {
            entries.reverse();
        }
        Ok(Self { rules: rules.clone(), clients, pool, settings: settings(&database), entries })
    }

    /// What the way is compared with: the same ORM without group commit.
    pub fn plain(&self, way: Way) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.way.orm == way.orm && entry.way.is_plain)
    }
}

impl Figures {
    fn of(done: Done, time: Duration) -> Self {
        let mut latencies: Vec<Duration> = done.logs.into_iter().flat_map(|log| log.latencies).collect();
        latencies.sort();
        let rows_of_statement = |groups: Groups| groups.rows as f64 / groups.statements as f64;
        Self {
            rows: latencies.len() as f64 / time.as_secs_f64(),
            p50: percentile(&latencies, 50),
            p99: percentile(&latencies, 99),
            rows_of_statement: done.groups.map(rows_of_statement),
        }
    }
}

/// As it stands behind the number of clients.
pub(super) fn of_pool(pool: Option<usize>) -> String {
    pool.map(|connections| format!(" of a pool of {connections}")).unwrap_or_default()
}

/// What a quarter of these does not exceed: of nine, the third from below.
fn lower_quartile(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 4).copied().unwrap_or_default()
}

/// Every row is there once, with the id that its client was told, and nothing else.
fn check(database: &Database, logs: &[Log]) -> Result<()> {
    let stored = database.query("SELECT concat_ws(' ', client, number, id) FROM events ORDER BY client, number");
    let stored: Vec<String> = stored.into_iter().flatten().flatten().collect();
    let of_client = |(client, log): (usize, &Log)| -> Vec<String> {
        log.ids.iter().enumerate().map(|(number, id)| format!("{client} {number} {id}")).collect()
    };
    let told: Vec<String> = logs.iter().enumerate().flat_map(of_client).collect();
    match difference(&stored, &told) {
        None => Ok(()),
        Some((_, stored, told)) => bail!("stored is {stored:?} (client, number, id), and the client was told {told:?}"),
    }
}

/// As the server has them.
fn settings(database: &Database) -> String {
    let setting = |name| {
        let value = database.query(&format!("SHOW {name}")).into_iter().flatten().flatten().next();
        format!("{name} {}", value.unwrap_or_default())
    };
    ["fsync", "synchronous_commit"].map(setting).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_quartile_is_what_a_quarter_does_not_exceed() {
        assert_eq!(lower_quartile(vec![9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]), 3.0);
        assert_eq!(lower_quartile(vec![2.0]), 2.0);
    }

    #[test]
    fn a_row_that_is_not_as_its_client_was_told_is_noticed() {
        let database = Database::create();
        database.execute(SCHEMA);
        database.execute("INSERT INTO events (client, number, text) VALUES (0, 0, ''), (0, 1, ''), (1, 0, '')");
        let log = |ids: &[i64]| Log { ids: ids.to_vec(), latencies: Vec::new() };
        let is_right = |logs: &[Log]| check(&database, logs).is_ok();
        assert!(is_right(&[log(&[1, 2]), log(&[3])]));
        assert!(!is_right(&[log(&[2, 1]), log(&[3])]), "ids of another row");
        assert!(!is_right(&[log(&[1]), log(&[3])]), "a row that nobody inserted");
        assert!(!is_right(&[log(&[1, 2]), log(&[3, 4])]), "a row that is not there");
    }
}
