//! What was decided about a connection string: whether batching is on for what it leads to, and by which options. It holds
//! whoever answers there; which database that is says the server (`identity.rs`).

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Weak};

use crate::catalog::Catalog;
use crate::database::{Database, lock};
use crate::eligible::Reason;
use crate::group::plan::Plan as GroupPlan;
use crate::group::{Counters, Groups, Pace};
use crate::options::BatchOptions;
use crate::readings::Readings;
use crate::recent::Recent;
use crate::recognise::{Recognised, Texts};
use crate::statement::BindType;

/// How many strings are remembered that no connection was made by for long, and for which batching is off.
const MAX_SITES: usize = 256;
/// How many databases of a string are told of what a connection does that has not asked yet which one it leads to.
const MAX_MET: usize = 4;
/// How many warnings are remembered, and so given.
const MAX_WARNED: usize = 4_096;

/// Where a connection string leads.
#[derive(Debug, Default)]
pub(crate) struct Site {
    on: AtomicBool,
    options: Mutex<Arc<BatchOptions>>,
    warned: Mutex<HashSet<(String, Reason)>>,
    /// By whom the catalog is read, of whichever database: one that could not be read has not said which it is.
    pub(crate) readings: Arc<Readings>,
    /// The databases that connections were led to, the last one last.
    met: Mutex<Vec<Weak<Database>>>,
    /// Inserts of all connections that may be committed in groups, by the adapters' row and error.
    groups: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
    group_counters: Arc<Counters>,
    /// Whether groups pay, by adapter.
    paces: Mutex<HashMap<&'static str, Arc<Pace>>>,
    group_plans: Mutex<GroupPlans>,
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

static SITES: LazyLock<Mutex<Recent<String, Arc<Site>>>> = LazyLock::new(|| Mutex::new(Recent::new(MAX_SITES)));

static TEXTS: LazyLock<Texts> = LazyLock::new(Texts::default);

/// What the SQL text is; parsed once for the whole process.
pub(crate) fn recognised(sql: &str) -> Arc<Recognised> {
    TEXTS.recognise(sql)
}

impl Site {
    /// What is known of a connection string, and the login: what it says that does not decide where it leads, but may decide
    /// about the role and the search path.
    pub(crate) fn at(url: &str) -> (Arc<Self>, String) {
        let (place, login) = split(url);
        (Self::named(place), login)
    }

    /// The same of one that is known by another name.
    pub(crate) fn named(name: String) -> Arc<Self> {
        let mut sites = lock(&SITES);
        if let Some(known) = sites.get(&name) {
            return Arc::clone(known);
        }
        let new = Arc::new(Self::default());
        sites.insert(name, Arc::clone(&new), |site| Arc::strong_count(site) == 1 && !site.is_on());
        new
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
        lock(&self.paces).values().for_each(|pace| pace.begin());
        self.on.store(true, Ordering::Release);
    }

    /// A connection was led to this database.
    pub(crate) fn meet(&self, database: &Arc<Database>) {
        let mut met = lock(&self.met);
        if met.last().is_some_and(|last| std::ptr::eq(last.as_ptr(), Arc::as_ptr(database))) {
            return;
        }
        met.retain(|other| other.strong_count() > 0 && !std::ptr::eq(other.as_ptr(), Arc::as_ptr(database)));
        if met.len() >= MAX_MET {
            met.remove(0);
        }
        met.push(Arc::downgrade(database));
    }

    /// The database that the next connection most likely leads to.
    pub(crate) fn likely(&self) -> Option<Arc<Database>> {
        lock(&self.met).iter().rev().find_map(Weak::upgrade)
    }

    /// All databases that a connection may lead to which has not asked.
    pub(crate) fn met(&self) -> Vec<Arc<Database>> {
        lock(&self.met).iter().filter_map(Weak::upgrade).collect()
    }

    /// The groups of adapters with these rows and errors.
    pub(crate) fn groups<R: Send + 'static, E: Send + 'static>(&self) -> Arc<Groups<R, E>> {
        let mut all = lock(&self.groups);
        let new = || -> Arc<dyn Any + Send + Sync> { Arc::new(Groups::<R, E>::new(Arc::clone(&self.group_counters))) };
        let groups = Arc::clone(all.entry(TypeId::of::<(R, E)>()).or_insert_with(new));
        // What is kept under a type's own id is of that type.
        groups.downcast().unwrap_or_else(|_| Arc::new(Groups::new(Arc::clone(&self.group_counters))))
    }

    pub(crate) fn pace(&self, adapter: &'static str) -> Arc<Pace> {
        Arc::clone(lock(&self.paces).entry(adapter).or_default())
    }

    pub(crate) fn group_counters(&self) -> &Counters {
        &self.group_counters
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
        const MAX_EACH: usize = 8;
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
        // Each keeps its catalog.
        if entries.len() >= MAX_EACH {
            entries.remove(0);
        }
        entries.push(GroupEntry { types: types.to_vec(), catalog: Arc::clone(catalog), plan: plan.clone() });
        plan
    }

    /// Whether this is the first time that this table meets this reason.
    pub(crate) fn is_news(&self, table: &str, reason: Reason) -> bool {
        let mut warned = lock(&self.warned);
        warned.len() < MAX_WARNED && warned.insert((table.to_owned(), reason))
    }
}

/// Splits a connection string into where it leads (host, port and database) and the rest. What else may decide where it leads
/// counts as both.
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
    /// What names the server or the database in another way.
    elsewhere: Vec<String>,
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
            "hostaddr" | "service" | "servicefile" | "target_session_attrs" => {
                self.elsewhere.push(format!("{key}={value}"));
                self.login.push(format!("{key}={value}"));
            }
            _ => self.login.push(format!("{key}={value}")),
        }
    }

    fn finish(mut self) -> (String, String) {
        self.login.sort();
        self.elsewhere.sort();
        if self.database.is_empty() {
            // It is the one that is named like the user, unless the environment or a service says otherwise.
            self.elsewhere.extend(self.login.iter().filter(|part| part.starts_with("user=")).cloned());
        }
        let port = if self.port.is_empty() { "5432" } else { &self.port };
        let place = format!("{}:{port}/{}", self.host, self.database);
        (self.elsewhere.iter().fold(place, |place, part| place + " " + part), self.login.join(" "))
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
    fn what_may_lead_elsewhere_is_another_place() {
        let place = |url| split(url).0;
        let differ = [
            ["service=a", "service=b"],
            ["hostaddr=10.0.0.1 dbname=shop", "hostaddr=10.0.0.2 dbname=shop"],
            ["postgres://alice@h/", "postgres://bob@h/"],
            ["postgres://h/shop?hostaddr=10.0.0.1", "postgres://h/shop?hostaddr=10.0.0.2"],
            ["postgres://a,b/shop", "postgres://a,b/shop?target_session_attrs=read-write"],
        ];
        for [one, other] in differ {
            assert_ne!(place(one), place(other));
        }
    }

    #[test]
    fn strings_that_nobody_uses_are_forgotten_unless_batching_is_on() {
        let (on, _) = Site::at("postgres://on@forgetful/on");
        on.enable(BatchOptions::new());
        let (used, _) = Site::at("postgres://used@forgetful/used");
        drop(on);
        (0..2 * MAX_SITES).for_each(|at| drop(Site::at(&format!("postgres://forgetful/{at}"))));
        assert!(Site::at("postgres://on@forgetful/on").0.is_on());
        assert!(Arc::ptr_eq(&used, &Site::at("postgres://used@forgetful/used").0));
        assert!(lock(&SITES).len() < 2 * MAX_SITES);
    }

    #[test]
    fn another_user_or_other_settings_are_another_login() {
        let login = |url| split(url).1;
        assert_eq!(login("postgres://me:secret@h/d"), login("postgres://me:other@h/d?sslmode=require"));
        assert_ne!(login("postgres://me@h/d"), login("postgres://you@h/d"));
        assert_ne!(login("postgres://me@h/d"), login("postgres://me@h/d?options=-csearch_path%3Dx"));
    }
}
