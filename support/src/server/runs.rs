//! The databases of one process on a server that it may share with other processes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use postgres::Client;
use url::Url;

use crate::{Error, admin};

/// The first half of the advisory lock that says that a run is alive; the second is the run's number.
const LOCK: i32 = 0x62_61_74_63; // "batc"

/// This process, as the server knows it.
///
/// Its connection holds a lock for as long as the process lives. Databases are named after the run, so that one
/// whose run holds no lock is a leftover.
pub(super) struct Run {
    url: Url,
    number: i32,
    client: Mutex<Client>,
    version: u32,
    version_text: String,
    databases: AtomicU32,
    /// Takes the names of databases that nobody waits for.
    dropper: OnceLock<Result<Sender<String>, Error>>,
}

impl Run {
    pub(super) fn start(url: &str) -> Result<Run, Error> {
        let parsed = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))
            .ok_or_else(|| Error::new(format!("{} is not a postgres:// URL", admin::shown(url))))?;

        let mut client = admin::connect(url)?;
        let (version, version_text) = ask_version(&mut client)?;
        let number = client
            .query_one(
                "SELECT n FROM (SELECT (random() * 2147483646)::int4 AS n OFFSET 0) AS r
                 WHERE pg_try_advisory_lock($1, n)",
                &[&LOCK],
            )
            .map_err(|error| Error::because("cannot register this run", &error))?
            .get(0);
        Ok(Run {
            url: parsed,
            number,
            client: Mutex::new(client),
            version,
            version_text,
            databases: AtomicU32::new(0),
            dropper: OnceLock::new(),
        })
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn version_text(&self) -> &str {
        &self.version_text
    }

    /// Drops the databases of runs that ended without doing so.
    pub(super) fn sweep(&self) -> Result<(), Error> {
        self.with_client(|client| {
            let leftovers = client.query(
                "SELECT datname FROM pg_database
                 WHERE datname ~ '^batch_test_[0-9]+_[0-9]+$' AND split_part(datname, '_', 3) NOT IN
                   (SELECT objid::text FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int4::oid)",
                &[&LOCK],
            )?;
            for row in leftovers {
                let name: String = row.get(0);
                // Another run may be sweeping too, or the database be another role's.
                let _ = client.batch_execute(&drop_statement(&name));
            }
            Ok(())
        })
        .map_err(|error| Error::because("cannot look for leftover databases", &error))
    }

    /// The name and the URL of a new database.
    pub(super) fn create_database(&self) -> Result<(String, String), Error> {
        let n = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("batch_test_{}_{n}", self.number);
        // Files that are copied need no log: two thirds of the time.
        let strategy = if self.version >= 150_000 { " STRATEGY FILE_COPY" } else { "" };
        let create =
            format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'{strategy}");
        self.with_client(|client| client.batch_execute(&create))
            .map_err(|error| Error::because("cannot create a database", &error))?;

        let mut url = self.url.clone();
        url.set_path(&name);
        Ok((name, url.into()))
    }

    pub(super) fn drop_database(&self, name: &str) -> Result<(), Error> {
        self.with_client(|client| client.batch_execute(&drop_statement(name)))
            .map_err(|error| Error::because("cannot drop it", &error))
    }

    /// The same, by a thread that ends with the process.
    pub(super) fn drop_later(&self, name: &str) -> Result<(), Error> {
        let dropper = self.dropper.get_or_init(|| dropper(self.url.as_str())).as_ref().map_err(Clone::clone)?;
        dropper.send(name.to_owned()).map_err(|_| Error::new("the thread that drops databases has ended"))
    }

    fn with_client<T: Send>(
        &self,
        work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send,
    ) -> Result<T, postgres::Error> {
        admin::off_thread(|| work(&mut self.client.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("number", &self.number).finish_non_exhaustive()
    }
}

fn dropper(url: &str) -> Result<Sender<String>, Error> {
    let (sender, names) = mpsc::channel::<String>();
    let mut client = admin::off_thread(|| admin::connect(url))?;
    thread::spawn(move || {
        for name in names {
            if let Err(error) = client.batch_execute(&drop_statement(&name)) {
                eprintln!("the database {name} stays: {error}");
            }
        }
    });
    Ok(sender)
}

/// `server_version_num`, and the version as people write it.
pub(super) fn version(url: &str) -> Result<(u32, String), Error> {
    admin::off_thread(|| ask_version(&mut admin::connect(url)?))
}

fn ask_version(client: &mut Client) -> Result<(u32, String), Error> {
    let row = client
        .query_one("SELECT current_setting('server_version_num')::int4, current_setting('server_version')", &[])
        .map_err(|error| Error::because("cannot ask for the server's version", &error))?;
    let text: String = row.get(1);
    // Debian adds " (Debian ...)".
    let text = text.split(' ').next().unwrap_or_default().to_owned();
    Ok((row.get::<_, i32>(0).unsigned_abs(), text))
}

fn drop_statement(name: &str) -> String {
    format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Database;

    #[test]
    fn a_sweep_drops_the_databases_of_dead_runs_only() {
        let database = Database::create();
        if crate::Server::shared().serves_one_connection() {
            return;
        }
        let names = || -> Vec<String> {
            let rows = database.query("SELECT datname FROM pg_database");
            rows.into_iter().flatten().flatten().collect()
        };
        let dead = Run::start(database.url()).expect("starts").create_database().expect("creates").0;
        let alive = Run::start(database.url()).expect("starts");
        let kept = alive.create_database().expect("creates").0;
        assert!(names().contains(&dead));

        // The server takes a moment to notice that a client has left.
        while names().contains(&dead) {
            alive.sweep().expect("sweeps");
        }
        assert!(names().contains(&kept));
        alive.drop_database(&kept).expect("drops");
    }
}
