//! The engine against a server that is not there: it keeps what would reach it, and hands out ids.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::json;

use super::*;
use crate::catalog::testing::{IDENTITY, TableRow, column, rows, table};
use crate::statement::testing::{Bind, binds, int4, int4s, int8, null, text};

/// A program on one connection, and the server.
struct Program {
    batch: Batch,
    catalog: Vec<TextRow>,
    /// The session as the server sees it.
    identity: String,
    /// The last id of each sequence, for all connections.
    sequences: Rc<RefCell<HashMap<u32, i64>>>,
    /// What fails when it comes: whatever contains this text.
    broken: Option<&'static str>,
    /// The answer to what was launched.
    flight: Option<Option<Vec<TextRow>>>,
    wire: Vec<String>,
}

/// What a program sees of a statement.
#[derive(Debug, PartialEq)]
enum Seen {
    /// What the server said, once it was sent.
    Sent,
    Answer(Vec<Vec<Option<Vec<u8>>>>),
    Refused(String),
    Error,
}

use Seen::{Error as Failed, Sent};

static DATABASES: AtomicU32 = AtomicU32::new(0);

impl Program {
    /// A program for which batching is on.
    fn new(tables: impl IntoIterator<Item = TableRow>) -> Self {
        Self::with(tables, BatchOptions::new().first_id_block(64))
    }

    fn with(tables: impl IntoIterator<Item = TableRow>, options: BatchOptions) -> Self {
        let mut program = Self::off(tables);
        let step = program.batch.enable(options);
        assert_eq!(program.drive(step, ""), Seen::Answer(vec![]));
        assert_eq!(program.wire(), ["catalog"]);
        program
    }

    fn off(tables: impl IntoIterator<Item = TableRow>) -> Self {
        let database = DATABASES.fetch_add(1, Ordering::Relaxed);
        Self {
            batch: Batch::new(&format!("postgres://me@test/{database}")),
            catalog: rows(tables),
            identity: IDENTITY.to_owned(),
            sequences: Rc::default(),
            broken: None,
            flight: None,
            wire: Vec::new(),
        }
    }

    /// Another connection to the same database.
    fn another(&self) -> Self {
        let mut batch = Batch::of(Arc::clone(&self.batch.site), Arc::clone(&self.batch.login));
        batch = batch.seated(Some(Seat(Arc::clone(&self.batch.database))));
        Self {
            batch,
            catalog: self.catalog.clone(),
            identity: self.identity.clone(),
            sequences: Rc::clone(&self.sequences),
            broken: None,
            flight: None,
            wire: Vec::new(),
        }
    }

    fn run(&mut self, sql: &str) -> Seen {
        self.run_with(sql, [])
    }

    fn run_with(&mut self, sql: &str, values: impl IntoIterator<Item = Bind>) -> Seen {
        let statement = self.batch.recognise(sql);
        let wants = self.batch.wants_binds(&statement);
        let step = self.batch.offer(statement, if wants { binds(values) } else { Binds::default() });
        self.drive(step, sql)
    }

    fn flush(&mut self) -> Seen {
        let step = self.batch.flush();
        self.drive(step, "")
    }

    fn drive(&mut self, mut step: Step, sql: &str) -> Seen {
        for _ in 0..20 {
            step = match step {
                Step::Run(query) if query.ahead => {
                    self.flight = Some(self.serve(&query));
                    self.batch.launched()
                }
                Step::Land => {
                    self.wire.push("landed".to_owned());
                    match self.flight.take().unwrap() {
                        Some(rows) => self.batch.ran(&rows),
                        None => self.batch.failed(Failure::new(())),
                    }
                }
                Step::Run(query) => match self.serve(&query) {
                    Some(rows) => self.batch.ran(&rows),
                    None => self.batch.failed(Failure::new(())),
                },
                Step::Send => {
                    self.wire.push(sql.to_owned());
                    let works = self.works(sql);
                    self.batch.sent(works);
                    return if works { Sent } else { Failed };
                }
                Step::Answer(answer) => {
                    let columns = answer.rows.fields().len();
                    let row = |row| (0..columns).map(|at| answer.rows.get(row, at).map(<[u8]>::to_vec)).collect();
                    return Seen::Answer((0..answer.rows.len()).map(row).collect());
                }
                Step::Join(_) => panic!("no adapter here joins groups"),
                Step::Refuse(error) => return Seen::Refused(error.to_string()),
                Step::Raise(_) => return Failed,
            }
        }
        panic!("the engine goes round in circles");
    }

    fn works(&self, sql: &str) -> bool {
        self.broken.is_none_or(|broken| !sql.contains(broken))
    }

    fn serve(&mut self, query: &Query) -> Option<Vec<TextRow>> {
        let lists = query.sql.split("INSERT").map(|part| part.matches("unnest(").count());
        assert!(query.params.len() <= 65_535 && lists.max() <= Some(1_664), "Postgres would refuse it");
        let (said, rows) = match query.purpose {
            Purpose::Ask if query.params.is_empty() => ("catalog".to_owned(), self.catalog.clone()),
            Purpose::Ask if query.begins => {
                let (said, rows) = self.reserve(query);
                (format!("BEGIN; {said}"), rows)
            }
            Purpose::Ask => self.reserve(query),
            Purpose::Flush if query.sql.contains("SELECT 'now'") || query.sql.contains("SELECT 'ids") => {
                let brings = |what: &str| query.sql.contains(what);
                let (brings_clock, brings_ids) = (brings("SELECT 'now'"), brings("SELECT 'ids"));
                let insert = query.sql.split(" SELECT 'now'").next().unwrap().split(" SELECT 'ids").next().unwrap();
                let (ids, mut rows) = if brings_ids { self.take_ids(query) } else { Default::default() };
                rows.extend(brings_clock.then(now));
                let clock = if brings_clock { " and now" } else { "" };
                let ids = if brings_ids { format!(" and{ids}") } else { ids };
                (format!("{}{clock}{ids}", shortened(insert)), rows)
            }
            Purpose::Flush | Purpose::Control => (query.sql.clone(), Vec::new()),
        };
        let works = self.works(&said);
        self.wire.push(said);
        works.then_some(rows)
    }

    /// Gives the ids that the query asks for.
    fn reserve(&mut self, query: &Query) -> (String, Vec<TextRow>) {
        let mut rows = vec![vec![Some("session".to_owned()), Some(self.identity.clone())], now()];
        let (said, ids) = self.take_ids(query);
        rows.extend(ids);
        (format!("reserve{said}"), rows)
    }

    /// The ids that the last four parameters ask for.
    fn take_ids(&mut self, query: &Query) -> (String, Vec<TextRow>) {
        let first = query.params.len() - 4;
        let numbers = |at: usize| -> Vec<Option<i64>> {
            let array = query.params[first + at].value.as_deref().unwrap();
            let mut rest = array.get(20..).unwrap_or_default();
            let mut numbers = Vec::new();
            while let Some((size, after)) = rest.split_at_checked(4) {
                let size = i32::from_be_bytes(size.try_into().unwrap());
                let (number, after) = after.split_at(usize::try_from(size).unwrap_or(0));
                let number = number.iter().fold(0, |number, &byte| number << 8 | i64::from(byte));
                numbers.push((size > 0).then_some(number));
                rest = after;
            }
            numbers
        };
        let (mut said, mut rows) = (String::new(), Vec::new());
        let (needed, ahead, unless_at) = (numbers(1), numbers(2), numbers(3));
        for (at, sequence) in numbers(0).into_iter().enumerate() {
            let sequence = u32::try_from(sequence.unwrap()).unwrap();
            let mut sequences = self.sequences.borrow_mut();
            let last = sequences.entry(sequence).or_default();
            let is_enough = unless_at[at] == Some(*last);
            let count = if is_enough { 0 } else { needed[at].unwrap() + ahead[at].unwrap() };
            let ids: Vec<String> = (1..=count).map(|n| (*last + n).to_string()).collect();
            rows.push(vec![Some(format!("ids {sequence}")), Some(format!("{last} 1 1000000 {}", ids.join(" ")))]);
            *last += count;
            said.push_str(&format!(" {count} of {sequence}"));
        }
        (said, rows)
    }

    /// What reached the server since this was asked last. Flushes are shortened to their tables, and the savepoint
    /// around a catalog query in a transaction is not shown.
    fn wire(&mut self) -> Vec<String> {
        let sent = std::mem::take(&mut self.wire);
        sent.iter().filter(|sql| !sql.contains("batched_writes")).map(|sql| shortened(sql)).collect()
    }

    /// Inserts a user, whose id is asked for.
    fn user(&mut self, name: &str) -> Seen {
        self.run_with(r#"INSERT INTO "users" ("name") VALUES ($1) RETURNING "id""#, [text(name)])
    }

    /// Begins a transaction in which inserts of users wait, because ids are in stock.
    fn begin_stocked(&mut self) {
        self.run("BEGIN");
        self.user("first");
        self.user("second");
        assert_eq!(self.run("COMMIT"), Sent);
        self.run("BEGIN");
        self.wire();
    }

    fn sent_because(&self, reason: Reason) -> u64 {
        self.batch.stats().inserts_sent.get(&reason).copied().unwrap_or(0)
    }

    fn flushed_by(&self, cause: FlushCause) -> u64 {
        self.batch.stats().flushes.get(&cause).copied().unwrap_or(0)
    }
}

/// The row about the transaction's time.
fn now() -> TextRow {
    vec![Some("now".to_owned()), Some("0000000000000001 0000000000000002 00000003".to_owned())]
}

/// `WITH s0 AS (INSERT INTO "a" …), s1 AS (INSERT INTO "b" …) SELECT` → `flush a b`
fn shortened(sql: &str) -> String {
    if !sql.contains("unnest") {
        return sql.to_owned();
    }
    // Postgres runs them from the last to the first.
    let tables = sql.rsplit("INSERT INTO ").filter_map(|part| part.split([' ', '(']).next());
    let tables = tables.take(sql.matches("INSERT INTO ").count());
    tables.fold("flush".to_owned(), |said, table| format!("{said} {}", table.replace('"', "")))
}

fn id(id: i32) -> Seen {
    Seen::Answer(vec![vec![Some(id.to_be_bytes().to_vec())]])
}

fn waits() -> Seen {
    Seen::Answer(vec![])
}

fn users() -> TableRow {
    table("users").column(column("id", "int4").serial(1)).column(column("name", "text").not_null())
}

/// Without ids, so that its inserts wait from the first.
fn notes() -> TableRow {
    table("notes").column(column("body", "text")).column(column("tags", "int4[]")).column(column("n", "int4"))
}

const NOTE: &str = r#"INSERT INTO "notes" ("body") VALUES ($1)"#;
const INSERT_USER: &str = r#"INSERT INTO "users" ("name") VALUES ($1) RETURNING "id""#;

mod switching {
    use super::*;

    #[test]
    fn turning_it_on_reads_the_catalog_and_is_for_all_connections_to_the_database() {
        let off = Program::off([notes()]);
        assert!(!off.batch.is_on() && !off.another().batch.is_on());
        let program = Program::new([notes()]);
        let mut another = program.another();
        assert!(another.batch.is_on());
        another.run("BEGIN");
        assert_eq!(another.run_with(NOTE, [text("a")]), waits());
        assert_eq!(another.wire(), ["BEGIN"]);
        assert_eq!(another.batch.stats().catalog_reads, 0);
    }

    #[test]
    fn a_server_that_is_not_supported_is_an_error_and_leaves_batching_off() {
        let mut program = Program::off([]);
        let json = r#"{"version":90600,"product":"PostgreSQL 9.6","encoding":"UTF8","identity":"me"}"#;
        program.catalog = vec![vec![Some("session".into()), Some(json.into())]];
        let step = program.batch.enable(BatchOptions::new());
        assert!(matches!(program.drive(step, ""), Seen::Refused(_)));
        assert!(!program.batch.is_on());
    }

    #[test]
    fn without_permission_on_the_catalog_the_program_goes_on_and_batches_once_it_is_there() {
        let mut program = Program::off([notes()]);
        program.broken = Some("catalog");
        let step = program.batch.enable(BatchOptions::new());
        assert_eq!(program.drive(step, ""), Seen::Answer(vec![]));
        assert_eq!(program.wire(), ["catalog", "SELECT 1"]);
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", NOTE, "COMMIT"]);
        assert_eq!(program.sent_because(Reason::CatalogUnreadable), 1);

        program.broken = None;
        program.batch.site.readings.end_pauses();
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.wire(), ["catalog", "BEGIN"]);
    }

    #[test]
    fn a_connection_that_is_lost_is_an_error_of_turning_it_on() {
        let mut program = Program::off([]);
        let step = program.batch.enable(BatchOptions::new());
        assert!(matches!(step, Step::Run(_)));
        let step = program.batch.failed(Failure::new(()));
        assert!(matches!(step, Step::Run(Query { purpose: Purpose::Control, .. })));
        let step = program.batch.failed(Failure::new(()));
        assert_eq!(program.drive(step, ""), Failed);
        assert!(!program.batch.is_on());
    }

    #[test]
    fn new_options_count_from_the_next_transaction() {
        let mut program = Program::new([notes()]);
        let mut another = program.another();
        another.run("BEGIN");
        assert_eq!(another.run_with(NOTE, [text("a")]), waits());
        let step = program.batch.enable(BatchOptions::new().exclude("notes"));
        program.drive(step, "");
        assert_eq!(another.run_with(NOTE, [text("b")]), waits());
        another.run("COMMIT");
        another.run("BEGIN");
        assert_eq!(another.run_with(NOTE, [text("c")]), Sent);
        assert_eq!(another.sent_because(Reason::Excluded), 1);
    }
}

mod waiting {
    use super::*;

    #[test]
    fn the_first_insert_is_sent_the_second_reserves_and_the_third_waits() {
        let mut program = Program::new([users()]);
        program.run("BEGIN");
        assert_eq!(program.user("a"), Sent);
        program.sequences.borrow_mut().insert(1, 1);
        assert_eq!(program.user("b"), id(2));
        assert_eq!(program.user("c"), id(3));
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", INSERT_USER, "reserve 64 of 1", "flush users", "COMMIT"]);
        assert_eq!((program.sent_because(Reason::FirstUse), program.flushed_by(FlushCause::Commit)), (1, 1));
    }

    #[test]
    fn what_is_left_of_a_block_serves_the_next_transaction_and_the_next_connection() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        assert_eq!(program.user("a"), id(2));
        program.run("COMMIT");
        assert_eq!(program.wire(), ["flush users", "COMMIT"]);
        let mut another = program.another();
        another.run("BEGIN");
        assert_eq!(another.user("b"), id(3));
        assert_eq!(another.wire(), ["BEGIN"]);
    }

    #[test]
    fn outside_a_transaction_nothing_waits() {
        let mut program = Program::new([notes()]);
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(program.sent_because(Reason::NotInTransaction), 1);
        assert_eq!(program.run("INSERT INTO notes (body) VALUES (now())"), Sent);
        assert_eq!(program.sent_because(Reason::NotInTransaction), 2);
    }

    #[test]
    fn in_a_read_only_transaction_nothing_waits() {
        let mut program = Program::new([notes()]);
        for begin in [&["BEGIN READ ONLY"][..], &["BEGIN", "SET TRANSACTION READ ONLY"]] {
            for sql in begin {
                program.run(sql);
            }
            program.run_with(NOTE, [text("a")]);
            assert!(!program.batch.has_pending());
            program.run("ROLLBACK");
        }
        assert_eq!(program.sent_because(Reason::ReadOnly), 2);
    }

    #[test]
    fn in_an_aborted_transaction_nothing_waits_until_it_ends() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.broken = Some("SELECT bad");
        assert_eq!(program.run("SELECT bad"), Failed);
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(program.sent_because(Reason::Aborted), 1);
        program.run("ROLLBACK");
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
    }

    #[test]
    fn a_statement_whose_text_does_not_allow_it_is_sent_with_its_reason() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        for (sql, reason) in [
            ("INSERT INTO notes SELECT 1", Reason::Form),
            ("INSERT INTO notes (body) VALUES ('a') ON CONFLICT DO NOTHING", Reason::OnConflict),
            ("INSERT INTO notes (body) VALUES (upper('a'))", Reason::Expression),
            ("INSERT INTO notes (body) VALUES ('a') RETURNING upper(body)", Reason::Returning),
            ("INSERT INTO notes (n) VALUES ('5')", Reason::Literal),
            ("INSERT INTO notes (nobody) VALUES ('a')", Reason::Unknown),
        ] {
            assert_eq!(program.run(sql), Sent, "{sql}");
            assert_eq!(program.sent_because(reason), 1, "{sql}");
        }
        let stats = program.batch.stats();
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (6, 0));
    }

    #[test]
    fn an_insert_that_cannot_wait_goes_out_behind_what_waits() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        let unfit = "INSERT INTO notes (body) VALUES (upper('b'))";
        program.run(unfit);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", unfit]);
        assert_eq!(program.flushed_by(FlushCause::InsertSentAtOnce), 1);
    }

    #[test]
    fn ids_that_nobody_asks_for_are_left_to_postgres() {
        let mut program = Program::new([users()]);
        program.run("BEGIN");
        let unasked = "INSERT INTO users (name) VALUES ($1)";
        assert_eq!(program.run_with(unasked, [text("a")]), waits());
        assert_eq!(program.run_with(unasked, [text("b")]), waits());
        program.run("COMMIT");
        let wire = program.wire.clone();
        assert!(wire[1].starts_with(r#"INSERT INTO users ("name") SELECT c0 FROM"#), "{wire:?}");
        assert_eq!(program.wire(), ["BEGIN", "flush users", "COMMIT"]);
    }

    #[test]
    fn rows_that_postgres_gives_ids_go_out_before_one_whose_id_is_reserved() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        program.run("SELECT setval('s1', 1000)");
        program.run("COMMIT");
        program.run("BEGIN");
        // The settings are looked at again first.
        program.user("a");
        program.user("b");
        program.run("COMMIT");
        let mut other = Program::new([users()]);
        other.run("BEGIN");
        other.run_with("INSERT INTO users (name) VALUES ($1)", [text("a")]);
        other.user("b");
        assert_eq!(other.wire(), ["BEGIN", "flush users", INSERT_USER]);
        assert_eq!(other.flushed_by(FlushCause::Ids), 1);
    }

    #[test]
    fn so_they_do_from_behind_a_savepoint_that_is_held_back() {
        let mut program = Program::with([users()], BatchOptions::new().nested(Nested::Merge));
        program.run("BEGIN");
        program.run_with("INSERT INTO users (name) VALUES ($1)", [text("a")]);
        program.run("SAVEPOINT s");
        program.user("b");
        assert_eq!(program.wire(), ["BEGIN", "flush users", "SAVEPOINT \"s\"", INSERT_USER]);
    }

    #[test]
    fn a_sequence_without_ids_is_left_to_postgres() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        program.user("a");
        program.run("ROLLBACK");
        // What is reserved does not fit into the column.
        program.sequences.borrow_mut().insert(1, i64::from(i32::MAX));
        program.run("TRUNCATE users");
        program.run("BEGIN");
        assert_eq!(program.user("a"), Sent);
        assert_eq!(program.sent_because(Reason::NoIds), 1);
    }

    #[test]
    fn the_transactions_clock_is_asked_for_once_and_only_when_needed() {
        let row = || table("t").column(column("c", "text")).column(column("at", "timestamptz").default("now()"));
        let mut program = Program::new([row()]);
        program.run("BEGIN");
        let asked = "INSERT INTO t (c) VALUES ('b') RETURNING at";
        assert_eq!(program.run("INSERT INTO t (c) VALUES ('a')"), waits());
        let now = Seen::Answer(vec![vec![Some(1_i64.to_be_bytes().to_vec())]]);
        assert_eq!(program.run(asked), now);
        assert_eq!(program.wire(), ["BEGIN", "flush t and now"], "with the rows, whose flush it is");
        assert_eq!(program.run(asked), now);
        assert_eq!(program.wire(), Vec::<String>::new());
        // The next transaction has another.
        program.run("COMMIT");
        program.run("BEGIN");
        assert_eq!(program.run(asked), now);
        assert_eq!(program.wire(), ["flush t", "COMMIT", "BEGIN", "flush t and now"]);
        program.broken = Some("now");
        program.run("COMMIT");
        program.run("BEGIN");
        assert_eq!(program.run(asked), Failed, "its own error");
    }

    #[test]
    fn a_random_uuid_is_made_here() {
        let row = table("t").column(column("id", "uuid").not_null().default("gen_random_uuid()"));
        let mut program = Program::new([row]);
        program.run("BEGIN");
        let mut made = || match program.run("INSERT INTO t DEFAULT VALUES RETURNING id") {
            Seen::Answer(rows) => rows[0][0].clone().unwrap(),
            other => panic!("{other:?}"),
        };
        let (one, two) = (made(), made());
        assert_ne!(one, two);
        assert_eq!((one[6] >> 4, one[8] >> 6), (4, 2));
    }

    #[test]
    fn the_answer_is_what_postgres_would_store() {
        let row = table("t")
            .column(column("a", "bpchar(3)"))
            .column(column("b", "int8").default("7"))
            .column(column("c", "text"));
        let mut program = Program::new([row]);
        program.run("BEGIN");
        let answer = program.run_with("INSERT INTO t (a) VALUES ($1) RETURNING *", [text("x")]);
        let stored = vec![Some(b"x  ".to_vec()), Some(7_i64.to_be_bytes().to_vec()), None];
        assert_eq!(answer, Seen::Answer(vec![stored]));
    }

    #[test]
    fn several_rows_get_ids_in_their_order() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        let sql = "INSERT INTO users (name) VALUES ($1), ($2) RETURNING id";
        let answer = program.run_with(sql, [text("a"), text("b")]);
        let rows = [2, 3].map(|id: i32| vec![Some(id.to_be_bytes().to_vec())]);
        assert_eq!(answer, Seen::Answer(rows.to_vec()));
    }
}

mod flushing {
    use super::*;

    #[test]
    fn what_waits_goes_out_before_any_other_statement() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        for sql in
            ["SELECT 1", "UPDATE notes SET n = 1", "LISTEN a", "FETCH c", "SELECT 1; SELECT 2", "EXPLAIN SELECT 1"]
        {
            program.run_with(NOTE, [text("a")]);
            program.wire();
            assert_eq!(program.run(sql), Sent);
            assert_eq!(program.wire(), ["flush notes", sql]);
            // FETCH may have changed the settings.
            program.run("COMMIT");
            program.run("BEGIN");
            program.run_with(NOTE, [text("a")]);
            program.run_with(NOTE, [text("a")]);
            program.flush();
        }
        assert_eq!(program.flushed_by(FlushCause::Statement), 6);
    }

    #[test]
    fn a_flush_may_be_asked_for() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        assert_eq!(program.flush(), waits());
        program.run_with(NOTE, [text("a")]);
        assert!(program.batch.has_pending());
        assert_eq!(program.flush(), waits());
        assert!(!program.batch.has_pending());
        assert_eq!(program.wire(), ["BEGIN", "flush notes"]);
        assert_eq!(program.flushed_by(FlushCause::Explicit), 1);
    }

    #[test]
    fn rollback_discards_what_waits() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.run("ROLLBACK");
        assert!(!program.batch.has_pending());
        assert_eq!(program.wire(), ["BEGIN", "ROLLBACK"]);
        assert_eq!(program.batch.stats().rows_discarded, 1);
    }

    #[test]
    fn a_flush_that_fails_is_the_error_of_the_statement_behind_it_which_is_not_sent() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.broken = Some("notes");
        assert_eq!(program.run("SELECT 1"), Failed);
        assert_eq!(program.wire(), ["BEGIN", "flush notes"]);
        assert!(!program.batch.has_pending());
        assert_eq!(program.run_with(NOTE, [text("b")]), Failed);
        assert_eq!(program.sent_because(Reason::Aborted), 1);
    }

    #[test]
    fn a_flush_that_fails_at_commit_rolls_back_and_is_the_error_of_the_commit() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.broken = Some("notes");
        assert_eq!(program.run("COMMIT"), Failed);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "ROLLBACK"]);
        // The transaction has ended.
        program.broken = None;
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
    }

    #[test]
    fn a_rollback_behind_it_that_fails_as_well_ends_the_transaction_too() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.broken = Some("");
        assert_eq!(program.run("COMMIT"), Failed);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "ROLLBACK"]);
        assert!(!program.batch.transaction.open && program.batch.transaction.aborted.is_none());
    }

    #[test]
    fn a_reservation_that_fails_is_an_error_and_leaves_nothing_behind() {
        let mut program = Program::new([users(), notes()]);
        program.run("BEGIN");
        program.user("a");
        program.run_with(NOTE, [text("a")]);
        program.broken = Some("reserve");
        assert_eq!(program.user("b"), Failed);
        assert!(!program.batch.has_pending());
        program.broken = None;
        program.wire();
        // The server would roll back without an error, and the program did not abort the transaction.
        assert_eq!(program.run("COMMIT"), Failed);
        assert_eq!(program.wire(), ["ROLLBACK"]);
    }

    #[test]
    fn the_budget_of_rows_is_never_exceeded() {
        let mut program = Program::with([notes()], BatchOptions::new().max_rows(2));
        program.run("BEGIN");
        for _ in 0..5 {
            assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        }
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "flush notes"]);
        assert_eq!(program.flushed_by(FlushCause::Budget), 2);
        let three = "INSERT INTO notes (body) VALUES ('a'), ('b'), ('c')";
        assert_eq!(program.run(three), Sent);
        assert_eq!(program.sent_because(Reason::LargerThanBudget), 1);
    }

    #[test]
    fn the_budget_of_bytes_is_never_exceeded() {
        // An array of two texts, with what stands before it.
        let mut program = Program::with([notes()], BatchOptions::new().max_bytes(26 + 2 * 14));
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("ten bytes.")]), waits());
        assert_eq!(program.run_with(NOTE, [text("ten bytes.")]), waits());
        assert_eq!(program.run_with(NOTE, [text("ten bytes.")]), waits());
        assert_eq!(program.flushed_by(FlushCause::Budget), 1);
        assert_eq!(program.run_with(NOTE, [text(&"x".repeat(25))]), Sent);
        assert_eq!(program.sent_because(Reason::LargerThanBudget), 1);
    }

    #[test]
    fn a_statement_never_gets_more_parameters_than_postgres_takes() {
        let options = BatchOptions::new().max_rows(100_000).max_bytes(1 << 30);
        let mut program = Program::with([notes()], options);
        program.run("BEGIN");
        let many = format!("INSERT INTO notes (body) VALUES {}", vec!["('a')"; 25_000].join(", "));
        assert_eq!(program.run(&many), waits());
        // With one array among them, all rows travel value by value.
        assert_eq!(program.run_with("INSERT INTO notes (tags) VALUES ($1)", [int4s(&[1])]), waits());
        assert_eq!(program.run(&many), waits());
        assert_eq!(program.flushed_by(FlushCause::Budget), 0);
        assert_eq!(program.run(&many), waits());
        assert_eq!(program.flushed_by(FlushCause::Budget), 1);
    }

    #[test]
    fn whatever_columns_rows_give_no_statement_is_larger_than_postgres_takes() {
        let wide = |at: usize| {
            let columns = (0..940).map(|n| {
                let column = column(&format!("c{n}"), "int4");
                if n % 5 == 0 { column } else { column.default("7") }
            });
            let table = table(&format!("t{at}")).column(column("id", "int4").serial(at as u32 + 1));
            columns.fold(table, TableRow::column)
        };
        let mut state = 7_u64;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) as usize % n
        };
        for (tables, rows) in [(2, 60), (45, 90)] {
            let mut program = Program::with((0..tables).map(wide), BatchOptions::new().nested(Nested::Merge));
            program.run("BEGIN");
            let mut names = 0;
            for row in 0..rows {
                match below(12) {
                    0 if tables == 2 => {
                        names += 1;
                        program.run(&format!("SAVEPOINT s{names}"));
                    }
                    1 if names > 0 => {
                        program.run(&format!("RELEASE SAVEPOINT s{names}"));
                        names -= 1;
                    }
                    _ => {}
                }
                // Few different texts, as parsing takes its time.
                let (from, to) = [(0, 940), (0, 470), (470, 940)][below(3)];
                let columns: Vec<String> = (from..to).map(|n| format!("c{n}")).collect();
                let values = vec!["1"; columns.len()].join(", ");
                let sql = format!("INSERT INTO t{} ({}) VALUES ({values})", row % tables, columns.join(", "));
                assert_eq!(program.run(&sql), waits());
            }
            assert_eq!(program.run("COMMIT"), Sent);
            assert!(program.flushed_by(FlushCause::Budget) > 0);
            assert_eq!(program.batch.stats().rows_flushed, rows as u64);
        }
    }

    #[test]
    fn a_column_bound_with_another_type_waits_behind_a_flush() {
        let mut program = Program::new([notes()]);
        let insert = "INSERT INTO notes (n) VALUES ($1)";
        program.run("BEGIN");
        assert_eq!(program.run_with(insert, [int4(1)]), waits());
        assert_eq!(program.run_with(insert, [int8(2)]), waits());
        assert_eq!(program.wire(), ["BEGIN", "flush notes"]);
        assert_eq!(program.flushed_by(FlushCause::BindType), 1);
    }

    #[test]
    fn an_id_that_the_program_gives_waits_with_those_that_were_reserved() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        let cast = "INSERT INTO users (id, name) VALUES (CAST($1 AS int4), 'a') RETURNING id";
        assert_eq!(program.run_with(cast, [int4(700)]), id(700));
        assert_eq!(program.user("b"), id(2));
        assert_eq!(program.wire(), [""; 0]);
    }

    fn family() -> [TableRow; 2] {
        let parents = table("parents").column(column("id", "int4").not_null());
        let children = table("children").column(column("parent", "int4")).references(&["parent"], "parents", &["id"]);
        [parents, children]
    }

    #[test]
    fn a_child_before_its_parent_fails_as_it_would_have() {
        let mut program = Program::new(family());
        program.run("BEGIN");
        program.run_with("INSERT INTO parents (id) VALUES ($1)", [int4(1)]);
        program.run_with("INSERT INTO children (parent) VALUES ($1)", [int4(1)]);
        program.run_with("INSERT INTO parents (id) VALUES ($1)", [int4(2)]);
        program.run_with("INSERT INTO children (parent) VALUES ($1)", [int4(3)]);
        assert_eq!(program.flushed_by(FlushCause::ForeignKey), 0);
        // 3 comes too late: the child has to be seen without it.
        program.run_with("INSERT INTO parents (id) VALUES ($1)", [int4(3)]);
        assert_eq!(program.wire(), ["BEGIN", "flush parents children"]);
        assert_eq!(program.flushed_by(FlushCause::ForeignKey), 1);
    }

    #[test]
    fn tables_go_out_in_the_order_of_first_use() {
        let mut program = Program::new(family());
        program.run("BEGIN");
        for sql in ["INSERT INTO children (parent) VALUES (1)", "INSERT INTO parents (id) VALUES (2)"] {
            program.run(sql);
        }
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", "flush children parents", "COMMIT"]);
    }
}

mod ddl {
    use super::*;

    const CREATE: &str = "CREATE TABLE t (a int4)";

    fn with_event_triggers(exist: bool) -> Program {
        let mut program = Program::off([notes()]);
        let session = program.catalog[0][1].as_mut().unwrap();
        *session = session.replace(r#""event_triggers":false"#, &format!(r#""event_triggers":{exist}"#));
        let step = program.batch.enable(BatchOptions::new());
        program.drive(step, "");
        program.wire();
        program
    }

    #[test]
    fn a_table_that_is_made_changes_nothing_about_the_session() {
        let mut program = with_event_triggers(false);
        program.run(CREATE);
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.wire(), [CREATE, "catalog", "BEGIN"]);
    }

    #[test]
    fn where_event_triggers_run_a_pools_connections_may_be_others_after_it() {
        for exist in [false, true] {
            let program = with_event_triggers(exist);
            let mut pool = program.batch.transaction();
            let create = pool.recognise(CREATE);
            pool.ran_outside(&create, None);
            assert_eq!(pool.session.stays_unsettled, exist);
        }
    }
}

mod late_begin {
    use super::*;

    fn holding(tables: impl IntoIterator<Item = TableRow>) -> Program {
        let mut program = Program::new(tables);
        program.batch = program.batch.transaction().seated(program.batch.seat()).holds_begin().begin_travels();
        program
    }

    #[test]
    fn a_transaction_of_inserts_is_one_statement() {
        let mut program = holding([notes()]);
        assert_eq!(program.run("BEGIN"), waits());
        assert!(!program.batch.is_on_server());
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.run("COMMIT"), waits());
        assert_eq!(program.wire(), ["flush notes"]);
        assert_eq!(program.flushed_by(FlushCause::Commit), 1);
        assert_eq!(program.run_with(NOTE, [text("outside")]), Sent);
    }

    #[test]
    fn a_transaction_without_work_is_not_sent() {
        let mut program = holding([notes()]);
        for end in ["COMMIT", "ROLLBACK"] {
            program.run("BEGIN");
            assert_eq!(program.run(end), waits());
        }
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        assert_eq!(program.run("ROLLBACK"), waits());
        assert_eq!(program.wire(), Vec::<String>::new());
        assert_eq!(program.batch.stats().rows_discarded, 1);
    }

    #[test]
    fn begin_goes_before_whatever_else_is_sent() {
        for (statement, sent) in [
            ("SELECT 1", vec!["BEGIN", "flush notes", "SELECT 1", "COMMIT"]),
            ("SAVEPOINT s", vec!["BEGIN", "flush notes", "SAVEPOINT s", "COMMIT"]),
            ("BEGIN", vec!["BEGIN", "flush notes", "BEGIN", "COMMIT"]),
            ("COMMIT AND CHAIN", vec!["BEGIN", "flush notes", "COMMIT AND CHAIN", "COMMIT"]),
            ("INSERT INTO notes SELECT", vec!["BEGIN", "flush notes", "INSERT INTO notes SELECT", "COMMIT"]),
        ] {
            let mut program = holding([notes()]);
            program.run("BEGIN");
            program.run_with(NOTE, [text("a")]);
            assert_eq!(program.run(statement), Sent, "{statement}");
            assert!(program.batch.is_on_server() || statement.starts_with("COMMIT"));
            assert_eq!(program.run("COMMIT"), Sent);
            assert_eq!(program.wire(), sent);
        }
        let mut program = holding([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.flush();
        program.run_with(NOTE, [text("b")]);
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "flush notes", "COMMIT"]);
    }

    #[test]
    fn a_flush_of_several_statements_needs_a_transaction() {
        let mut program = holding([notes()]);
        program.batch.site.enable(BatchOptions::new().max_rows(2));
        program.run("BEGIN");
        for _ in 0..3 {
            program.run_with(NOTE, [text("a")]);
        }
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "flush notes", "COMMIT"]);
    }

    #[test]
    fn begin_travels_with_the_question_for_ids() {
        let mut program = holding([users()]);
        program.run("BEGIN");
        assert_eq!(program.user("a"), id(1));
        assert!(program.batch.is_on_server());
        assert_eq!(program.run("COMMIT"), Sent);
        assert_eq!(program.wire(), ["BEGIN; reserve 64 of 1", "flush users", "COMMIT"]);
        program.run("BEGIN");
        assert_eq!(program.user("b"), id(2));
        program.run("COMMIT");
        assert_eq!(program.wire(), ["flush users"]);
    }

    #[test]
    fn a_question_for_ids_that_fails_aborts_the_transaction_as_it_did() {
        let mut program = holding([users()]);
        program.run("BEGIN");
        program.broken = Some("reserve");
        assert_eq!(program.user("a"), Failed);
        program.broken = None;
        assert_eq!(program.user("a"), Sent);
        assert_eq!(program.sent_because(Reason::Aborted), 1);
        assert_eq!(program.run("ROLLBACK"), Sent);
        assert_eq!(program.wire(), ["BEGIN; reserve 64 of 1", INSERT_USER, "ROLLBACK"]);
    }

    #[test]
    fn a_commit_that_fails_leaves_nothing_to_roll_back() {
        let mut program = holding([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.broken = Some("unnest");
        assert_eq!(program.run("COMMIT"), Failed);
        assert!(!program.batch.is_on_server() && !program.batch.has_pending());
        program.broken = None;
        program.run("BEGIN");
        program.run_with(NOTE, [text("b")]);
        assert_eq!(program.run("COMMIT"), waits());
        assert_eq!(program.wire(), ["flush notes", "flush notes"]);
    }

    #[test]
    fn a_begin_that_fails_is_the_error_of_what_needed_it() {
        let mut program = holding([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.broken = Some("BEGIN");
        assert_eq!(program.run("SELECT 1"), Failed);
        assert!(program.batch.is_on_server(), "it may have begun");
    }

    #[test]
    fn a_row_that_takes_now_begins_its_transaction() {
        let table = || table("t").column(column("c", "text")).column(column("at", "timestamptz").default("now()"));
        let mut program = holding([table(), notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        assert_eq!(program.run("INSERT INTO t (c) VALUES ('a')"), waits());
        assert_eq!(program.run("INSERT INTO t (c) VALUES ('b')"), waits());
        assert_eq!(program.wire(), ["BEGIN"]);
        program.run("COMMIT");
        assert_eq!(program.wire(), ["flush notes t", "COMMIT"]);
        // Not where it is given.
        program.run("BEGIN");
        assert_eq!(program.run("INSERT INTO t (c, at) VALUES ('a', NULL)"), waits());
        program.run("COMMIT");
        assert_eq!(program.wire(), ["flush t"]);
        // Where it is asked for, the question comes first and brings BEGIN.
        program.run("BEGIN");
        assert!(matches!(program.run("INSERT INTO t (c) VALUES ('a') RETURNING at"), Seen::Answer(_)));
        assert_eq!(program.wire(), ["BEGIN; reserve"]);
    }

    #[test]
    fn a_catalog_is_read_outside_of_a_transaction_that_has_not_begun() {
        let mut program = holding([notes()]);
        program.run("BEGIN");
        program.batch.database.invalidate();
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.wire, ["catalog"], "and so without a savepoint");
        program.run("COMMIT");
        assert_eq!(program.wire(), ["catalog", "flush notes"]);
    }

    #[test]
    fn begin_is_sent_at_once_where_it_says_more_or_where_the_settings_do() {
        let mut program = holding([notes()]);
        for begin in ["BEGIN READ ONLY", "BEGIN ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION DEFERRABLE"] {
            assert_eq!(program.run(begin), Sent);
            program.run("COMMIT");
        }
        let mut program = holding([notes()]);
        program.batch.site.enable(BatchOptions::new().late_begin(false));
        assert_eq!(program.run("BEGIN"), Sent);
    }

    #[test]
    fn in_doubt_about_the_settings_begin_travels_with_the_question_for_them() {
        let mut program = holding([notes()]);
        program.run("SET row_security = on");
        program.wire();
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN; reserve", "flush notes", "COMMIT"]);
    }

    /// On a driver whose BEGIN goes alone.
    fn alone(tables: impl IntoIterator<Item = TableRow>) -> Program {
        let mut program = Program::new(tables);
        program.batch = program.batch.transaction().seated(program.batch.seat()).holds_begin();
        program
    }

    #[test]
    fn where_begin_goes_alone_ids_are_asked_for_before_it() {
        let mut program = alone([users()]);
        program.run("BEGIN");
        assert_eq!(program.user("a"), Sent);
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", INSERT_USER, "COMMIT"]);
        program.run("BEGIN");
        assert_eq!(program.user("b"), id(1));
        assert!(!program.batch.is_on_server());
        assert_eq!(program.run("COMMIT"), waits());
        assert_eq!(program.wire(), ["reserve 64 of 1", "flush users"]);
    }

    #[test]
    fn where_begin_goes_alone_a_doubt_is_settled_by_the_second_insert() {
        let mut program = alone([notes()]);
        program.run("SET row_security = on");
        program.wire();
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(program.run_with(NOTE, [text("b")]), waits());
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", NOTE, "reserve", "flush notes", "COMMIT"]);
    }

    #[test]
    fn a_question_before_begin_that_fails_harms_nobody() {
        let mut program = alone([users()]);
        program.run("BEGIN");
        program.user("a");
        program.run("COMMIT");
        program.run("BEGIN");
        program.wire();
        program.broken = Some("reserve");
        assert_eq!(program.user("b"), Sent);
        assert_eq!(program.run("COMMIT"), Sent);
        assert_eq!(program.wire(), ["reserve 64 of 1", "BEGIN", INSERT_USER, "COMMIT"]);
    }

    #[test]
    fn the_time_of_a_transaction_is_asked_for_after_its_begin() {
        let mut program = alone([table("t").column(column("at", "timestamptz").default("now()"))]);
        program.run("BEGIN");
        let insert = "INSERT INTO t VALUES (DEFAULT) RETURNING at";
        assert!(matches!(program.run(insert), Seen::Answer(_)));
        let flush = "WITH s0 AS (INSERT INTO t (\"at\") VALUES (DEFAULT)) and now";
        assert_eq!(program.wire(), ["BEGIN", flush]);
    }

    #[test]
    fn held_savepoints_go_with_their_transaction() {
        let mut program = holding([notes()]);
        program.batch.site.enable(BatchOptions::new().nested(Nested::Merge));
        program.run("BEGIN");
        for statement in ["SAVEPOINT s", NOTE, "RELEASE s"] {
            assert_eq!(program.run_with(statement, [text("a")]), waits());
        }
        program.run("COMMIT");
        assert_eq!(program.wire(), ["flush notes"]);
        program.run("BEGIN");
        program.run("SAVEPOINT s");
        program.run("SELECT 1");
        assert_eq!(program.wire(), ["BEGIN", "SAVEPOINT \"s\"", "SELECT 1"]);
    }

    #[test]
    fn a_cancelled_question_may_have_begun_the_transaction() {
        let mut program = holding([users()]);
        program.run("BEGIN");
        let insert = program.batch.recognise(INSERT_USER);
        assert!(matches!(program.batch.offer(insert, binds([text("a")])), Step::Run(_)));
        program.batch.cancelled();
        assert!(program.batch.is_on_server());
        assert_eq!(program.run("ROLLBACK"), Sent);
    }
}

mod overlap {
    use super::*;

    fn overlapping(options: BatchOptions) -> Program {
        let mut program = Program::with([notes(), users()], options);
        program.batch = program.batch.transaction().seated(program.batch.seat()).overlaps();
        program.run("BEGIN");
        program.wire();
        program
    }

    fn note(program: &mut Program) {
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
    }

    /// A flush of two rows is under way, and one row waits.
    fn flying() -> Program {
        let mut program = overlapping(BatchOptions::new().max_rows(2));
        (0..3).for_each(|_| note(&mut program));
        assert_eq!(program.wire(), ["flush notes"]);
        assert!(program.batch.is_flying());
        program
    }

    fn yields(program: &mut Program, times: usize) -> usize {
        (0..times).filter(|_| program.batch.is_time_to_yield()).count()
    }

    #[test]
    fn other_tasks_run_now_and_then_while_rows_only_wait() {
        let mut program = overlapping(BatchOptions::new());
        assert_eq!(yields(&mut program, 200), 0, "nothing waits");
        note(&mut program);
        assert_eq!([63, 1, 63, 1].map(|times| yields(&mut program, times)), [0, 1, 0, 1]);
    }

    #[test]
    fn other_tasks_run_as_soon_as_a_flush_is_under_way() {
        let mut program = flying();
        assert_eq!([1, 63, 1].map(|times| yields(&mut program, times)), [1, 0, 1]);
    }

    #[test]
    fn rows_wait_on_while_a_flush_by_the_budget_is_under_way() {
        let mut program = flying();
        note(&mut program);
        assert_eq!(program.wire(), Vec::<String>::new());
        note(&mut program);
        assert_eq!(program.wire(), ["landed", "flush notes"]);
        assert_eq!(program.run("COMMIT"), Sent);
        assert_eq!(program.wire(), ["landed", "flush notes", "COMMIT"]);
        let stats = program.batch.stats();
        assert_eq!((stats.flush_statements, stats.flushes_overlapped, stats.rows_flushed), (3, 2, 5));
    }

    #[test]
    fn whatever_is_sent_comes_after_it() {
        for (statement, sent) in [
            ("SELECT 1", vec!["landed", "flush notes", "SELECT 1"]),
            ("SELECT name FROM users", vec!["landed", "SELECT name FROM users"]),
            ("SAVEPOINT s", vec!["landed", "flush notes", "SAVEPOINT s"]),
            ("INSERT INTO notes SELECT", vec!["landed", "flush notes", "INSERT INTO notes SELECT"]),
            ("ROLLBACK", vec!["landed", "ROLLBACK"]),
        ] {
            let mut program = flying();
            assert_eq!(program.run(statement), Sent);
            assert_eq!(program.wire(), sent);
        }
        let mut program = flying();
        assert_eq!(program.user("asks for an id"), id(1));
        assert_eq!(program.wire(), ["landed", "reserve 48 of 1"]);
        let mut program = flying();
        assert_eq!(program.flush(), waits());
        assert_eq!(program.wire(), ["landed", "flush notes"]);
        let mut program = flying();
        let step = program.batch.land();
        assert_eq!(program.drive(step, ""), waits());
        assert_eq!(program.wire(), ["landed"]);
        assert!(program.batch.has_pending());
    }

    #[test]
    fn its_error_is_that_of_the_next_call_that_would_send_something() {
        for statement in [NOTE, "SELECT 1", "COMMIT"] {
            let mut program = overlapping(BatchOptions::new().max_rows(2));
            program.broken = Some("unnest");
            (0..4).for_each(|_| note(&mut program));
            program.wire();
            program.broken = None;
            assert_eq!(program.run_with(statement, [text("a")]), Failed);
            let rollback: &[&str] = if statement == "COMMIT" { &["landed", "ROLLBACK"] } else { &["landed"] };
            assert_eq!(program.wire(), rollback);
            assert!(!program.batch.has_pending());
        }
    }

    #[test]
    fn its_error_goes_with_what_is_rolled_back() {
        for rollback in ["ROLLBACK", "ROLLBACK TO SAVEPOINT s"] {
            let mut program = overlapping(BatchOptions::new().max_rows(2));
            program.run("SAVEPOINT s");
            program.broken = Some("unnest");
            (0..3).for_each(|_| note(&mut program));
            program.broken = None;
            assert_eq!(program.run(rollback), Sent);
            assert_eq!(program.wire(), ["SAVEPOINT s", "flush notes", "landed", rollback]);
            assert!(!program.batch.has_pending());
            assert_eq!(program.batch.is_in_transaction(), rollback != "ROLLBACK");
        }
    }

    #[test]
    fn a_savepoint_that_is_held_back_does_not_wait_for_it() {
        let mut program = overlapping(BatchOptions::new().max_rows(2).nested(Nested::Merge));
        (0..3).for_each(|_| note(&mut program));
        assert_eq!(program.run("SAVEPOINT s"), waits());
        note(&mut program);
        assert_eq!(program.run("ROLLBACK TO SAVEPOINT s"), waits());
        assert_eq!(program.wire(), ["flush notes"]);
        assert_eq!(program.run("COMMIT"), Sent);
        assert_eq!(program.wire(), ["landed", "flush notes", "COMMIT"]);
        assert_eq!(program.batch.stats().rows_flushed, 3);
    }

    #[test]
    fn a_future_that_is_dropped_while_it_is_waited_for_loses_nothing() {
        let mut program = flying();
        note(&mut program);
        let statement = program.batch.recognise(NOTE);
        assert!(matches!(program.batch.offer(statement, binds([text("dropped")])), Step::Land));
        program.batch.cancelled();
        assert!(!program.batch.is_lost());
        assert_eq!(program.run("COMMIT"), Sent);
        assert_eq!(program.wire(), ["landed", "flush notes", "COMMIT"]);
    }

    #[test]
    fn a_future_that_is_dropped_with_rows_behind_it_loses_them() {
        let mut program = flying();
        let statement = program.batch.recognise("SELECT 1");
        assert!(matches!(program.batch.offer(statement, Binds::default()), Step::Land));
        program.batch.cancelled();
        assert!(program.batch.is_lost());
        assert!(matches!(program.run("COMMIT"), Seen::Refused(_)));
        assert_eq!(program.run("ROLLBACK"), Sent);
        assert_eq!(program.wire(), ["landed", "ROLLBACK"]);
    }

    #[test]
    fn a_transaction_that_is_given_up_leaves_nothing() {
        let mut program = flying();
        program.batch.abandoned();
        assert!(!program.batch.has_pending() && !program.batch.is_in_transaction());
    }

    #[test]
    fn ids_come_with_it() {
        let mut program = overlapping(BatchOptions::new().max_rows(20).first_id_block(64));
        program.user("first");
        (1..=64).for_each(|n| assert_eq!(program.user("a"), id(n)));
        let flush = "flush users";
        // Twice what a flush takes, so that the next finds enough.
        let with_ids = "flush users and 36 of 1";
        assert_eq!(program.wire(), [INSERT_USER, "reserve 64 of 1", flush, "landed", flush, "landed", with_ids]);
        (65..=84).for_each(|n| assert_eq!(program.user("a"), id(n)));
        assert_eq!(program.wire(), ["landed", flush]);
    }

    #[test]
    fn once_over_the_budget_the_server_is_kept_busy() {
        let mut program = overlapping(BatchOptions::new().max_rows(5_000));
        (0..5_001).for_each(|_| note(&mut program));
        assert_eq!(program.wire(), ["flush notes"]);
        (0..1_500).for_each(|_| note(&mut program));
        assert_eq!(program.wire(), Vec::<String>::new());
        program.batch.landed();
        note(&mut program);
        assert_eq!(program.wire(), ["landed", "flush notes"]);
        program.batch.landed();
        (0..1_249).for_each(|_| note(&mut program));
        assert_eq!(program.wire(), Vec::<String>::new());
        note(&mut program);
        assert_eq!(program.wire(), ["landed", "flush notes"]);
    }

    #[test]
    fn it_can_be_turned_off() {
        let mut program = overlapping(BatchOptions::new().max_rows(2).overlap(false));
        (0..3).for_each(|_| note(&mut program));
        assert!(!program.batch.is_flying());
        assert_eq!(program.batch.stats().flushes_overlapped, 0);
        assert_eq!(program.wire(), ["flush notes"]);
    }
}

mod reserving_on_the_way {
    use super::*;

    fn posts() -> TableRow {
        table("posts").column(column("id", "int8").serial(2)).column(column("user_id", "int4")).references(
            &["user_id"],
            "users",
            &["id"],
        )
    }

    #[test]
    fn a_flush_after_which_few_ids_are_left_brings_more() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        for _ in 0..30 {
            program.user("a");
        }
        program.run("COMMIT");
        // 64, of which 31 were used: as many again are at hand.
        assert_eq!(program.wire(), ["flush users", "COMMIT"]);
        for _ in 0..2 {
            program.run("BEGIN");
            for _ in 0..30 {
                assert!(matches!(program.user("a"), Seen::Answer(_)));
            }
            program.run("COMMIT");
        }
        assert_eq!(
            program.wire(),
            ["BEGIN", "flush users and 43 of 1", "COMMIT", "BEGIN", "flush users and 30 of 1", "COMMIT"],
            "3 were left, then 16: 30 for the next, and some more"
        );
        program.run("BEGIN");
        assert_eq!(program.user("a"), id(92), "ids go on where they were, and none is lost");
    }

    #[test]
    fn after_a_transaction_as_large_as_the_budget_the_next_asks_for_none() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        for _ in 0..9_999 {
            assert!(matches!(program.user("a"), Seen::Answer(_)));
        }
        program.run("COMMIT");
        program.wire();
        program.run("BEGIN");
        for _ in 0..10_000 {
            assert!(matches!(program.user("a"), Seen::Answer(_)));
        }
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", "flush users and 10000 of 1", "COMMIT"]);
    }

    #[test]
    fn a_flush_that_fails_brings_no_ids() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        for _ in 0..40 {
            program.user("a");
        }
        program.broken = Some("flush");
        assert_eq!(program.run("COMMIT"), Failed);
        program.broken = None;
        program.run("BEGIN");
        for _ in 0..23 {
            assert!(matches!(program.user("a"), Seen::Answer(_)));
        }
        assert_eq!(program.wire().last().unwrap(), "BEGIN");
        assert!(matches!(program.user("a"), Seen::Answer(_)));
        assert_eq!(program.wire(), ["reserve 184 of 1"]);
    }

    #[test]
    fn the_tables_below_a_new_one_get_their_first_ids_with_it() {
        let comments = || {
            table("comments").column(column("id", "int8").serial(3)).column(column("post_id", "int8")).references(
                &["post_id"],
                "posts",
                &["id"],
            )
        };
        let json = |name: &str, sequence| {
            let table = table(name).column(column("id", "int8").serial(sequence)).column(column("user_id", "int4"));
            table.column(column("data", "jsonb")).references(&["user_id"], "users", &["id"])
        };
        let mut program = Program::new([users(), notes(), posts(), comments(), json("settings", 4)]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.user("a");
        assert_eq!(program.wire(), ["BEGIN", "reserve 33 of 1 16 of 2 48 of 3"], "not of one that may be sent");
        program.run("COMMIT");
        assert_eq!(program.wire(), ["flush notes users", "COMMIT"]);
    }

    #[test]
    fn where_rows_wait_the_first_insert_that_wants_ids_reserves() {
        let mut program = Program::new([users(), notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        assert_eq!(program.user("a"), id(1));
        program.run("COMMIT");
        assert_eq!(program.wire(), ["BEGIN", "reserve 64 of 1", "flush notes users", "COMMIT"]);
    }
}

mod nesting {
    use super::*;

    fn merging() -> Program {
        Program::with([notes(), users()], BatchOptions::new().nested(Nested::Merge))
    }

    fn script(program: &mut Program, script: &[&str]) {
        for &sql in script {
            let seen = if sql == "note" { program.run_with(NOTE, [text("a")]) } else { program.run(sql) };
            assert!(seen == Sent || seen == waits(), "{sql}: {seen:?}");
        }
    }

    #[test]
    fn by_default_a_nested_transaction_flushes_at_its_start_and_its_end() {
        let mut program = Program::new([notes()]);
        script(&mut program, &["BEGIN", "note", "SAVEPOINT s", "note", "RELEASE s", "COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "SAVEPOINT s", "flush notes", "RELEASE s", "COMMIT"]);
        assert_eq!(program.flushed_by(FlushCause::Savepoint), 1);
        assert_eq!(program.flushed_by(FlushCause::Release), 1);
    }

    #[test]
    fn rolling_back_a_nested_transaction_discards_its_rows() {
        let mut program = Program::new([notes()]);
        script(&mut program, &["BEGIN", "SAVEPOINT s", "note", "ROLLBACK TO s", "note", "COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", "SAVEPOINT s", "ROLLBACK TO s", "flush notes", "COMMIT"]);
        assert_eq!(program.batch.stats().rows_discarded, 1);
    }

    #[test]
    fn an_error_inside_is_survived_by_rolling_back_to_the_savepoint() {
        let mut program = Program::new([notes()]);
        script(&mut program, &["BEGIN", "SAVEPOINT s", "note"]);
        program.broken = Some("notes");
        assert_eq!(program.run("RELEASE s"), Failed);
        program.broken = None;
        script(&mut program, &["ROLLBACK TO s", "note", "COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", "SAVEPOINT s", "flush notes", "ROLLBACK TO s", "flush notes", "COMMIT"]);
    }

    #[test]
    fn an_error_that_the_program_catches_comes_out_of_the_commit() {
        for caught in ["SAVEPOINT s", "SELECT 1", "flush"] {
            let mut program = Program::new([notes()]);
            script(&mut program, &["BEGIN", "note"]);
            program.broken = Some("notes");
            assert_eq!(if caught == "flush" { program.flush() } else { program.run(caught) }, Failed);
            program.broken = None;
            assert_eq!(program.flush(), Failed);
            assert_eq!(program.run("COMMIT"), Failed);
            assert_eq!(program.wire(), ["BEGIN", "flush notes", "ROLLBACK"]);
            script(&mut program, &["BEGIN", "note", "COMMIT"]);
        }
        // What the program aborted itself is the server's to tell.
        let mut program = Program::new([notes()]);
        script(&mut program, &["BEGIN"]);
        program.broken = Some("bad");
        assert_eq!(program.run("SELECT bad"), Failed);
        script(&mut program, &["COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", "SELECT bad", "COMMIT"]);
    }

    #[test]
    fn a_savepoint_that_was_never_set_undoes_nothing_even_if_another_has_its_name() {
        let mut program = merging();
        script(&mut program, &["BEGIN", "SAVEPOINT s", "SELECT 1", "ROLLBACK TO s", "note", "SAVEPOINT s", "note"]);
        program.wire();
        program.broken = Some("notes");
        assert_eq!(program.run("SELECT 1"), Failed);
        program.broken = None;
        assert_eq!(program.run("ROLLBACK TO s"), Failed);
        assert_eq!(program.run("COMMIT"), Failed);
        assert_eq!(program.wire(), ["flush notes", "ROLLBACK"]);
    }

    #[test]
    fn merged_nested_transactions_cost_nothing() {
        let mut program = merging();
        let nested = ["SAVEPOINT s", "note", "RELEASE s"];
        script(&mut program, &["BEGIN", "note"]);
        script(&mut program, &nested);
        script(&mut program, &nested);
        script(&mut program, &["COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "COMMIT"]);
    }

    #[test]
    fn a_merged_nested_transaction_that_is_rolled_back_loses_its_rows_only() {
        let mut program = merging();
        script(&mut program, &["BEGIN", "note", "SAVEPOINT s", "note", "note", "ROLLBACK TO s", "RELEASE s", "COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "COMMIT"]);
        let stats = program.batch.stats();
        assert_eq!((stats.rows_discarded, stats.rows_flushed), (2, 1));
    }

    #[test]
    fn a_savepoint_that_was_held_back_is_there_when_something_is_sent() {
        let mut program = merging();
        script(&mut program, &["BEGIN", "note", "SAVEPOINT s", "note", "SELECT 1", "note", "ROLLBACK TO s", "COMMIT"]);
        let held = "SAVEPOINT \"s\"";
        assert_eq!(
            program.wire(),
            ["BEGIN", "flush notes", held, "flush notes", "SELECT 1", "ROLLBACK TO s", "COMMIT"]
        );
        script(&mut program, &["BEGIN", "SAVEPOINT s", "SELECT 1", "RELEASE s", "COMMIT"]);
        assert_eq!(program.wire(), ["BEGIN", held, "SELECT 1", "RELEASE s", "COMMIT"]);
    }

    #[test]
    fn releasing_a_savepoint_that_the_server_has_sends_those_that_were_held_back() {
        let mut program = merging();
        script(&mut program, &["BEGIN", "SAVEPOINT a", "SELECT 1", "SAVEPOINT b", "note", "RELEASE a"]);
        let [held_a, held_b] = ["SAVEPOINT \"a\"", "SAVEPOINT \"b\""];
        assert_eq!(program.wire(), ["BEGIN", held_a, "SELECT 1", held_b, "flush notes", "RELEASE a"]);
    }

    #[test]
    fn a_savepoint_that_never_reached_the_server_does_not_save_an_aborted_transaction() {
        let mut program = merging();
        program.run("BEGIN");
        program.user("a");
        script(&mut program, &["note", "SAVEPOINT s", "note"]);
        program.broken = Some("reserve");
        assert_eq!(program.user("b"), Failed);
        program.wire();
        // The server may have another of this name.
        assert_eq!(program.run("ROLLBACK TO s"), Failed);
        assert_eq!(program.run("COMMIT"), Failed);
        assert_eq!(program.wire(), ["ROLLBACK"]);
    }
}

mod sequences {
    use super::*;

    const LASTVAL: &str = "SELECT lastval()";
    const CURRVAL: &str = "SELECT currval('s1')";

    #[test]
    fn after_reserved_ids_currval_and_lastval_are_refused() {
        let mut program = Program::new([users()]);
        program.run("BEGIN");
        assert_eq!(program.run(CURRVAL), Sent);
        program.user("a");
        program.user("b");
        for sql in [CURRVAL, LASTVAL, "INSERT INTO users (id, name) SELECT lastval(), 'x'"] {
            assert!(matches!(program.run(sql), Seen::Refused(error) if error.contains("lastval")), "{sql}");
        }
        // Nothing happened: the row waits on.
        assert!(program.batch.has_pending());
    }

    #[test]
    fn lastval_is_refused_where_several_tables_got_ids_in_one_flush() {
        let logs = table("logs").column(column("id", "int4").serial(2)).column(column("name", "text"));
        let mut program = Program::new([users(), logs]);
        program.run("BEGIN");
        program.run("INSERT INTO users (name) VALUES ('a')");
        program.run("INSERT INTO logs (name) VALUES ('a')");
        assert!(matches!(program.run(LASTVAL), Seen::Refused(_)));
        assert_eq!(program.run(CURRVAL), Sent);
        assert!(matches!(program.run(LASTVAL), Seen::Refused(_)));
        // Now it is one table's.
        program.run("INSERT INTO users (name) VALUES ('b')");
        assert_eq!(program.run(LASTVAL), Sent);
    }

    #[test]
    fn a_sequence_that_was_restarted_starts_again() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        assert_eq!(program.user("a"), id(2));
        program.run("TRUNCATE users RESTART IDENTITY");
        program.sequences.borrow_mut().insert(1, 0);
        assert_eq!(program.user("b"), id(1));
    }

    #[test]
    fn ids_that_another_connection_reserved_earlier_never_come_after_one_that_postgres_gave() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        program.user("a");
        program.run("ROLLBACK");
        let mut another = program.another();
        another.run("BEGIN");
        // Its insert gets 65, while the other connection's reservation of 1 to 64 is still on its way.
        another.run("INSERT INTO users (name) VALUES (upper('x'))");
        let (need, positions) = (Need::likely(1, false, 1), &mut Positions::default());
        let request = lock(&another.batch.database.stock).request(&need, 0, positions, another.batch.id_bounds());
        let block = reserve::Block { sequence: 1, at: Some(4), step: 1, room: 1_000, ids: vec![5, 6, 7] };
        lock(&another.batch.database.stock).arrived(&request, &block, positions);
        another.sequences.borrow_mut().insert(1, 65);
        assert_eq!(another.user("a"), id(66));
        assert_eq!(another.wire(), ["BEGIN", "INSERT INTO users (name) VALUES (upper('x'))", "reserve 1 of 1"]);
    }

    #[test]
    fn an_insert_that_might_advance_any_sequence_costs_a_look_and_no_ids() {
        let seen = table("seen").with("trigger", true).with("inserts", json!(["execute"])).column(column("n", "int4"));
        let mut one = Program::with([users(), seen], BatchOptions::new());
        let mut other = one.another();
        for n in 0..30 {
            let program = if n % 2 == 0 { &mut one } else { &mut other };
            program.run("BEGIN");
            (0..3).for_each(|_| drop(program.user("a")));
            program.run("INSERT INTO seen (n) VALUES (1)");
            (0..2).for_each(|_| drop(program.user("b")));
            program.run("COMMIT");
        }
        assert!(one.sequences.borrow()[&1] <= 165, "{:?}", one.sequences);
        let sent = one.sent_because(Reason::FirstUse) + other.sent_because(Reason::FirstUse);
        assert!(sent <= 2, "{}", one.batch.stats());
    }

    #[test]
    fn a_loop_that_reserving_does_not_help_costs_hardly_more_than_without() {
        let mut program = Program::new([users(), notes()]);
        program.run("BEGIN");
        for _ in 0..100 {
            program.user("a");
            program.run("INSERT INTO users (name) VALUES ('b') ON CONFLICT DO NOTHING");
        }
        let (trips, without) = (program.wire().len() - 1, 200);
        assert!(trips <= without + 15, "{trips}");
    }

    #[test]
    fn an_insert_that_is_sent_takes_the_stock_of_its_sequence_with_it() {
        let mut program = Program::new([users()]);
        program.begin_stocked();
        program.user("a");
        program.run("INSERT INTO users (name) VALUES (upper('x'))");
        program.sequences.borrow_mut().insert(1, 65);
        // 3 to 64 would come too late.
        assert_eq!(program.user("b"), id(66));
        assert_eq!(program.batch.stats().ids_unused as i64, program.sequences.borrow()[&1] - 66 + 62);
    }
}

mod sessions {
    use super::*;

    #[test]
    fn a_catalog_that_cannot_be_read_at_begin_means_no_batching_and_no_error() {
        let program = Program::new([notes()]);
        program.batch.database.invalidate();
        let mut another = program.another();
        another.broken = Some("catalog");
        assert_eq!(another.run("BEGIN"), Sent);
        assert_eq!(another.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(another.sent_because(Reason::CatalogUnreadable), 1);
        another.run("COMMIT");
        // It is not tried again and again.
        another.run("BEGIN");
        assert_eq!(another.wire(), ["catalog", "BEGIN", NOTE, "COMMIT", "BEGIN"]);
    }

    #[test]
    fn ddl_makes_every_connection_read_the_catalog_again() {
        let mut program = Program::new([notes()]);
        let mut another = program.another();
        program.run("ALTER TABLE notes ADD COLUMN more int4");
        another.run("BEGIN");
        assert_eq!(another.wire(), ["catalog", "BEGIN"]);
    }

    #[test]
    fn ddl_in_a_transaction_is_seen_by_it_at_once_and_by_others_when_it_ends() {
        let mut program = Program::new([notes()]);
        let mut another = program.another();
        program.run("BEGIN");
        program.run("CREATE TABLE users (id serial, name text NOT NULL)");
        program.catalog = rows([notes(), users()]);
        program.user("a");
        assert_eq!(program.batch.stats().catalog_reads, 2);
        another.run("BEGIN");
        another.run("COMMIT");
        assert_eq!(another.wire(), ["BEGIN", "COMMIT"]);
        program.run("COMMIT");
        another.run("BEGIN");
        assert_eq!(another.wire(), ["catalog", "BEGIN"]);
    }

    #[test]
    fn a_table_that_is_not_known_is_looked_for_once() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        let insert = "INSERT INTO elsewhere (c) VALUES ('a')";
        assert_eq!(program.run(insert), Sent);
        assert_eq!(program.run(insert), Sent);
        assert_eq!(program.wire(), ["BEGIN", "catalog", insert, insert]);
        assert_eq!(program.sent_because(Reason::Unknown), 2);
    }

    #[test]
    fn a_catalog_that_cannot_be_read_in_a_transaction_does_not_abort_it() {
        let mut program = Program::new([users()]);
        program.run("BEGIN");
        program.broken = Some("catalog");
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(
            program.wire[1..],
            [
                "SAVEPOINT batched_writes",
                "catalog",
                "ROLLBACK TO SAVEPOINT batched_writes; RELEASE SAVEPOINT batched_writes",
                NOTE,
            ]
        );
        // The catalog that is at hand does not know it; it serves the others.
        assert_eq!(program.sent_because(Reason::Unknown), 1);
        assert_eq!(program.run_with(r#"INSERT INTO "users" ("name") VALUES ($1)"#, [text("a")]), waits());
    }

    #[test]
    fn a_catalog_that_could_not_be_read_is_not_tried_for_every_insert_and_what_others_read_serves() {
        let mut program = Program::new([notes()]);
        let mut another = program.another();
        program.batch.database.invalidate();
        program.broken = Some("catalog");
        for _ in 0..2 {
            program.run("BEGIN");
            assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
            assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
            program.run("COMMIT");
        }
        let transaction = ["BEGIN", NOTE, NOTE, "COMMIT"];
        assert_eq!(program.wire(), [&["catalog"][..], &transaction, &transaction].concat());
        assert_eq!(program.sent_because(Reason::CatalogUnreadable), 4);
        // Others on whose way it is do not try either, until it is time.
        another.run("BEGIN");
        another.run("COMMIT");
        assert_eq!(another.wire(), ["BEGIN", "COMMIT"]);
        program.batch.site.readings.end_pauses();
        another.run("BEGIN");
        assert_eq!(another.run_with(NOTE, [text("a")]), waits());
        assert_eq!(another.wire(), ["catalog", "BEGIN"]);
        // What it read serves the one that could not.
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.wire(), ["BEGIN"]);
    }

    #[test]
    fn while_one_reads_an_old_catalog_again_the_others_go_on_with_it() {
        let age = std::time::Duration::from_millis(1);
        let mut program = Program::with([notes()], BatchOptions::new().catalog_max_age(age));
        let (mut another, mut third) = (program.another(), program.another());
        std::thread::sleep(2 * age);
        let begin = program.batch.recognise("BEGIN");
        let step = program.batch.offer(begin, Binds::default());
        assert!(matches!(step, Step::Run(_)));
        another.run("BEGIN");
        assert_eq!(another.run_with(NOTE, [text("a")]), waits());
        assert_eq!(another.wire(), ["BEGIN"]);
        // Where the one that reads is given up, the next one does.
        program.batch.cancelled();
        third.run("BEGIN");
        assert_eq!(third.wire(), ["catalog", "BEGIN"]);
    }

    #[test]
    fn a_table_that_is_new_is_found() {
        let mut program = Program::new([]);
        program.catalog = rows([notes()]);
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.wire(), ["BEGIN", "catalog"]);
    }

    #[test]
    fn rows_checked_against_an_older_catalog_go_out_before_those_checked_against_a_newer() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        // Meanwhile another connection changes the table.
        program.batch.database.invalidate();
        program.catalog = rows([table("notes").column(column("n", "int4")).column(column("body", "text"))]);
        assert_eq!(program.run_with(NOTE, [text("b")]), waits());
        assert_eq!(program.wire(), ["BEGIN", "catalog", "flush notes"]);
        assert_eq!(program.flushed_by(FlushCause::Catalog), 1);
        program.run("COMMIT");
        assert!(program.wire[0].contains(r#"("body")"#), "{:?}", program.wire);
    }

    #[test]
    fn after_a_setting_one_insert_is_sent_and_the_second_looks_whether_it_matters() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run("SET LOCAL row_security = on");
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(program.run_with(NOTE, [text("b")]), waits());
        assert_eq!(program.run_with(NOTE, [text("c")]), waits());
        assert_eq!(program.wire(), ["BEGIN", "SET LOCAL row_security = on", NOTE, "reserve"]);
        assert_eq!(program.sent_because(Reason::FirstUse), 1);
        // The end of the transaction takes the setting back.
        program.run("COMMIT");
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
    }

    #[test]
    fn a_search_path_that_means_other_tables_gets_a_catalog_of_its_own() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run("SET LOCAL search_path = tenant");
        program.identity = "tenant".into();
        program.catalog = rows([notes().with("trigger", true)]);
        let session = program.catalog[0][1].as_mut().unwrap();
        *session = session.replace(IDENTITY, "tenant");
        program.run_with(NOTE, [text("a")]);
        assert_eq!(program.run_with(NOTE, [text("b")]), Sent);
        assert_eq!(program.sent_because(Reason::Trigger), 1);
        assert_eq!(program.wire()[2..], [NOTE, "reserve", "catalog", NOTE].map(str::to_owned));
        // Others are not touched by it.
        let mut another = program.another();
        another.run("BEGIN");
        assert_eq!(another.run_with(NOTE, [text("a")]), waits());
    }

    #[test]
    fn a_setting_that_changes_no_name_is_not_asked_about() {
        let mut program = Program::new([notes()]);
        let script = "SET statement_timeout = '1s'; SET TIME ZONE 'UTC'; SET application_name = 'me'";
        program.run(script);
        program.run("BEGIN");
        program.run("SET LOCAL work_mem = '1MB'");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        program.run("COMMIT");
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        assert_eq!(program.wire(), [script, "BEGIN", "SET LOCAL work_mem = '1MB'", "flush notes", "COMMIT", "BEGIN"]);
    }

    #[test]
    fn what_a_setting_makes_of_the_names_is_asked_once_for_all_connections() {
        let mut program = Program::new([notes()]);
        let set = |conn: &mut Program| {
            conn.run("SET search_path = tenant");
            conn.run("SET ROLE clerk");
            conn.run("BEGIN");
        };
        set(&mut program);
        program.identity = "{tenant} as clerk".to_owned();
        let session = program.catalog[0][1].as_mut().unwrap();
        *session = session.replace(IDENTITY, &program.identity);
        assert_eq!(program.run_with(NOTE, [text("a")]), Sent);
        assert_eq!(program.run_with(NOTE, [text("a")]), waits());
        program.run("COMMIT");
        for _ in 0..2 {
            let mut another = program.another();
            set(&mut another);
            assert_eq!(another.run_with(NOTE, [text("a")]), waits());
            another.run("COMMIT");
            assert_eq!(another.wire()[2..], ["BEGIN", "flush notes", "COMMIT"]);
            // In another order it is another thing, and so is a part of it.
            another.run("SET search_path = tenant");
            another.run("BEGIN");
            assert_eq!(another.run_with(NOTE, [text("a")]), Sent);
        }
        // A schema may be new.
        program.batch.database.invalidate();
        let mut another = program.another();
        set(&mut another);
        assert_eq!(another.wire()[2..], ["catalog", "BEGIN"]);
    }

    #[test]
    fn an_answer_without_the_session_does_not_go_round_in_circles() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run("SET LOCAL row_security = on");
        program.run_with(NOTE, [text("a")]);
        let statement = program.batch.recognise(NOTE);
        let mut step = program.batch.offer(statement, binds([text("b")]));
        for _ in 0..3 {
            if matches!(step, Step::Run(_)) {
                step = program.batch.ran(&[]);
            }
        }
        assert!(matches!(step, Step::Send), "{step:?}");
    }

    #[test]
    fn a_script_that_ends_the_transaction_ends_batching_for_the_rest_of_it() {
        let mut program = Program::new([notes()]);
        program.run("BEGIN");
        program.run_with(NOTE, [text("a")]);
        program.run("COMMIT AND CHAIN");
        assert_eq!(program.run_with(NOTE, [text("b")]), Sent);
        assert_eq!(program.sent_because(Reason::NotInTransaction), 1);
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "COMMIT AND CHAIN", NOTE]);
        program.run("COMMIT");
        program.run("BEGIN");
        assert_eq!(program.run_with(NOTE, [text("c")]), waits());
    }
}

mod telling {
    use super::*;

    #[test]
    fn stats_count_what_happened() {
        let mut program = Program::new([users(), notes()]);
        program.begin_stocked();
        program.user("a");
        program.run_with(NOTE, [null(text("").0)]);
        program.run("COMMIT");
        let stats = program.batch.stats();
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (4, 3));
        assert_eq!((stats.flush_statements, stats.rows_flushed), (2, 3));
        assert_eq!((stats.ids_reserved, stats.ids_unused), (64, 62));
        assert!(stats.to_string().contains("1 sent at once: the first insert that wants ids"), "{stats}");
        assert!(stats.to_string().contains("2 by commit"), "{stats}");
    }

    #[test]
    fn explain_says_for_each_table_whether_and_why() {
        let other = table("other").with("trigger", true).column(column("c", "text"));
        let half = table("half").column(column("c", "float8").default("random()"));
        let mut program = Program::with([users(), other, half, notes()], BatchOptions::new().exclude("notes"));
        let step = program.batch.explain();
        program.drive(step, "");
        let explanation = program.batch.explanation();
        let lines: Vec<String> = explanation.tables.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "public.half: batched, but not where c is left out: a default would give another value later",
                "public.notes: not batched: left out by BatchOptions::exclude",
                "public.other: not batched: a trigger for INSERT",
                "public.users: batched, id from public.s1",
            ]
        );
        assert_eq!(explanation.table("users"), explanation.table("public.users"));
        assert_eq!(explanation.table("nobody"), None);
    }

    #[test]
    fn explain_reads_the_catalog_where_it_is_not_there() {
        let program = Program::new([notes()]);
        program.batch.database.invalidate();
        let mut another = program.another();
        let step = another.batch.explain();
        assert_eq!(another.drive(step, ""), waits());
        assert_eq!(another.wire(), ["catalog"]);
        assert_eq!(another.batch.explanation().tables.len(), 1);
    }
}

mod pools {
    use super::*;

    const INSERT: &str = "INSERT INTO notes (body) VALUES ('a')";

    /// A transaction on the connection that led to the pool's database last.
    fn transaction(pool: &Batch) -> Batch {
        pool.transaction().seated(pool.site.likely().map(Seat))
    }

    /// A pool whose batching is on, and a program in its first transaction.
    fn pool() -> (Batch, Program) {
        let mut program = Program::off([users(), notes()]);
        let database = DATABASES.fetch_add(1, Ordering::Relaxed);
        let pool = Batch::of_pool(&format!("postgres://me@test/{database}"), "pool 1").built_in_types_only();
        program.batch = transaction(&pool);
        let step = program.batch.enable(BatchOptions::new());
        program.drive(step, "");
        program.wire();
        (pool, program)
    }

    fn ran(pool: &mut Batch, sql: &str) {
        let recognised = pool.recognise(sql);
        pool.ran_outside(&recognised, None);
    }

    #[test]
    fn each_transaction_goes_by_the_pools_catalog_and_gives_its_counters_back() {
        let (mut pool, mut program) = pool();
        for _ in 0..2 {
            program.batch = transaction(&pool);
            program.run("BEGIN");
            assert_eq!(program.run(INSERT), waits());
            program.run("COMMIT");
            pool.absorb(&program.batch);
        }
        assert_eq!(program.wire(), ["BEGIN", "flush notes", "COMMIT", "BEGIN", "flush notes", "COMMIT"]);
        assert_eq!((pool.stats().inserts_deferred, pool.stats().rows_flushed), (2, 2));
    }

    #[test]
    fn a_setting_that_may_have_changed_on_one_connection_is_doubted_on_all() {
        let (mut pool, mut program) = pool();
        ran(&mut pool, "SET search_path = other");
        for _ in 0..2 {
            program.batch = transaction(&pool);
            program.run("BEGIN");
            assert_eq!(program.run(INSERT), Sent);
            assert_eq!(program.run(INSERT), waits());
            program.run("ROLLBACK");
            pool.absorb(&program.batch);
        }
        assert_eq!(pool.stats().inserts_sent[&Reason::FirstUse], 2);
    }

    #[test]
    fn a_setting_that_ends_with_its_transaction_is_not() {
        let (mut pool, mut program) = pool();
        for setting in ["SET LOCAL a.b = 'c'", "SELECT set_config('a.b', 'c', true)", "SELECT 1"] {
            program.batch = transaction(&pool);
            program.run("BEGIN");
            program.run(setting);
            program.run("COMMIT");
            pool.absorb(&program.batch);
            ran(&mut pool, "SELECT 2");
        }
        program.batch = transaction(&pool);
        program.run("BEGIN");
        assert_eq!(program.run(INSERT), waits());
    }

    #[test]
    fn an_insert_outside_makes_stock_stale_and_counts() {
        let (mut pool, mut program) = pool();
        program.batch = transaction(&pool);
        program.begin_stocked();
        program.run("COMMIT");
        pool.absorb(&program.batch);
        assert!(lock(&pool.site.likely().unwrap().stock).len() > 0);
        ran(&mut pool, "INSERT INTO notes (body) VALUES ('a')");
        assert!(lock(&pool.site.likely().unwrap().stock).len() > 0, "notes have no ids");
        ran(&mut pool, INSERT_USER);
        assert_eq!(lock(&pool.site.likely().unwrap().stock).len(), 0);
        assert_eq!(pool.stats().inserts_sent[&Reason::NotInTransaction], 2);
    }

    #[test]
    fn a_cancelled_flush_leaves_only_the_rollback() {
        let (pool, mut program) = pool();
        program.batch = transaction(&pool);
        program.run("BEGIN");
        program.run(INSERT);
        assert!(matches!(program.batch.flush(), Step::Run(_)));
        program.batch.cancelled();
        assert!(!program.batch.has_pending());
        for sql in [INSERT, "SELECT 1", "COMMIT", "ROLLBACK TO a"] {
            let recognised = program.batch.recognise(sql);
            assert!(matches!(program.batch.offer(recognised, Binds::default()), Step::Refuse(_)), "{sql}");
        }
        assert_eq!(program.run("ROLLBACK"), Sent);
        program.run("BEGIN");
        assert_eq!(program.run(INSERT), waits());
    }

    #[test]
    fn after_a_cancelled_statement_of_the_program_nothing_waits_in_its_transaction() {
        let (pool, mut program) = pool();
        program.batch = transaction(&pool);
        program.run("BEGIN");
        let select = program.batch.recognise("SELECT 1");
        assert!(matches!(program.batch.offer(select, Binds::default()), Step::Send));
        program.batch.cancelled();
        assert_eq!(program.run(INSERT), Sent);
        assert_eq!(program.sent_because(Reason::Cancelled), 1);
        program.run("COMMIT");
        program.run("BEGIN");
        assert_eq!(program.run(INSERT), waits());
    }

    #[test]
    fn types_of_the_databases_own_are_not_answered() {
        let mut program = Program::new([table("t").column(column("c", "mood"))]);
        let insert = "INSERT INTO t (c) VALUES ('sad') RETURNING";
        program.run("BEGIN");
        assert!(matches!(program.run(&format!("{insert} c")), Seen::Answer(_)));
        program.run("COMMIT");
        program.batch = program.batch.transaction().seated(program.batch.seat()).built_in_types_only();
        program.run("BEGIN");
        assert_eq!(program.run(&format!("{insert} c")), Sent);
        assert!(matches!(program.run(&format!("{insert} c::text")), Seen::Answer(_)));
    }
}

mod passing {
    use super::*;

    fn posts() -> TableRow {
        table("posts").column(column("id", "int4")).column(column("author", "int4")).column(column("title", "text"))
    }

    fn people() -> TableRow {
        table("people")
            .column(column("id", "int4"))
            .column(column("name", "text"))
            .column(column("mood", "mood"))
            .column(column("at", "timestamp(3)"))
            .column(column("kind", "text").default("'x'::text"))
    }

    const PERSON: &str = "INSERT INTO people (id, name) VALUES ($1, $2)";

    /// A program in whose transaction a person waits, with this row of the catalog.
    fn program(tables: impl IntoIterator<Item = TableRow>, row: TextRow) -> Program {
        let mut program = Program::off(tables);
        program.catalog.push(row);
        let step = program.batch.enable(BatchOptions::new());
        program.drive(step, "");
        program.run("BEGIN");
        assert_eq!(program.run_with(PERSON, [int4(1), text("ann")]), waits());
        program.wire();
        program
    }

    fn opaque(names: &[&str]) -> TextRow {
        crate::catalog::testing::row("opaque", serde_json::json!(names))
    }

    fn plain() -> Program {
        program([people(), posts()], opaque(&[]))
    }

    /// Whether the statement goes past the person that waits.
    fn passes(mut program: Program, sql: &str, values: impl IntoIterator<Item = Bind>) -> bool {
        assert_eq!(program.run_with(sql, values), Sent);
        let wire = program.wire();
        assert!(wire.iter().any(|sent| sent == sql), "{wire:?}");
        !wire.iter().any(|sent| sent.starts_with("flush"))
    }

    #[test]
    fn a_statement_on_other_tables_goes_past_the_rows_and_is_counted() {
        assert!(passes(plain(), "SELECT title FROM posts", []));
        assert!(passes(plain(), "UPDATE posts SET title = 'x'", []));
        assert!(passes(plain(), "DELETE FROM posts WHERE id = 1", []));
        let mut program = plain();
        program.run("SELECT title FROM posts");
        assert_eq!(program.batch.stats().statements_passed, 1);
        program.run("COMMIT");
        assert_eq!(program.wire(), ["SELECT title FROM posts", "flush people", "COMMIT"]);
    }

    #[test]
    fn one_that_names_their_table_does_not() {
        assert!(!passes(plain(), "SELECT name FROM people", []));
        assert!(!passes(plain(), "SELECT title FROM posts WHERE author IN (SELECT id FROM People)", []));
        assert!(!passes(plain(), "UPDATE posts SET author = 1 FROM people", []));
        assert!(!passes(plain(), "DELETE FROM people WHERE id = 2", []));
    }

    #[test]
    fn a_name_behind_which_something_stands_may_see_them() {
        let hiding = || program([people(), posts()], opaque(&["title", "everyone"]));
        assert!(!passes(hiding(), "SELECT count(*) FROM everyone", []));
        assert!(!passes(hiding(), "SELECT p.title FROM posts p", []));
        assert!(passes(hiding(), "SELECT p.id FROM posts p", []));
    }

    #[test]
    fn operators_of_the_databases_own_may_see_them() {
        let mut session = crate::catalog::testing::session("UTF8");
        session[1] =
            session[1].as_ref().map(|json| json.replace(r#""own_operators":false"#, r#""own_operators":true"#));
        assert!(!passes(program([people(), posts()], session), "SELECT title FROM posts", []));
        let pairs = posts().column(column("pair", "pair"));
        assert!(!passes(program([people(), pairs], opaque(&[])), "SELECT title FROM posts", []));
    }

    #[test]
    fn a_change_of_tables_with_triggers_or_tied_to_theirs_may_touch_them() {
        let change = "UPDATE posts SET title = 'x'";
        let trigger = serde_json::json!(["BEGIN RETURN NEW; END"]);
        let noisy = program([people(), posts().with("changes", trigger)], opaque(&[]));
        assert!(!passes(noisy, change, []));
        let tied = || program([people(), posts().references(&["author"], "people", &["id"])], opaque(&[]));
        assert!(!passes(tied(), change, []));
        assert!(passes(tied(), "SELECT title FROM posts", []));
        let far = [
            people(),
            posts(),
            table("likes")
                .column(column("post", "int4"))
                .column(column("person", "int4"))
                .references(&["post"], "posts", &["id"])
                .references(&["person"], "people", &["id"]),
        ];
        assert!(!passes(program(far, opaque(&[])), change, []));
    }

    const FIND: &str = "SELECT id FROM people WHERE name = $1 LIMIT 1";

    #[test]
    fn find_or_create_goes_past_rows_of_other_values() {
        assert!(passes(plain(), FIND, [text("bob")]));
        assert!(!passes(plain(), FIND, [text("ann")]));
        assert!(passes(plain(), FIND, [null(crate::statement::testing::TEXT)]));
        let by_id = "SELECT name FROM people WHERE id = $1";
        assert!(passes(plain(), by_id, [int8(2)]));
        assert!(!passes(plain(), by_id, [int8(1)]));
    }

    #[test]
    fn rows_that_come_after_it_looked_are_found_as_well() {
        let mut program = plain();
        program.run_with(FIND, [text("bob")]);
        program.run_with(PERSON, [int4(2), text("bob")]);
        assert_eq!(program.wire(), [FIND]);
        program.run_with(FIND, [text("eve")]);
        assert_eq!(program.wire(), [FIND]);
        assert!(!passes(program, FIND, [text("bob")]));
    }

    #[test]
    fn a_value_that_is_not_known_or_not_compared_by_its_bytes_may_be_the_one() {
        let find = |column: &str| format!("SELECT id FROM people WHERE {column} = $1");
        // The default fills it.
        assert!(!passes(plain(), &find("kind"), [text("y")]));
        // NULL does.
        assert!(passes(plain(), &find("at"), [(crate::statement::testing::TEXT, None)]));
        assert!(!passes(plain(), &find("mood"), [text("sad")]));
        assert!(!passes(plain(), &find("lower(name)"), [text("y")]));
    }

    #[test]
    fn a_commit_after_a_statement_that_failed_rolls_back_as_it_would() {
        let mut program = plain();
        program.broken = Some("SELECT 1 / 0 FROM posts");
        assert_eq!(program.run("SELECT 1 / 0 FROM posts"), Failed);
        program.broken = Some("SELECT 1");
        assert_eq!(program.run("COMMIT"), Sent);
        assert_eq!(program.wire(), ["SELECT 1 / 0 FROM posts", "SELECT 1", "COMMIT"]);
        assert!(!program.batch.has_pending());
    }

    #[test]
    fn a_commit_after_a_statement_that_failed_before_the_server_saw_it_tells_of_the_rows() {
        for (broken, seen, sent) in [
            ("nothing", Sent, ["SELECT 1", "flush people", "COMMIT"]),
            ("unnest", Failed, ["SELECT 1", "flush people", "ROLLBACK"]),
        ] {
            let mut program = plain();
            program.broken = Some("FROM posts");
            assert_eq!(program.run("SELECT title FROM posts"), Failed);
            program.wire();
            program.broken = Some(broken);
            assert_eq!(program.run("COMMIT"), seen);
            assert_eq!(program.wire(), sent);
            assert!(!program.batch.is_in_transaction());
        }
    }

    #[test]
    fn a_savepoint_that_is_held_back_is_sent_before_it() {
        let mut program = Program::with([people(), posts()], BatchOptions::new().nested(Nested::Merge));
        program.run("BEGIN");
        program.run("SAVEPOINT s");
        program.run_with(PERSON, [int4(1), text("ann")]);
        program.run("SELECT title FROM posts");
        assert_eq!(program.wire(), ["BEGIN", "SAVEPOINT \"s\"", "flush people", "SELECT title FROM posts"]);
    }
}
