//! What all connections of this process to one database share: the catalog and ids in stock. One database is one life of
//! one server ([`Identity`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::identity::Identity;
use crate::ids::Stock;
use crate::patience::Paces;
use crate::recent::Recent;

/// How many databases are remembered that no connection leads to, with their ids and catalogs.
const MAX_DATABASES: usize = 64;
/// How many kinds of session have their catalog kept.
const MAX_CATALOGS: usize = 32;
const MAX_LOGINS: usize = 256;

/// A database as far as this process knows it.
#[derive(Debug)]
pub(crate) struct Database {
    /// None of one that does not say who it is, or that nobody has asked yet: it is its connection's alone.
    identity: Option<Identity>,
    /// Of the last crash that is known of.
    crash: Mutex<String>,
    pub(crate) stock: Mutex<Stock>,
    /// When the schema changed last, by [`tick`]: a catalog that was asked for before is stale.
    epoch: AtomicU64,
    /// One catalog for each kind of session: search path, role, ….
    catalogs: Mutex<Recent<String, Arc<Catalog>>>,
    /// Which kind of session a login starts as.
    logins: Mutex<Recent<String, String>>,
    /// What kinds of session statements made of others: asked once, for all connections.
    outcomes: Mutex<HashMap<(String, String), Outcome>>,
    /// No event trigger calls a function where the schema changes.
    quiet_ddl: AtomicBool,
    /// How fast rows go in, where that matters.
    pub(crate) paces: Mutex<Paces>,
}

/// What kind of session came of a statement, when that was asked, and after which invalidation.
#[derive(Debug)]
struct Outcome {
    identity: String,
    asked_at: Instant,
    epoch: u64,
}

static DATABASES: LazyLock<Mutex<Recent<String, Arc<Database>>>> =
    LazyLock::new(|| Mutex::new(Recent::new(MAX_DATABASES)));

/// Counts changes of any database's schema, so that a catalog can be older than a change of a database that the server names
/// only together with it.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// The time, as far as [`Database::epoch`] goes.
pub(crate) fn tick() -> u64 {
    TICKS.load(Ordering::Acquire)
}

impl Default for Database {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Database {
    fn new(identity: Option<Identity>) -> Self {
        Self {
            crash: Mutex::new(identity.as_ref().map(|identity| identity.crash.clone()).unwrap_or_default()),
            identity,
            stock: Mutex::default(),
            epoch: AtomicU64::new(0),
            catalogs: Mutex::new(Recent::new(MAX_CATALOGS)),
            logins: Mutex::new(Recent::new(MAX_LOGINS)),
            outcomes: Mutex::default(),
            quiet_ddl: AtomicBool::new(false),
            paces: Mutex::default(),
        }
    }

    /// The one that the server says it is, shared by all connections to it.
    pub(crate) fn of(identity: Identity) -> Arc<Self> {
        let key = identity.key();
        let mut databases = lock(&DATABASES);
        if let Some(known) = databases.get(&key).cloned() {
            drop(databases);
            known.note_crash(&identity);
            return known;
        }
        let new = Arc::new(Self::new(Some(identity)));
        databases.insert(key, Arc::clone(&new), |unused| Arc::strong_count(unused) == 1);
        new
    }

    /// What a server had not written when it crashed it does not know of: ids that it gave it may give again.
    fn note_crash(&self, identity: &Identity) {
        let mut crash = lock(&self.crash);
        if *crash != identity.crash {
            crash.clone_from(&identity.crash);
            self.invalidate();
        }
    }

    /// Whether a connection that led here still does, by what the server says now.
    pub(crate) fn is(&self, identity: &Identity) -> bool {
        self.identity.as_ref().is_some_and(|own| own.is_same_life(identity))
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The schema changed: every connection reads the catalog again, and no id from before is given out.
    pub(crate) fn invalidate(&self) {
        let now = TICKS.fetch_add(1, Ordering::AcqRel) + 1;
        self.epoch.fetch_max(now, Ordering::AcqRel);
        lock(&self.stock).discard_all();
    }

    /// Which kind of session a login starts as, if that is known.
    pub(crate) fn identity_of(&self, login: &str) -> Option<String> {
        lock(&self.logins).get(login).cloned()
    }

    pub(crate) fn catalog(&self, identity: &str, max_age: Duration) -> Option<Arc<Catalog>> {
        let catalog = lock(&self.catalogs).get(identity).cloned()?;
        self.is_fresh(&catalog, max_age).then_some(catalog)
    }

    /// The catalog of the same kind of session that was read last, if it is still good.
    pub(crate) fn renewed(&self, catalog: Arc<Catalog>, max_age: Duration) -> Option<Arc<Catalog>> {
        let renewed = self.catalog(&catalog.identity, max_age);
        renewed.or_else(|| self.is_fresh(&catalog, max_age).then_some(catalog))
    }

    fn is_fresh(&self, catalog: &Catalog, max_age: Duration) -> bool {
        catalog.epoch >= self.epoch() && catalog.read_at.elapsed() <= max_age
    }

    /// What kind of session comes of one of this kind by a statement that only gives settings values, if that was asked lately.
    pub(crate) fn outcome(&self, from: &str, statement: &str, max_age: Duration) -> Option<String> {
        let outcomes = lock(&self.outcomes);
        let outcome = outcomes.get(&(from.to_owned(), statement.to_owned()))?;
        let is_fresh = outcome.epoch == self.epoch() && outcome.asked_at.elapsed() <= max_age;
        is_fresh.then(|| outcome.identity.clone())
    }

    pub(crate) fn note_outcome(&self, from: String, statement: String, identity: &str) {
        const MAX: usize = 1_024;
        let mut outcomes = lock(&self.outcomes);
        if outcomes.len() >= MAX {
            outcomes.clear();
        }
        let outcome = Outcome { identity: identity.to_owned(), asked_at: Instant::now(), epoch: self.epoch() };
        outcomes.insert((from, statement), outcome);
    }

    pub(crate) fn publish(&self, catalog: &Arc<Catalog>, login: Option<&str>) {
        self.quiet_ddl.store(!catalog.event_triggers, Ordering::Release);
        lock(&self.catalogs).insert(catalog.identity.clone(), Arc::clone(catalog), |_| true);
        if let Some(login) = login {
            lock(&self.logins).insert(login.to_owned(), catalog.identity.clone(), |_| true);
        }
    }

    /// Whether DDL does only what it says, as far as is known.
    pub(crate) fn is_ddl_quiet(&self) -> bool {
        self.quiet_ddl.load(Ordering::Acquire)
    }
}

/// A panic while a lock was held leaves counters at worst one off, and a stock that lost ids.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::catalog;

    fn identity(text: &str) -> Identity {
        Identity::read(text).unwrap()
    }

    #[test]
    fn a_thousand_search_paths_keep_few_catalogs() {
        let database = Database::default();
        let published: Vec<_> = (0..1_000)
            .map(|tenant| {
                let mut catalog = Arc::into_inner(catalog([])).unwrap();
                catalog.identity = format!("tenant {tenant}");
                let catalog = Arc::new(catalog);
                database.publish(&catalog, Some(&format!("login {tenant}")));
                catalog
            })
            .collect();
        let kept = published.iter().filter(|catalog| Arc::strong_count(catalog) > 1).count();
        assert_eq!((kept, lock(&database.logins).len()), (MAX_CATALOGS, MAX_LOGINS));
        let age = Duration::from_secs(60);
        let of_login = |login: &str| database.catalog(&database.identity_of(login)?, age);
        assert!(of_login("login 999").is_some());
        assert!(of_login("login 900").is_none());
        // Whoever has one goes on with it.
        assert!(database.renewed(Arc::clone(&published[0]), age).is_some());
        database.invalidate();
        assert!(database.renewed(Arc::clone(&published[0]), age).is_none());
    }

    #[test]
    fn a_database_that_nobody_uses_is_forgotten_in_time() {
        let used = Database::of(identity("used 1 2 false ?"));
        let forgotten = Arc::downgrade(&Database::of(identity("forgotten 1 2 false ?")));
        (0..MAX_DATABASES).for_each(|at| drop(Database::of(identity(&format!("many {at} 2 false ?")))));
        assert!(Arc::ptr_eq(&used, &Database::of(identity("used 1 2 false ?"))));
        assert_eq!(forgotten.strong_count(), 0);
    }

    #[test]
    fn another_life_is_another_database_and_a_crash_makes_all_stale() {
        let one = Database::of(identity("lives 1 2 false a"));
        assert!(!Arc::ptr_eq(&one, &Database::of(identity("lives 1 3 false a"))));
        assert!(!Arc::ptr_eq(&one, &Database::of(identity("lives 1 2 true a"))));
        let before = one.epoch();
        assert!(Arc::ptr_eq(&one, &Database::of(identity("lives 1 2 false a"))));
        assert_eq!(one.epoch(), before);
        assert!(Arc::ptr_eq(&one, &Database::of(identity("lives 1 2 false b"))));
        assert!(one.epoch() > before);
    }
}
