//! Group commit: single-row INSERTs outside of transactions that arrive at the same time (`BatchOptions::group_commit`).

use std::any::type_name;
use std::collections::{HashMap, HashSet};
use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use batch_core::{BatchOptions, Fallback, GroupCommit, GroupStats, Reason, WhenFull};
use batch_support::{Database, Proxy};

use crate::{Adapter, Batching, Cell, Outcome, Session, Value};

const NOTES: &str = "CREATE TABLE notes (id serial PRIMARY KEY, text text UNIQUE CHECK (text <> 'bad'))";
/// A row that is in twice is to be seen.
const NOTES_THAT_MAY_REPEAT: &str = "CREATE TABLE notes (id serial PRIMARY KEY, text text)";
const HOLD_TABLE: &str = "LOCK TABLE notes IN SHARE MODE";
/// For strangers that have locks of their own on the table.
const HOLD_A: &str = "INSERT INTO notes (text) VALUES ('a')";
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

/// A group at a time, which waits for whatever is on its way for as long as it takes.
fn patient() -> GroupCommit {
    GroupCommit::new().groups_per_table(1).lock_timeout(LONG)
}

/// Two groups at a time, however far the server is: on a slow machine it seems so far that all would go alone.
fn side_by_side() -> GroupCommit {
    GroupCommit::new().groups_per_table(2)
}

/// A server next door, and one that is a few milliseconds away.
const DISTANCES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(3)];

impl<A: Adapter> Crowd<A> {
    fn new(schema: &str, callers: usize, group_commit: GroupCommit) -> Self {
        Self::at(Duration::ZERO, schema, callers, group_commit)
    }

    fn at(distance: Duration, schema: &str, callers: usize, group_commit: GroupCommit) -> Self {
        let database = Database::create();
        database.execute(schema);
        let proxy = Proxy::start(database.url(), distance);
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
    /// others queue, and then the lock is released.
    fn together(&mut self, table: &str, statements: &[(&str, Vec<Value>)]) -> Vec<Rows> {
        let hold = format!("LOCK TABLE {table} IN SHARE MODE");
        self.together_with(&hold, statements, |_, _| {}, |_, _| {})
    }

    /// The same, where `hold` is what holds the first up; `queued` sees them all waiting, `released` runs when the lock is gone.
    fn together_with(
        &mut self,
        hold: &str,
        statements: &[(&str, Vec<Value>)],
        queued: impl FnOnce(&Proxy, &mut A::Batched),
        released: impl FnOnce(&Database, &[thread::ScopedJoinHandle<'_, Rows>]),
    ) -> Vec<Rows> {
        assert_eq!(self.callers.len(), statements.len());
        let Self { database, callers, watcher, proxy } = self;
        let database = &*database;
        let mut locker = A::Plain::connect(database.url()).unwrap();
        locker.begin().unwrap();
        locker.script(hold).unwrap();
        database.scope(|scope| {
            let mut threads = Vec::new();
            for (at, (caller, (sql, binds))) in callers.iter_mut().zip(statements).enumerate() {
                threads.push(scope.spawn(move || caller.rows(sql, binds)));
                if at == 0 {
                    until(|| is_waiting(database));
                } else {
                    until(|| watcher.stats().group_commit.depth == at as u64);
                }
            }
            queued(proxy, watcher);
            locker.rollback().unwrap();
            released(database, &threads);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

impl<A: Adapter> Crowd<A> {
    /// Lets all callers run a statement at the same time, as it happens.
    fn at_once(&mut self, statements: &[(&str, Vec<Value>)]) -> Vec<Rows> {
        let Self { database, callers, .. } = self;
        database.scope(|scope| {
            let threads: Vec<_> = callers
                .iter_mut()
                .zip(statements)
                .map(|(caller, (sql, binds))| scope.spawn(move || caller.rows(sql, binds)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

/// Whether a connection waits for a lock.
fn is_waiting(database: &Database) -> bool {
    let waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    database.query(waiting).len() == 1
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

fn ids_by_text(database: &Database) -> HashMap<String, Vec<String>> {
    let mut ids: HashMap<String, Vec<String>> = HashMap::new();
    for row in database.query("SELECT text, id FROM notes") {
        let [Some(text), Some(id)] = <[_; 2]>::try_from(row).unwrap() else { panic!("a NULL") };
        ids.entry(text).or_default().push(id);
    }
    ids
}

fn text(row: &[Cell]) -> String {
    String::from_utf8(row[1].bytes.clone().unwrap()).unwrap()
}

/// What arrives while an insert is on its way is one statement, and everybody gets the own row.
pub fn inserts_that_arrive_together_are_one_statement_and_each_gets_its_own_row<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 8, patient());
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let rows = crowd.together("notes", &notes(&texts));
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

/// Where the way is long, what arrives does not wait for a round trip that is not its own; what is too much for that is grouped.
pub fn where_the_server_is_far_inserts_do_not_wait_for_each_other<A: Adapter>() {
    for callers in [6, 40] {
        let mut crowd = Crowd::<A>::at(Duration::from_millis(5), NOTES, callers, GroupCommit::new());
        crowd.watcher.rows(ADD_NOTE, &[Value::text("first")]).unwrap();
        let Crowd { database, callers: crowd_callers, .. } = &mut crowd;
        database.scope(|scope| {
            for (number, caller) in crowd_callers.iter_mut().enumerate() {
                scope.spawn(move || {
                    for at in 0..5 {
                        caller.rows(ADD_NOTE, &[Value::text(&format!("{number} {at}"))]).unwrap();
                    }
                });
            }
        });
        let stats = crowd.stats();
        assert_eq!(stats.inserts, 1 + 5 * callers as u64, "{stats}");
        match callers {
            // There is a place for each; two that come in the same moment may go together all the same.
            6 => assert!(stats.rows < stats.alone, "{stats}"),
            _ => assert!(stats.rows > 0, "{stats}"),
        }
    }
}

/// Groups side by side that want the same keys, in any order: each key is in once, and all others are told that it is taken.
pub fn of_those_who_want_the_same_key_one_gets_it_whatever_group_they_are_in<A: Adapter>() {
    const CALLERS: usize = 20;
    const INSERTS: usize = 8;
    // Two of them others want too, in another order.
    let key = |caller: usize, at: usize| match at {
        3 => caller % 4,
        4 => (caller + 1) % 4,
        _ => 100 + caller * INSERTS + at,
    };
    let mut crowd = Crowd::<A>::at(Duration::from_millis(3), NOTES, CALLERS, GroupCommit::new());
    // Who meets whom in a group is chance: most rounds have a group in which somebody's key is taken, not each of them.
    for round in 0..20 {
        let Crowd { database, callers, .. } = &mut crowd;
        let told: Vec<(String, Rows)> = database.scope(|scope| {
            let threads: Vec<_> = callers
                .iter_mut()
                .enumerate()
                .map(|(number, caller)| {
                    let keys = (0..INSERTS).map(move |at| format!("{round}, {}", key(number, at)));
                    let insert = |key: String| (key.clone(), caller.rows(ADD_NOTE, &[Value::text(&key)]));
                    scope.spawn(move || keys.map(insert).collect::<Vec<_>>())
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let mut has_it = HashSet::new();
        for (key, rows) in &told {
            match rows {
                Ok(rows) => assert!(rows.len() == 1 && has_it.insert(key), "{key}"),
                Err(failure) => assert_eq!(failure.constraint.as_deref(), Some("notes_text_key"), "{failure}"),
            }
        }
        let keys = told.iter().map(|(key, _)| key).collect::<HashSet<_>>();
        assert!(keys.len() < told.len() && keys == has_it);
        let are_in = format!("SELECT count(*) FROM notes WHERE text LIKE '{round}, %'");
        assert_eq!(crowd.count(&are_in), keys.len() as i64);
        let stats = crowd.stats();
        if stats.rows > 0 && stats.rows_fallen_back > 0 {
            break;
        }
    }
    let stats = crowd.stats();
    assert!(stats.rows > 0 && stats.rows_fallen_back > 0, "{stats}");
    // Each had the ids that it asked for.
    assert!(!stats.fallbacks.contains_key(&Fallback::Ids), "{stats}");
}

/// A group that fails is undone as a whole. Its halves are sent instead, one of them row by row, and of the other the row whose key is
/// taken is left out.
pub fn a_bad_row_alone_gets_its_error<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 5, patient());
    crowd.database.execute("INSERT INTO notes (text) VALUES ('taken')");
    let rows = crowd.together("notes", &notes(&["a", "b", "bad", "c", "taken"]));
    let constraint = |rows: &Rows| rows.as_ref().err().and_then(|failure| failure.constraint.clone());
    let failed: Vec<Option<String>> = rows.iter().map(constraint).collect();
    assert_eq!(failed, [None, None, Some("notes_text_check".into()), None, Some("notes_text_key".into())]);
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 4);
    let stats = crowd.stats();
    assert_eq!((stats.fallbacks[&Fallback::Error], stats.rows_fallen_back, stats.groups), (1, 3, 1));
    assert_eq!(stats.halved, 1);
}

/// ON CONFLICT refuses a table with a constraint that is checked at the end: what is taken there fails its group as any other error does.
pub fn a_key_that_is_checked_late_is_refused_as_it_would_be<A: Adapter>() {
    let schema = format!("{NOTES}; ALTER TABLE notes ADD n int UNIQUE DEFERRABLE INITIALLY DEFERRED");
    let mut crowd = Crowd::<A>::new(&schema, 4, patient());
    crowd.database.execute("INSERT INTO notes (text, n) VALUES ('first', 1)");
    const ADD: &str = "INSERT INTO notes (text, n) VALUES ($1, $2) RETURNING id, text";
    let statements =
        [("a", 2), ("b", 3), ("c", 1), ("first", 4)].map(|(text, n)| (ADD, vec![Value::text(text), Value::int4(n)]));
    let rows = crowd.together("notes", &statements);
    let constraint = |rows: &Rows| rows.as_ref().err().and_then(|failure| failure.constraint.clone());
    let failed: Vec<Option<String>> = rows.iter().map(constraint).collect();
    assert_eq!(failed, [None, None, Some("notes_n_key".into()), Some("notes_text_key".into())]);
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 3);
    assert!(!crowd.inserts_on_the_wire().iter().any(|sql| sql.contains("ON CONFLICT")));
}

/// Of rows that a group leaves out each gets its error, whichever constraint it is of and whatever the program asks for; the
/// others are in, each once.
pub fn rows_whose_keys_are_taken_are_left_out_of_their_groups<A: Adapter>() {
    let schema = format!("{NOTES}; ALTER TABLE notes ADD n int, ADD EXCLUDE USING btree ((n + 0) WITH =)");
    for asked in ["", " RETURNING id, text"] {
        let mut crowd = Crowd::<A>::new(&schema, 7, patient());
        crowd.database.execute("INSERT INTO notes (text, n) VALUES ('first', 1)");
        let sql = format!("INSERT INTO notes (text, n) VALUES ($1, $2){asked}");
        let rows = [("a", 2), ("b", 3), ("first", 4), ("c", 1), ("d", 5), ("d", 6), ("e", 7)];
        let statements = rows.map(|(text, n)| (sql.as_str(), vec![Value::text(text), Value::int4(n)]));
        let told = crowd.together("notes", &statements);
        let constraint = |rows: &Rows| rows.as_ref().err().and_then(|failure| failure.constraint.clone());
        let failed: Vec<Option<String>> = told.iter().map(constraint).collect();
        let (key, exclusion) = (Some("notes_text_key".to_owned()), Some("notes_expr_excl".to_owned()));
        assert_eq!(failed, [None, None, key.clone(), exclusion, None, key, None], "{asked}");
        for ((name, _), rows) in rows.iter().zip(&told).filter(|(_, rows)| rows.is_ok() && !asked.is_empty()) {
            assert_eq!(text(&rows.as_ref().unwrap()[0]), *name);
        }
        assert_eq!(crowd.count("SELECT count(*) FROM notes"), 5);
        let stats = crowd.stats();
        assert_eq!((stats.groups, stats.rows, stats.rows_fallen_back, stats.halved), (1, 3, 3, 0), "{asked}: {stats}");
    }
}

/// Once a group has brought ids for those after it, none asks for its own, but that of the caller who was alone at first: Postgres gave it an
/// id that nobody was told.
pub fn ids_for_later_groups_come_with_the_rows_of_a_group<A: Adapter>() {
    const CALLERS: usize = 4;
    let mut crowd = Crowd::<A>::new(NOTES, CALLERS, patient());
    let mut told = crowd.together("notes", &notes(&["a", "b", "c", "d"]));
    for round in 0..20 {
        let texts = [0, 1, 2, 3].map(|n| format!("{round} {n}"));
        told.extend(crowd.at_once(&notes(&texts.each_ref().map(String::as_str))));
    }
    let stats = crowd.stats();
    assert!(stats.reservations <= 2 && stats.alone == 1, "{stats}");
    assert!(stats.ids_reserved * 100 <= stats.ids_used * 105 + 800, "{stats}");
    for row in told {
        let row = &row.unwrap()[0];
        assert_eq!(
            (row.len(), crowd.count(&format!("SELECT id FROM notes WHERE text = '{}'", text(row)))),
            (2, row[0].int())
        );
    }
}

/// Whether groups pay is measured: inserts go as they are for a while, and nobody can tell. Not where groups are wanted always.
pub fn inserts_go_in_groups_and_as_they_are_by_turns<A: Adapter>() {
    const ROWS: usize = 1_600;
    for always in [false, true] {
        let options = if always { GroupCommit::new().always() } else { GroupCommit::new() };
        let mut crowd = Crowd::<A>::new(NOTES, 1, options);
        let caller = &mut crowd.callers[0];
        let mut last = 0;
        for n in 0..ROWS {
            let row = caller.one(ADD_NOTE, &[Value::text(&format!("note {n}"))]).unwrap();
            assert!(row.int() > last, "{} after {last}", row.int());
            last = row.int();
        }
        assert_eq!(crowd.count("SELECT count(*) FROM notes"), ROWS as i64);
        let stats = crowd.callers[0].stats();
        let as_they_are = stats.inserts_sent.get(&Reason::GroupsAreSlower).copied().unwrap_or_default();
        assert!(if always { as_they_are == 0 } else { as_they_are >= 100 }, "{stats}");
        assert_eq!(stats.inserts_seen, ROWS as u64, "{stats}");
    }
}

/// A group gives up on a lock of a stranger's, so that only whoever needs it waits for it.
pub fn no_insert_waits_for_a_lock_that_another_insert_waits_for<A: Adapter>() {
    // Time enough for all to queue behind the first.
    let mut crowd = Crowd::<A>::new(NOTES, 4, patient().lock_timeout(Duration::from_secs(3)));
    let mut stranger = A::Plain::connect(crowd.database.url()).unwrap();
    stranger.begin().unwrap();
    stranger.script("INSERT INTO notes (text) VALUES ('held')").unwrap();
    let texts = ["a", "b", "held", "c"];
    let rows = crowd.together_with(
        HOLD_A,
        &notes(&texts),
        |_, _| {},
        |_, threads| {
            until(|| threads.iter().filter(|thread| thread.is_finished()).count() == 3);
            assert!(!threads[2].is_finished());
            stranger.commit().unwrap();
        },
    );
    let is_in: Vec<bool> = rows.iter().map(Result::is_ok).collect();
    assert_eq!(is_in, [true, true, false, true]);
    assert_eq!(rows[2].as_ref().unwrap_err().constraint.as_deref(), Some("notes_text_key"));
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 4);
}

/// A lone insert that waits for a lock does not hold up those that come after it.
pub fn inserts_do_not_queue_for_ever_behind_one_that_waits_for_a_lock<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 3, GroupCommit::new().groups_per_table(1));
    let mut stranger = A::Plain::connect(crowd.database.url()).unwrap();
    stranger.begin().unwrap();
    stranger.script("INSERT INTO notes (text) VALUES ('held')").unwrap();
    let Crowd { database, callers, .. } = &mut crowd;
    let database = &*database;
    let add = |caller: &mut A::Batched, text: &str| caller.rows(ADD_NOTE, &[Value::text(text)]);
    database.scope(|scope| {
        let [first, others @ ..] = callers.as_mut_slice() else { unreachable!() };
        let held = scope.spawn(move || add(first, "held"));
        until(|| is_waiting(database));
        for (at, other) in others.iter_mut().enumerate() {
            add(other, &format!("free {at}")).unwrap();
        }
        assert!(!held.is_finished());
        stranger.rollback().unwrap();
        held.join().unwrap().unwrap();
    });
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 3);
}

/// A deadlock ends one of both; a group that it ends is sent again.
pub fn a_group_that_is_ended_by_a_deadlock_is_sent_again<A: Adapter>() {
    // Postgres looks for a deadlock once, so long after the wait has begun: the stranger has to be there by then.
    let later =
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 4000', current_database()); END $$";
    let mut crowd = Crowd::<A>::new(&format!("{NOTES}; {later}"), 3, patient());
    let mut stranger = A::Plain::connect(crowd.database.url()).unwrap();
    // It looks later than the group, which is thus the one that ends.
    stranger.script("SET deadlock_timeout = '60s'").unwrap();
    stranger.begin().unwrap();
    stranger.script("INSERT INTO notes (text) VALUES ('second')").unwrap();
    let rows = crowd.together_with(
        HOLD_A,
        &notes(&["a", "first", "second"]),
        |_, _| {},
        |database, threads| {
            until(|| threads[0].is_finished());
            until(|| is_waiting(database));
            stranger.script("INSERT INTO notes (text) VALUES ('first')").unwrap();
            stranger.rollback().unwrap();
        },
    );
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
    let stats = crowd.stats();
    // Under load the stranger may be late again.
    assert!(stats.retries >= 1, "{stats:?}");
    assert_eq!((stats.groups, stats.rows), (1, 2), "{stats:?}");
}

/// Over capacity callers wait, or have an error at once that says so.
pub fn over_capacity_an_insert_is_refused_where_the_options_say_so<A: Adapter>() {
    let options = patient().max_queued_rows(2).when_full(WhenFull::Refuse);
    let mut crowd = Crowd::<A>::new(NOTES, 3, options);
    let mut refused = None;
    let queued = |_: &Proxy, watcher: &mut A::Batched| {
        refused = watcher.rows(ADD_NOTE, &[Value::text("too much")]).err();
    };
    let rows = crowd.together_with(HOLD_TABLE, &notes(&["a", "b", "c"]), queued, |_, _| {});
    assert!(rows.iter().all(Result::is_ok));
    let message = refused.unwrap().message;
    assert!(message.contains("over capacity") && message.contains("public.notes"), "{message}");
    assert_eq!((crowd.count("SELECT count(*) FROM notes"), crowd.stats().refused), (3, 1));
    // There is room again.
    crowd.watcher.rows(ADD_NOTE, &[Value::text("d")]).unwrap();
}

/// Without that option they wait until there is room, and nothing is lost.
pub fn over_capacity_inserts_wait_for_room<A: Adapter>() {
    const CALLERS: usize = 12;
    let mut crowd = Crowd::<A>::new(NOTES, CALLERS, GroupCommit::new().max_queued_rows(2).max_rows(2));
    let Crowd { database, callers, .. } = &mut crowd;
    database.scope(|scope| {
        for (number, caller) in callers.iter_mut().enumerate() {
            scope.spawn(move || {
                for at in 0..20 {
                    caller.rows(ADD_NOTE, &[Value::text(&format!("{number} {at}"))]).unwrap();
                }
            });
        }
    });
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), CALLERS as i64 * 20);
    let stats = crowd.stats();
    assert_eq!((stats.max_depth, stats.depth, stats.refused), (2, 0, 0), "{stats:?}");
}

/// A shutdown takes nothing more, and waits for what is there.
pub fn a_shutdown_drains_the_queue_and_then_refuses<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 3, patient());
    let mut late = None;
    let queued = |_: &Proxy, watcher: &mut A::Batched| {
        // Everything is held up: it cannot be done by now.
        let left = watcher.shut_down(Duration::ZERO);
        assert_eq!((left.unsent.as_slice(), left.under_way.len()), (&[("public.notes".to_owned(), 2)][..], 1));
        late = watcher.rows(ADD_NOTE, &[Value::text("late")]).err();
    };
    let rows = crowd.together_with(HOLD_TABLE, &notes(&["a", "b", "c"]), queued, |_, _| {});
    assert!(rows[0].is_ok());
    for failure in [rows[1].as_ref().unwrap_err(), rows[2].as_ref().unwrap_err(), &late.unwrap()] {
        assert!(failure.message.contains("shut down") && failure.message.contains("not sent"), "{failure}");
    }
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 1);
    crowd.watcher.enable(BatchOptions::new().group_commit(patient())).unwrap();
    let rows = crowd.together_with(HOLD_TABLE, &notes(&["d", "e", "f"]), |_, _| {}, |_, _| {});
    assert!(rows.iter().all(Result::is_ok));
    assert!(crowd.watcher.shut_down(LONG).is_complete());
}

/// While there is time everything that is queued is committed.
pub fn a_shutdown_waits_for_what_is_queued<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 4, patient());
    let mut stopper = A::Batched::several(crowd.proxy.url(), 1).unwrap().remove(0);
    thread::scope(|scope| {
        let mut stopped = None;
        let rows = crowd.together_with(
            HOLD_TABLE,
            &notes(&["a", "b", "c", "d"]),
            |_, _| {
                stopped = Some(scope.spawn(move || stopper.shut_down(LONG)));
                thread::sleep(Duration::from_millis(50));
            },
            |_, _| {},
        );
        assert!(rows.iter().all(Result::is_ok), "{rows:?}");
        assert!(stopped.unwrap().join().unwrap().is_complete());
    });
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 4);
    assert!(crowd.callers[0].rows(ADD_NOTE, &[Value::text("late")]).is_err());
}

/// The server answers, so more may join than may wait: jsonb, volatile defaults, generated columns, arrays.
pub fn what_only_postgres_can_answer_joins_a_group_too<A: Adapter>() {
    let schema = "CREATE TABLE things (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        number numeric(6, 2),
        about jsonb,
        list int[],
        at timestamptz DEFAULT clock_timestamp(),
        chance float8 DEFAULT random(),
        twice numeric GENERATED ALWAYS AS (number * 2) STORED,
        kind text DEFAULT 'plain'
    )";
    let sql = r#"INSERT INTO "things" ("number", "about", "list") VALUES ($1, $2, $3) RETURNING *"#;
    let numbers = ["1.005", "2.5", "3", "4"];
    let statements: Vec<_> = numbers
        .iter()
        .enumerate()
        .map(|(at, number)| {
            let list = if at == 2 { Value::int4_array(&[]).null() } else { Value::int4_array(&[at as i32, 7]) };
            (sql, vec![Value::numeric(number), Value::jsonb(r#"{"b": 1.50, "a": [1]}"#), list])
        })
        .collect();
    let mut crowd = Crowd::<A>::new(schema, 4, patient());
    let rows = crowd.together("things", &statements);
    assert_eq!((crowd.stats().groups, crowd.stats().rows), (1, 3));
    let mut plain = A::Plain::connect(crowd.database.url()).unwrap();
    for (row, number) in rows.into_iter().zip(["1.01", "2.50", "3.00", "4.00"]) {
        let row = row.unwrap().remove(0);
        let uuid = row[0].bytes.clone().unwrap();
        let stored =
            plain.rows("SELECT * FROM things WHERE id = $1", &[Value::uuid(uuid.try_into().unwrap())]).unwrap();
        assert_eq!(stored, [row]);
        let count =
            format!("SELECT count(*) FROM things WHERE number = {number} AND twice = 2 * {number} AND kind = 'plain'");
        assert_eq!(crowd.count(&count), 1);
    }
    assert_eq!(crowd.count("SELECT count(DISTINCT chance) FROM things"), 4);
}

/// Rows are found again by whatever key the program binds.
pub fn rows_with_keys_of_the_programs_own_join_a_group<A: Adapter>() {
    let schema =
        "CREATE TABLE places (country text, code int8, name text DEFAULT 'unknown', PRIMARY KEY (country, code))";
    let sql = r#"INSERT INTO "places" ("country", "code") VALUES ($1, $2) RETURNING "name", "code", "country""#;
    let mut crowd = Crowd::<A>::new(schema, 5, patient());
    let keys = [("a", 1), ("b", 1), ("b", 2), ("a", 2), ("ab", 12)];
    let statements: Vec<_> =
        keys.iter().map(|(country, code)| (sql, vec![Value::text(country), Value::int4(*code)])).collect();
    let rows = crowd.together("places", &statements);
    for (row, (country, code)) in rows.into_iter().zip(keys) {
        let row = row.unwrap().remove(0);
        assert_eq!(row[1].int(), i64::from(code));
        assert_eq!(row[2].bytes.as_deref(), Some(country.as_bytes()));
    }
    assert_eq!(crowd.stats().rows, 4);
}

/// Where nothing is asked for, the count is that of the own statement.
pub fn inserts_that_ask_for_nothing_join_a_group<A: Adapter>() {
    let mut crowd = Crowd::<A>::new("CREATE TABLE log (line text)", 4, patient());
    let sql = r#"INSERT INTO "log" ("line") VALUES ($1)"#;
    let statements: Vec<_> = ["a", "b", "c", "d"].iter().map(|line| (sql, vec![Value::text(line)])).collect();
    let rows = crowd.together("log", &statements);
    assert!(rows.iter().all(|rows| rows.as_ref().unwrap().is_empty()));
    assert_eq!((crowd.stats().rows, crowd.count("SELECT count(*) FROM log")), (3, 4));
    let caller = &mut crowd.callers[0];
    assert_eq!(caller.run(sql, &[Value::text("e")]).unwrap(), 1);
}

/// What cannot be told apart, or may do more than insert a row, is sent as it is.
pub fn other_inserts_outside_of_transactions_are_sent_as_they_are<A: Adapter>() {
    let schema = "CREATE TABLE plain (id serial PRIMARY KEY, name text);
        CREATE TABLE watched (id serial PRIMARY KEY, name text);
        CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch();
        CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree, name text);
        CREATE FUNCTION secret() RETURNS text LANGUAGE sql AS 'SELECT current_setting(''app.secret'', true)';
        CREATE TABLE secrets (id serial PRIMARY KEY, name text, secret text DEFAULT secret())";
    let mut crowd = Crowd::<A>::new(schema, 1, GroupCommit::new());
    let name = || vec![Value::text("n")];
    let tree = vec![Value::int4(1), Value::text("n")];
    let statements = [
        (r#"INSERT INTO "plain" ("name") VALUES ($1) RETURNING "name""#, name(), Reason::NoKey),
        (r#"INSERT INTO "plain" ("name") VALUES ($1), ($1)"#, name(), Reason::NotInTransaction),
        (r#"INSERT INTO "plain" ("name") VALUES ($1) ON CONFLICT DO NOTHING"#, name(), Reason::OnConflict),
        (r#"INSERT INTO "watched" ("name") VALUES ($1)"#, name(), Reason::Trigger),
        (r#"INSERT INTO "tree" ("id", "name") VALUES ($1, $2)"#, tree, Reason::SelfReference),
        (r#"INSERT INTO "secrets" ("name") VALUES ($1)"#, name(), Reason::VolatileDefault),
    ];
    for (sql, binds, reason) in statements {
        crowd.callers[0].rows(sql, &binds).unwrap();
        assert_eq!(crowd.inserts_on_the_wire().last().map(String::as_str), Some(sql));
        let sent = crowd.callers[0].stats().inserts_sent;
        assert!(sent.contains_key(&reason), "{sql}: {sent:?}");
    }
    assert_eq!(crowd.stats().inserts, 0);
}

/// A session with settings of its own may make something else of a row.
pub fn a_session_with_settings_of_its_own_joins_no_group<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 1, GroupCommit::new());
    crowd.callers[0].script("SET synchronous_commit = off").unwrap();
    crowd.callers[0].rows(ADD_NOTE, &[Value::text("a")]).unwrap();
    assert_eq!(crowd.stats().inserts, 0);
}

/// Nobody's row may get into a transaction that a script has left open.
pub fn a_connection_on_which_a_script_began_a_transaction_leads_no_group<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 3, patient());
    crowd.callers[1].script("SELECT 1; BEGIN").unwrap();
    let Crowd { database, callers, .. } = &mut crowd;
    let locker = &mut A::Plain::connect(database.url()).unwrap();
    locker.begin().unwrap();
    locker.script(HOLD_TABLE).unwrap();
    let database = &*database;
    database.scope(|scope| {
        let mut threads = Vec::new();
        for (caller, text) in callers.iter_mut().zip(["a", "b", "c"]) {
            threads.push(scope.spawn(move || caller.rows(ADD_NOTE, &[Value::text(text)])));
            thread::sleep(Duration::from_millis(20));
        }
        locker.rollback().unwrap();
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
    if A::POOLED {
        // Nobody knows which connection that is, and who runs on it.
        assert_eq!(crowd.stats().rows, 0);
    } else {
        let texts = database.query("SELECT text FROM notes ORDER BY 1").concat();
        assert_eq!(texts, ["a", "c"].map(|text| Some(text.to_owned())));
    }
}

/// §2.4: whoever waits for one id after the other gets them in that order, whatever the inserts go by.
pub fn ids_of_one_caller_increase_in_and_out_of_groups<A: Adapter>() {
    for distance in DISTANCES {
        ids_of_one_caller_increase::<A>(distance);
    }
}

fn ids_of_one_caller_increase<A: Adapter>(distance: Duration) {
    const CALLERS: usize = 12;
    // Several groups side by side, but not so many that all go alone.
    let mut crowd = Crowd::<A>::at(distance, NOTES, CALLERS, GroupCommit::new().groups_per_table(4));
    let Crowd { database, callers, .. } = &mut crowd;
    database.scope(|scope| {
        for (number, caller) in callers.iter_mut().enumerate() {
            scope.spawn(move || {
                let mut last = 0;
                for at in 0..60 {
                    let mut note = Value::text(&format!("{number} {at}"));
                    if at % 17 == number {
                        note = Value::text("bad");
                    }
                    let result = match at % 11 {
                        // Pools give the ids of transactions without looking at those of others.
                        5 if !A::POOLED => caller.transaction(|caller| caller.rows(ADD_NOTE, &[note])),
                        _ => caller.rows(ADD_NOTE, &[note]),
                    };
                    let Ok(rows) = result else { continue };
                    let id = rows[0][0].int();
                    assert!(id > last, "{id} after {last}");
                    last = id;
                }
            });
        }
    });
    let stats = crowd.stats();
    assert!(stats.rows > 0 && stats.rows_fallen_back > 0, "{stats:?}");
}

/// §2.4: `currval` would not know an id that a group gave.
pub fn currval_after_a_group_is_refused<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 3, patient());
    crowd.together("notes", &notes(&["a", "b", "c"])).into_iter().for_each(|rows| drop(rows.unwrap()));
    let failure =
        crowd.callers[1].transaction(|caller| caller.rows("SELECT currval('notes_id_seq')", &[])).unwrap_err();
    assert!(failure.message.contains("currval()"), "{failure}");
}

/// A connection that is lost while a group is on its way: the ids tell whether it is in, and every row is in once.
pub fn a_group_whose_answer_is_lost_is_in_once<A: Adapter>() {
    let mut crowd = Crowd::<A>::new(NOTES, 4, patient());
    let texts = ["a", "b", "c", "d"];
    // The ids are reserved, and then the group is sent: the server runs it, and nobody hears of it.
    let rows = crowd.together_with(HOLD_TABLE, &notes(&texts), |proxy, _| proxy.cut_after_statements(1), |_, _| {});
    for (row, text) in rows.into_iter().zip(texts) {
        let id = row.unwrap_or_else(|failure| panic!("{text}: {failure}"))[0][0].int();
        assert_eq!(crowd.count(&format!("SELECT count(*) FROM notes WHERE id = {id} AND text = '{text}'")), 1);
    }
    assert_eq!(crowd.count("SELECT count(*) FROM notes"), 4);
    let stats = crowd.stats();
    assert_eq!((stats.retries, stats.rows), (1, 3), "{stats:?}");
}

/// Connections are cut at any moment: what a caller was told is in, is in once; what failed is in at most once.
pub fn whatever_connections_are_cut_under_load_every_row_is_in_once<A: Adapter>() {
    for distance in DISTANCES {
        cut_under_load::<A>(distance);
    }
}

fn cut_under_load<A: Adapter>(distance: Duration) {
    const CALLERS: usize = 8;
    const INSERTS: usize = 40;
    let mut crowd = Crowd::<A>::at(distance, NOTES_THAT_MAY_REPEAT, CALLERS, side_by_side().retries(10));
    let Crowd { database, proxy, callers, .. } = &mut crowd;
    let proxy = &*proxy;
    let done = &AtomicUsize::new(0);
    let told: Vec<(String, Option<i64>)> = database.scope(|scope| {
        let threads: Vec<_> = callers
            .iter_mut()
            .enumerate()
            .map(|(number, caller)| {
                scope.spawn(move || {
                    let mut told = Vec::new();
                    for at in 0..INSERTS {
                        let text = format!("{number} {at}");
                        let result = caller.rows(ADD_NOTE, &[Value::text(&text)]);
                        if result.is_err() && !A::POOLED {
                            until(|| A::Batched::connect(proxy.url()).map(|new| *caller = new).is_ok());
                        }
                        done.fetch_add(usize::from(result.is_ok()), Ordering::Relaxed);
                        told.push((text, result.ok().map(|rows| rows[0][0].int())));
                    }
                    told
                })
            })
            .collect();
        let mut random = 7_u32;
        while threads.iter().any(|thread| !thread.is_finished()) {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Connecting anew may take longer than the pause: some have to get through between two cuts.
            let before = done.load(Ordering::Relaxed);
            let some_are_done = || done.load(Ordering::Relaxed) >= before + CALLERS / 2;
            until(|| some_are_done() || threads.iter().all(|thread| thread.is_finished()));
            thread::sleep(Duration::from_micros(2_000 + u64::from(random >> 8) % 60_000));
            match random >> 30 {
                0 => proxy.cut(),
                n => proxy.cut_after_statements(n as usize),
            }
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut committed = 0;
    let ids_of = ids_by_text(&crowd.database);
    for (text, id) in &told {
        let ids = ids_of.get(text).map_or(&[][..], Vec::as_slice);
        match id {
            Some(id) => assert_eq!(ids, [id.to_string()], "{text}"),
            None => assert!(ids.len() <= 1, "{text}: {ids:?}"),
        }
        committed += usize::from(id.is_some());
    }
    let stats = crowd.stats();
    assert!(committed > told.len() / 4 && stats.retries > 0, "{committed} of {}: {stats:?}", told.len());
}

/// `kill -9`: what a caller was told is in, nothing is in twice, and whoever starts next goes on.
pub fn when_a_program_is_killed_every_row_that_a_caller_has_is_in_once<A: Adapter>() {
    // The program is this test again, told by its environment which adapter's and on which database.
    const PROGRAM: &str = "BATCH_TEST_KILLED_PROGRAM";
    let adapter = type_name::<A>();
    if let Ok(program) = env::var(PROGRAM) {
        if let Some((_, url)) = program.split_once(' ').filter(|(of, _)| *of == adapter) {
            insert_until_killed::<A>(url);
        }
        return;
    }
    let database = Database::create();
    database.execute(NOTES_THAT_MAY_REPEAT);
    let mut told: Vec<(String, String)> = Vec::new();
    for rows in [50, 400, 1_000] {
        let mut program = Command::new(env::current_exe().unwrap())
            .args(["when_a_program_is_killed", "--nocapture"])
            .env(PROGRAM, format!("{adapter} {}", database.url()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
        let before = told.len();
        for line in lines {
            let Some((_, row)) = line.split_once("told ") else { continue };
            let (text, id) = row.split_once(' ').unwrap();
            told.push((text.to_owned(), id.to_owned()));
            if told.len() == before + rows {
                program.kill().unwrap();
            }
        }
        assert!(told.len() >= before + rows, "the program ended by itself");
        program.wait().unwrap();
    }
    // What was on its way is the server's to finish.
    let others = "SELECT 1 FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    until(|| database.query(others).is_empty());
    let ids = ids_by_text(&database);
    for (text, id) in &told {
        assert_eq!(ids.get(text), Some(&vec![id.clone()]), "{text}");
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "a row is in twice");
    let groups = database.query("SELECT 1 FROM notes GROUP BY xmin HAVING count(*) > 1");
    assert!(!groups.is_empty(), "no rows went in together");
}

/// Inserts on many connections and prints each row that a caller has.
fn insert_until_killed<A: Adapter>(url: &str) {
    const CALLERS: usize = 8;
    const ADD: &str = r#"INSERT INTO "notes" ("text") VALUES ($1) RETURNING "notes"."id""#;
    let mut callers = A::Batched::several(url, CALLERS).unwrap();
    callers[0].enable(BatchOptions::new().group_commit(side_by_side())).unwrap();
    let program = std::process::id();
    thread::scope(|scope| {
        for (number, caller) in callers.iter_mut().enumerate() {
            scope.spawn(move || {
                for at in 0.. {
                    let text = format!("{program}/{number}/{at}");
                    let id = caller.rows(ADD, &[Value::text(&text)]).unwrap()[0][0].int();
                    // In one piece, or the last line could be half of one.
                    let line = format!("told {text} {id}\n");
                    io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}
