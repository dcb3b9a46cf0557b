//! What all connections of this process to one database share: the options, the catalog, ids in stock, parsed SQL.

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalog::Catalog;
use crate::eligible::Reason;
use crate::group::plan::Plan as GroupPlan;
use crate::group::{Counters, Groups};
use crate::ids::Stock;
use crate::options::BatchOptions;
use crate::patience::Paces;
use crate::readings::Readings;
use crate::recognise::{Recognised, Texts};
use crate::statement::BindType;
use crate::stats::GroupStats;

/// A database as far as this process knows it.
#[derive(Debug, Default)]
pub(crate) struct Database {
    on: AtomicBool,
    options: Mutex<Arc<BatchOptions>>,
    texts: Texts,
    pub(crate) stock: Mutex<Stock>,
    /// Counts changes of the schema: a catalog read before the latest is stale.
    epoch: AtomicU64,
    /// One catalog for each kind of session: search path, role, ….
    catalogs: Mutex<HashMap<String, Arc<Catalog>>>,
    pub(crate) readings: Arc<Readings>,
    /// Which kind of session a login starts as.
    logins: Mutex<HashMap<String, String>>,
    /// What kinds of session statements made of others: asked once, for all connections.
    outcomes: Mutex<HashMap<(String, String), Outcome>>,
    warned: Mutex<HashSet<(String, Reason)>>,
    /// No event trigger calls a function where the schema changes.
    quiet_ddl: AtomicBool,
    /// Inserts of all connections that may be committed in groups, by the adapters' row and error.
    groups: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    group_counters: Arc<Counters>,
    group_plans: Mutex<GroupPlans>,
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

/// Group commit's plans and refusals, by the statement's address, which its entry keeps its own.
type GroupPlans = HashMap<usize, (Arc<Recognised>, Vec<GroupEntry>)>;

/// For bind types and a catalog.
#[derive(Debug)]
struct GroupEntry {
    types: Vec<BindType>,
    catalog: Arc<Catalog>,
    plan: Result<Arc<GroupPlan>, Reason>,
}

static DATABASES: LazyLock<Mutex<HashMap<String, Arc<Database>>>> = LazyLock::new(Mutex::default);

impl Database {
    /// The database that a connection string leads to, shared by all connections to it, and the login: the rest of
    /// the string, which may decide about the role and the search path.
    pub(crate) fn at(url: &str) -> (Arc<Self>, String) {
        let (place, login) = split(url);
        let database = Arc::clone(lock(&DATABASES).entry(place).or_default());
        (database, login)
    }

    /// What the SQL text is; parsed once for the whole process.
    pub(crate) fn recognise(&self, sql: &str) -> Arc<Recognised> {
        self.texts.recognise(sql)
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    pub(crate) fn options(&self) -> Arc<BatchOptions> {
        Arc::clone(&lock(&self.options))
    }

    /// Turns batching on. Transactions that begin later go by these options.
    pub(crate) fn enable(&self, options: BatchOptions) {
        *lock(&self.options) = Arc::new(options);
        lock(&self.group_plans).clear();
        self.group_counters.open();
        self.on.store(true, Ordering::Release);
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The schema changed: every connection reads the catalog again, and no id from before is given out.
    pub(crate) fn invalidate(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        lock(&self.stock).discard_all();
    }

    /// The groups of adapters with these rows and errors.
    pub(crate) fn groups<R: Send + 'static, E: Send + 'static>(&self) -> Arc<Groups<R, E>> {
        let mut all = lock(&self.groups);
        let new = || -> Arc<dyn Any + Send + Sync> { Arc::new(Groups::<R, E>::new(Arc::clone(&self.group_counters))) };
        let groups = Arc::clone(all.entry(TypeId::of::<(R, E)>()).or_insert_with(new));
        // What is kept under a type's own id is of that type.
        groups.downcast().unwrap_or_else(|_| Arc::new(Groups::new(Arc::clone(&self.group_counters))))
    }

    pub(crate) fn group_stats(&self) -> GroupStats {
        self.group_counters.stats()
    }

    /// How a statement travels in a group, or why it does not: decided once for all connections, so that they share it.
    pub(crate) fn group_plan(
        &self,
        recognised: &Arc<Recognised>,
        types: &[BindType],
        catalog: &Arc<Catalog>,
        make: impl FnOnce() -> Result<GroupPlan, Reason>,
    ) -> Result<Arc<GroupPlan>, Reason> {
        const MAX: usize = 1_024;
        let mut plans = lock(&self.group_plans);
        let key = Arc::as_ptr(recognised) as usize;
        if plans.len() >= MAX && !plans.contains_key(&key) {
            plans.clear();
        }
        let (_, entries) = plans.entry(key).or_insert_with(|| (Arc::clone(recognised), Vec::new()));
        let is_it = |entry: &&GroupEntry| entry.types == types && Arc::ptr_eq(&entry.catalog, catalog);
        if let Some(entry) = entries.iter().find(is_it) {
            return entry.plan.clone();
        }
        let plan = make().map(Arc::new);
        let epoch = catalog.epoch;
        entries.retain(|entry| entry.catalog.epoch == epoch);
        entries.push(GroupEntry { types: types.to_vec(), catalog: Arc::clone(catalog), plan: plan.clone() });
        plan
    }

    /// Which kind of session a login starts as, if that is known.
    pub(crate) fn identity_of(&self, login: &str) -> Option<String> {
        lock(&self.logins).get(login).cloned()
    }

    pub(crate) fn catalog(&self, identity: &str, max_age: Duration) -> Option<Arc<Catalog>> {
        let catalog = lock(&self.catalogs).get(identity).cloned()?;
        (catalog.epoch == self.epoch() && catalog.read_at.elapsed() <= max_age).then_some(catalog)
    }

    /// What kind of session comes of one of this kind by a statement that only gives settings values, if that was asked lately.
    pub(crate) fn outcome(&self, from: &str, statement: &str) -> Option<String> {
        let outcomes = lock(&self.outcomes);
        let outcome = outcomes.get(&(from.to_owned(), statement.to_owned()))?;
        let is_fresh = outcome.epoch == self.epoch() && outcome.asked_at.elapsed() <= self.options().catalog_max_age;
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
        lock(&self.catalogs).insert(catalog.identity.clone(), Arc::clone(catalog));
        if let Some(login) = login {
            lock(&self.logins).insert(login.to_owned(), catalog.identity.clone());
        }
    }

    /// Whether DDL does only what it says, as far as is known.
    pub(crate) fn is_ddl_quiet(&self) -> bool {
        self.quiet_ddl.load(Ordering::Acquire)
    }

    /// Whether this is the first time that this table meets this reason.
    pub(crate) fn is_news(&self, table: &str, reason: Reason) -> bool {
        lock(&self.warned).insert((table.to_owned(), reason))
    }
}

/// A panic while a lock was held leaves counters at worst one off, and a stock that lost ids.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits a connection string into where it leads (host, port and database) and the rest.
///
/// Both forms that libpq takes are understood; a string that is neither stands for itself.
fn split(url: &str) -> (String, String) {
    let uri = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = uri else { return split_words(url) };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    let mut parts = Parts::default();
    parts.set("host", hosts);
    parts.set("dbname", database);
    parts.set("user", user);
    for pair in query.split('&') {
        if let Some((key, value)) = pair.split_once('=') {
            parts.set(key, value);
        }
    }
    parts.finish()
}

/// `host=… dbname=…`
fn split_words(words: &str) -> (String, String) {
    let mut parts = Parts::default();
    for pair in words.split_whitespace() {
        match pair.split_once('=') {
            Some((key, value)) => parts.set(key, value.trim_matches('\'')),
            None => return (words.to_owned(), String::new()),
        }
    }
    parts.finish()
}

#[derive(Default)]
struct Parts {
    host: String,
    port: String,
    database: String,
    login: Vec<String>,
}

impl Parts {
    fn set(&mut self, key: &str, value: &str) {
        match key {
            // Only what may decide about the role or the settings belongs to the login.
            "password" | "sslmode" | "gssencmode" | "connect_timeout" | "application_name" => {}
            _ if value.is_empty() => {}
            "host" => match value.rsplit_once(':') {
                Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => {
                    self.host = host.to_owned();
                    self.port = port.to_owned();
                }
                _ => self.host = value.to_owned(),
            },
            "port" => self.port = value.to_owned(),
            "dbname" => self.database = value.to_owned(),
            _ => self.login.push(format!("{key}={value}")),
        }
    }

    fn finish(mut self) -> (String, String) {
        self.login.sort();
        let port = if self.port.is_empty() { "5432" } else { &self.port };
        (format!("{}:{port}/{}", self.host, self.database), self.login.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_database_is_found_however_its_address_is_written() {
        let place = |url| split(url).0;
        assert_eq!(place("postgres://me:secret@db.example:5433/shop"), "db.example:5433/shop");
        assert_eq!(place("postgresql://other@db.example:5433/shop?sslmode=disable"), "db.example:5433/shop");
        assert_eq!(place("host=db.example port=5433 dbname=shop user=me"), "db.example:5433/shop");
        assert_eq!(place("postgres://db.example/shop"), "db.example:5432/shop");
        assert_eq!(place("postgres:///shop?host=/tmp/sockets&port=5499"), "/tmp/sockets:5499/shop");
    }

    #[test]
    fn another_user_or_other_settings_are_another_login() {
        let login = |url| split(url).1;
        assert_eq!(login("postgres://me:secret@h/d"), login("postgres://me:other@h/d?sslmode=require"));
        assert_ne!(login("postgres://me@h/d"), login("postgres://you@h/d"));
        assert_ne!(login("postgres://me@h/d"), login("postgres://me@h/d?options=-csearch_path%3Dx"));
    }
}
