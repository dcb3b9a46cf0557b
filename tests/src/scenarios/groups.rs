//! Group commit: single-row INSERTs outside of transactions that arrive at the same time (`BatchOptions::group_commit`).

use std::thread;
use std::time::{Duration, Instant};

use batch_core::{BatchOptions, Fallback, GroupCommit, GroupStats};
use batch_support::{Database, Proxy};

use crate::{Adapter, Batching, Cell, Outcome, Session, Value};

const NOTES: &str = "CREATE TABLE notes (id serial PRIMARY KEY, text text UNIQUE CHECK (text <> 'bad'))";
const ADD_NOTE: &str = r#"INSERT INTO "notes" ("text") VALUES ($1) RETURNING "notes"."id", "notes"."text""#;
/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(60);

/// Callers that use a database at the same time.
struct Crowd<A: Adapter> {
    database: Database,
    proxy: Proxy,
    callers: Vec<A::Batched>,
    /// One more, to look at the counters.
    watcher: A::Batched,
}

type Rows = Outcome<Vec<Vec<Cell>>>;

/// A group waits for whatever is on its way for as long as it takes.
fn patient() -> GroupCommit {
    GroupCommit::new().lock_timeout(LONG)
}

impl<A: Adapter> Crowd<A> {
    fn new(schema: &str, callers: usize, group_commit: GroupCommit) -> Self {
        let database = Database::create();
        database.execute(schema);
        let proxy = Proxy::start(database.url(), Duration::ZERO);
        let mut callers = A::Batched::several(proxy.url(), callers + 1).unwrap();
        let mut watcher = callers.pop().unwrap();
        watcher.enable(BatchOptions::new().group_commit(group_commit)).unwrap();
        // Each has a connection at hand.
        for caller in &mut callers {
            caller.one("SELECT 1", &[]).unwrap();
        }
        proxy.reset();
        Self { database, proxy, callers, watcher }
    }

    fn stats(&self) -> GroupStats {
        self.watcher.stats().group_commit
    }

    fn inserts_on_the_wire(&self) -> Vec<String> {
        let trace = self.proxy.trace();
        trace
            .iter()
            .filter_map(|sql| sql.strip_prefix("EXECUTE "))
            .filter(|sql| sql.contains("INSERT"))
            .map(Into::into)
            .collect()
    }

    fn count(&self, sql: &str) -> i64 {
        self.database.query(sql)[0][0].as_ref().unwrap().parse().unwrap()
    }

    /// Lets all callers run a statement at the same time: the first is on its way and held up by a lock on the table, the
    /// others queue, and then the lock is released. `meanwhile` sees them all waiting.
    fn together(
        &mut self,
        table: &str,
        statements: &[(&str, Vec<Value>)],
        meanwhile: impl FnOnce(&Database),
    ) -> Vec<Rows> {
        assert_eq!(self.callers.len(), statements.len());
        let Self { database, callers, watcher, .. } = self;
        let mut locker = A::Plain::connect(database.url()).unwrap();
        locker.begin().unwrap();
        locker.script(&format!("LOCK TABLE {table} IN SHARE MODE")).unwrap();
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for (at, (caller, (sql, binds))) in callers.iter_mut().zip(statements).enumerate() {
                threads.push(scope.spawn(move || caller.rows(sql, binds)));
                if at == 0 {
                    until(|| database.query("SELECT 1 FROM pg_locks WHERE NOT granted").len() == 1);
                } else {
                    until(|| watcher.stats().group_commit.depth == at as u64);
                }
            }
            meanwhile(database);
            locker.rollback().unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// Waits for something that is sure to come.
fn until(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "it does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

fn notes(texts: &[&str]) -> Vec<(&'static str, Vec<Value>)> {
    texts.iter().map(|text| (ADD_NOTE, vec![Value::text(text)])).collect()
}

fn text(row: &[Cell]) -> String {
    String::from_utf8(row[1].bytes.clone().unwrap()).unwrap()
}

/// What arrives while an insert is on its way is one statement, and everybody gets the own row.
pub fn inserts_that_arrive_together_are_one_statement_and_each_gets_its_own_row<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 8, patient());
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let rows = crowd.together("notes", &notes(&texts), |_| {});
    for (row, text) in rows.into_iter().zip(texts) {
        let row = row.unwrap();
        assert_eq!((row.len(), self::text(&row[0])), (1, text.to_owned()));
        let id = row[0][0].int();
        assert_eq!(crowd.count(&format!("SELECT count(*) FROM notes WHERE id = {id} AND text = '{text}'")), 1);
    }
    let stats = crowd.stats();
    assert_eq!((stats.inserts, stats.alone, stats.groups, stats.rows, stats.largest_group), (8, 1, 1, 7, 7));
    assert_eq!((stats.statements, stats.reservations, stats.depth), (1, 1, 0));
    assert_eq!(crowd.inserts_on_the_wire().len(), 2);
}

/// One caller costs what it costs without: the ORM's own statement, and nothing else.
pub fn a_lone_insert_is_sent_as_it_is<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 1, GroupCommit::new());
    let (sql, binds) = notes(&["a"]).remove(0);
    crowd.callers[0].rows(sql, &binds).unwrap();
    assert_eq!(crowd.inserts_on_the_wire(), [sql]);
    assert_eq!(crowd.watcher.stats().group_commit.alone, 1);
}

/// A group that fails is undone as a whole, and each of its inserts is sent on its own.
pub fn a_bad_row_alone_gets_its_error<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 5, patient());
    crowd.database.execute("INSERT INTO notes (text) VALUES ('taken')");
    let rows = crowd.together("notes", &notes(&["a", "b", "bad", "c", "taken"]), |_| {});
    let constraint = |rows: &Rows| rows.as_ref().err().and_then(|failure| failure.constraint.clone());
    let failed: Vec<Option<String>> = rows.iter().map(constraint).collect();
    assert_eq!(failed, [None, None, Some("notes_text_check".into()), None, Some("notes_text_key".into())]);
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 4);
    let stats = crowd.stats();
    assert_eq!((stats.fallbacks[&Fallback::Error], stats.rows_fallen_back, stats.groups), (1, 4, 0));
}
