use std::io::{self, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::{Error, admin};

mod cluster;
mod container;
mod embedded;
mod lifeline;
mod runs;
mod settings;
mod url;

pub use cluster::Cluster;
pub(crate) use embedded::Embedded;
use lifeline::Lifeline;
use runs::Run;
use settings::{Settings, Way};

/// The Postgres server found for this process (found once, lazily).
#[derive(Debug)]
pub struct Server {
    description: String,
    version: u32,
    place: Place,
}

/// What a way led to.
#[derive(Debug)]
struct Found {
    what: String,
    url: String,
    lifeline: Option<Lifeline>,
}

#[derive(Debug)]
enum Place {
    /// A server that many connections share.
    Shared { run: Box<Run>, lifeline: Option<Lifeline> },
    /// A server for each database. The first was started to see whether it can be, and serves the first database.
    Embedded { first: Mutex<Option<Embedded>> },
}

impl Server {
    /// The server of this process, found on the first call; one line on standard error says which it is, and why
    /// not an earlier way (see the [crate's page](crate)).
    ///
    /// # Panics
    ///
    /// If no way leads to a Postgres.
    #[track_caller]
    pub fn shared() -> &'static Server {
        Self::try_shared().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Like [`shared`](Self::shared).
    ///
    /// # Errors
    ///
    /// If no way leads to a Postgres, or the one that `BATCH_TEST_POSTGRES` insists on does not. A second call
    /// gives the same error.
    pub fn try_shared() -> Result<&'static Server, Error> {
        Self::find_once(false)
    }

    /// Like [`try_shared`](Self::try_shared), but a server that is started here writes as one does that has to keep its data:
    /// with `fsync` and `full_page_writes` on, which are off otherwise. Says nothing of a server that was found before, or that
    /// `DATABASE_URL` names.
    ///
    /// # Errors
    ///
    /// Those of [`try_shared`](Self::try_shared).
    pub fn try_shared_durable() -> Result<&'static Server, Error> {
        Self::find_once(true)
    }

    fn find_once(durable: bool) -> Result<&'static Server, Error> {
        static SHARED: OnceLock<Result<Server, Error>> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                let server = admin::off_thread(|| find(&Settings::read(durable)?))?;
                // Not eprintln, which a test captures.
                let _ = writeln!(io::stderr(), "Postgres for tests: {}", server.description);
                Ok(server)
            })
            .as_ref()
            .map_err(Clone::clone)
    }

    /// Which Postgres this is, and why not one that comes earlier in the order.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Postgres' `server_version_num`, e.g. 150018 for 15.18.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether a second connection to a database waits until the first has ended: true of the embedded one only.
    pub fn serves_one_connection(&self) -> bool {
        matches!(self.place, Place::Embedded { .. })
    }

    /// A server for one database, where each has its own.
    pub(crate) fn embedded(&self) -> Option<Result<Embedded, Error>> {
        let Place::Embedded { first } = &self.place else {
            return None;
        };
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        Some(first.map_or_else(Embedded::start, Ok))
    }

    /// The name and the URL of a new database.
    pub(crate) fn create_database(&self) -> Result<(String, String), Error> {
        self.run()?.create_database()
    }

    /// Drops it, sooner or later where the server ends with this process: nobody waits for that.
    pub(crate) fn drop_database(&self, name: &str) -> Result<(), Error> {
        match &self.place {
            Place::Shared { run, lifeline: Some(_) } => run.drop_later(name),
            _ => self.run()?.drop_database(name),
        }
    }

    fn run(&self) -> Result<&Run, Error> {
        match &self.place {
            Place::Shared { run, .. } => Ok(run),
            Place::Embedded { .. } => Err(Error::new("an embedded Postgres has one database")),
        }
    }
}

/// Tries one way after the other.
fn find(settings: &Settings) -> Result<Server, Error> {
    if let Some(way) = settings.forced {
        return take(way, settings)
            .map_err(|error| Error::new(format!("BATCH_TEST_POSTGRES={way} is set, but {error}")));
    }

    let mut passed_over = String::new();
    for way in Way::ALL {
        if way == Way::Url && settings.database_url.is_some() {
            // Whoever names a server wants no other.
            return take(way, settings);
        }
        match take(way, settings) {
            Ok(mut server) => {
                server.description.push_str(&passed_over);
                return Ok(server);
            }
            Err(error) => passed_over.push_str(&format!("; no {way}: {error}")),
        }
    }
    Err(Error::new(format!("no Postgres to work with{passed_over}")))
}

fn take(way: Way, settings: &Settings) -> Result<Server, Error> {
    let found = match way {
        Way::Url => self::url::find(settings)?,
        Way::Container => container::start(settings)?,
        Way::Cluster => cluster::start(settings)?,
        Way::Embedded => return embedded(),
    };

    let run = Run::start(&found.url)?;
    if way == Way::Url {
        run.sweep()?;
    }
    Ok(Server {
        description: format!("{}, Postgres {}", found.what, run.version_text()),
        version: run.version(),
        place: Place::Shared { run: Box::new(run), lifeline: found.lifeline },
    })
}

fn embedded() -> Result<Server, Error> {
    let first = Embedded::start()?;
    let (version, text) = runs::version(first.url())?;
    Ok(Server {
        description: format!("an embedded one, Postgres {text}, which serves one connection at a time"),
        version,
        place: Place::Embedded { first: Mutex::new(Some(first)) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_tells_its_version() {
        let server = Server::shared();
        assert!(server.version() >= 130_000);
        assert!(server.description().contains(&format!("Postgres {}", server.version() / 10_000)));
    }

    #[test]
    fn a_way_that_fails_is_passed_over_and_the_description_says_why() {
        let settings = Settings { tag: "does-not-exist".to_owned(), ..Settings::default() };
        if cluster::start(&settings).is_err() {
            return;
        }
        let server = find(&settings).expect("the cluster is next");

        let description = server.description();
        assert!(description.starts_with("a throw-away cluster"), "{description}");
        assert!(description.contains("no url: DATABASE_URL is not set; no container: "), "{description}");
    }

    #[test]
    fn a_forced_way_that_fails_is_an_error_with_the_reason() {
        let settings =
            Settings { database_url: None, forced: Some(Way::Url), tag: String::new(), memory: false, durable: false };
        let error = find(&settings).expect_err("there is no URL");
        assert_eq!(error.to_string(), "BATCH_TEST_POSTGRES=url is set, but DATABASE_URL is not set");
    }

    #[test]
    fn a_url_that_does_not_work_is_an_error_and_its_password_is_not_told() {
        let settings = Settings {
            database_url: Some("postgres://me:secret@127.0.0.1:1/db".to_owned()),
            forced: None,
            tag: String::new(),
            memory: false,
            durable: false,
        };
        let error = find(&settings).expect_err("nobody listens").to_string();
        assert!(error.starts_with("cannot connect to postgres://me:***@127.0.0.1:1/db"), "{error}");
    }
}
