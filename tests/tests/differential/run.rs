//! Runs a program and writes down everything that it can observe.

use std::collections::HashMap;

use batch_tests::{Failure, Outcome, Session, Value};

use super::generate::{self, Insert, Op, Program};
use super::schema::{Kind, QUERIES, RESET, TABLES, UPSERTS};

/// What happens when a statement in a transaction fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errors {
    /// The program stops there, as `?` does.
    EndTheTransaction,
    /// Only the statement is undone until the transaction ends, and then all of it: shows every error that the program
    /// could meet.
    UndoTheStatement,
    /// As before, but a row whose foreign key fails stays until the transaction ends, so that it shows which other
    /// constraints it breaks with rows after it. The tables' foreign keys are deferred.
    KeepTheRow,
}

/// All that a program observed.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    pub(crate) events: Vec<Event>,
    /// The final contents of each table, by creation.
    pub(crate) contents: Vec<Vec<Vec<String>>>,
    /// Errors at the start of a nested transaction that it caught.
    pub(crate) caught: u64,
    failures: Vec<Failed>,
}

/// One observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Count(usize),
    Rows(Vec<Vec<String>>),
    Block {
        events: Vec<Event>,
        failure: Option<Failed>,
        /// Whether the program meant to roll it back.
        rolls_back: bool,
    },
    /// A statement outside transactions failed.
    Failed(Failed),
}

/// An error without what depends on ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    kind: String,
    message: String,
    constraint: Option<String>,
    table: Option<String>,
    column: Option<String>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message, constraint, table, column, .. } = failure;
        Self { kind, message, constraint, table, column }
    }
}

impl Transcript {
    pub(crate) fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    pub(crate) fn knows(&self, failure: &Failed) -> bool {
        self.failures.contains(failure)
    }
}

/// A program that runs.
pub(crate) struct Run<'a, S> {
    conn: &'a mut S,
    errors: Errors,
    state: State,
    failures: Vec<Failed>,
    /// A nested transaction has failed to begin.
    begin_failed: bool,
    catches: bool,
    caught: u64,
    /// What went wrong in a way that no program may see.
    broken: Option<String>,
}

/// What a program knows.
#[derive(Clone, Default)]
struct State {
    /// The ids that it was given, and the labels of their rows, by table.
    ids: HashMap<usize, Vec<(i64, String)>>,
    /// The highest id that a sequence gave, by table.
    last: HashMap<usize, i64>,
    now: Option<Vec<u8>>,
}

impl<'a, S: Session> Run<'a, S> {
    pub(crate) fn new(conn: &'a mut S, errors: Errors) -> Self {
        Self {
            conn,
            errors,
            state: State::default(),
            failures: Vec::new(),
            begin_failed: false,
            catches: false,
            caught: 0,
            broken: None,
        }
    }

    /// Runs the program on empty tables.
    pub(crate) fn run(mut self, program: &Program) -> Result<Transcript, String> {
        self.conn.script(RESET).map_err(|error| format!("cannot reset: {error}"))?;
        self.catches = program.options.catches;
        let mut events = Vec::new();
        for op in &program.ops {
            self.state.now = None;
            let event = match self.op(op) {
                Ok(event) => event,
                Err(failure) => Event::Failed(self.note(failure)),
            };
            events.push(event);
        }
        let contents = (0..TABLES.len()).map(|table| self.contents(table)).collect::<Outcome<_>>();
        match self.broken {
            Some(broken) => Err(broken),
            None => Ok(Transcript {
                events,
                contents: contents.map_err(|error| format!("cannot read the contents: {error}"))?,
                caught: self.caught,
                failures: self.failures,
            }),
        }
    }

    fn note(&mut self, failure: Failure) -> Failed {
        let failed = Failed::from(failure);
        self.failures.push(failed.clone());
        failed
    }

    fn op(&mut self, op: &Op) -> Outcome<Event> {
        match op {
            Op::Insert(insert) => self.insert(insert),
            Op::Select(table) => self.select(*table).map(Event::Rows),
            Op::Find { insert, slot, create } => self.find(insert, *slot, *create),
            Op::Upsert { rows, form } => {
                let mut binds = Vec::new();
                for (label, code, nick) in rows {
                    let code = code.map_or_else(|| Value::int4(0).null(), Value::int4);
                    binds.extend([Value::text(label), code, Value::text(nick)]);
                }
                let values =
                    (0..rows.len()).map(|row| format!("(${}, ${}, ${})", 3 * row + 1, 3 * row + 2, 3 * row + 3));
                let values = values.collect::<Vec<_>>().join(", ");
                let sql = format!(
                    "INSERT INTO authors (label, code, nick) VALUES {values} ON CONFLICT (code) {}",
                    UPSERTS[*form]
                );
                self.conn.run(&sql, &binds).map(Event::Count)
            }
            Op::Query(query) => self.query(QUERIES[*query], &[]).map(Event::Rows),
            Op::Update { set, code } => {
                let sql = match set {
                    0 => "UPDATE authors SET nick = 'set' WHERE code < $1",
                    1 => "UPDATE authors SET active = NULL WHERE code < $1",
                    2 => "UPDATE authors SET score = 5 WHERE code < $1",
                    3 => "UPDATE authors SET born = '2020-01-01' WHERE code < $1",
                    4 => "UPDATE events SET n = n + 1 WHERE n < $1",
                    _ => "UPDATE notes SET text = 'changed' WHERE n < $1",
                };
                self.conn.run(sql, &[Value::int4(*code)]).map(Event::Count)
            }
            Op::Delete { table, code } => {
                let sql = match table {
                    0 => "DELETE FROM authors WHERE code = $1",
                    1 => "DELETE FROM events WHERE n < $1",
                    2 => "DELETE FROM notes WHERE n = $1",
                    3 => "DELETE FROM events USING books WHERE books.pages < n AND n = $1",
                    _ => "DELETE FROM nodes WHERE flag AND big < $1",
                };
                self.conn.run(sql, &[Value::int4(*code)]).map(Event::Count)
            }
            Op::Script(sql) => self.conn.script(sql).map(|()| Event::Count(0)),
            Op::Block { ops, rollback } => self.block(ops, *rollback),
        }
    }

    /// A transaction whose error the program catches. An error at its start belongs to what is around it: there the
    /// rows before it were sent. A program that catches that one too ends what is around it as if nothing had happened.
    fn block(&mut self, ops: &[Op], rollback: bool) -> Outcome<Event> {
        let before = self.state.clone();
        let mut events = Vec::new();
        self.conn.begin().inspect_err(|_| self.begin_failed = true)?;
        let mut outcome = Ok(());
        let mut failed = false;
        for op in ops {
            let noted = self.failures.len();
            self.begin_failed = false;
            outcome = match self.guarded(op) {
                Err(_) if self.begin_failed && self.catches => {
                    self.caught += 1;
                    break;
                }
                Ok(event) => {
                    failed |= !matches!(op, Op::Block { .. }) && self.failures.len() > noted;
                    events.push(event);
                    Ok(())
                }
                Err(failure) => Err(failure),
            };
            if outcome.is_err() {
                break;
            }
        }
        let ended = match outcome {
            Ok(()) if !rollback && !failed => self.conn.commit(),
            Ok(()) => self.conn.rollback().and(Ok(())),
            Err(failure) => self.conn.rollback().and(Err(failure)),
        };
        let undone = rollback || failed || ended.is_err();
        let failure = ended.err().map(|failure| self.note(failure));
        if undone {
            // The rows are gone, but not the ids: a sequence never goes back.
            let last = std::mem::take(&mut self.state.last);
            self.state = State { last, ..before };
        }
        Ok(Event::Block { events, failure, rolls_back: rollback })
    }

    /// A statement, in a savepoint of its own where only the statement is to be undone.
    fn guarded(&mut self, op: &Op) -> Outcome<Event> {
        if self.errors == Errors::EndTheTransaction || matches!(op, Op::Block { .. }) {
            return self.op(op);
        }
        if self.errors == Errors::KeepTheRow && matches!(op, Op::Script(sql) if sql.starts_with("SET CONSTRAINTS")) {
            return Ok(Event::Count(0));
        }
        self.conn.begin()?;
        match self.op(op) {
            Ok(event) => {
                if self.errors == Errors::KeepTheRow {
                    // Undone, so that the keys are deferred again.
                    self.conn.begin()?;
                    if let Err(failure) = self.conn.script("SET CONSTRAINTS ALL IMMEDIATE") {
                        self.note(failure);
                    }
                    self.conn.rollback()?;
                }
                self.conn.commit()?;
                Ok(event)
            }
            Err(failure) => {
                self.note(failure);
                self.conn.rollback()?;
                Ok(Event::Count(0))
            }
        }
    }

    fn insert(&mut self, insert: &Insert) -> Outcome<Event> {
        let table = &TABLES[insert.table];
        let mut binds = Vec::new();
        let mut values = Vec::new();
        for row in &insert.rows {
            let cells: Vec<String> = (row.cells.iter().zip(&insert.columns))
                .map(|(cell, &column)| self.cell(cell, &row.label, table.columns[column].1, &mut binds))
                .collect();
            values.push(format!("({})", cells.join(", ")));
        }
        let names: Vec<String> = insert.columns.iter().map(|&at| format!("\"{}\"", table.columns[at].0)).collect();
        let mut sql = format!("INSERT INTO \"{}\" ({}) VALUES {}", table.name, names.join(", "), values.join(", "));
        if insert.returning.is_empty() {
            return self.conn.run(&sql, &binds).map(Event::Count);
        }
        // SeaORM asks for enums as text; every other statement here does.
        let as_text = insert.rows[0].label.ends_with(['0', '2', '4', '6', '8']);
        let returning = insert.returning.iter().map(|&at| {
            let column = format!("\"{}\".\"{}\"", table.name, table.columns[at].0);
            match table.columns[at].1 {
                Kind::Mood if as_text => format!("CAST({column} AS text)"),
                _ => column,
            }
        });
        let returning: Vec<String> = returning.collect();
        sql += &format!(" RETURNING {}", returning.join(", "));
        let rows = self.conn.rows(&sql, &binds)?;
        let shown = rows.iter().zip(&insert.rows).map(|(row, made)| self.returned(insert, made, row)).collect();
        Ok(Event::Rows(shown))
    }

    fn cell(&self, cell: &generate::Cell, label: &str, kind: Kind, binds: &mut Vec<Value>) -> String {
        let value = match cell {
            generate::Cell::Literal(sql) => return (*sql).to_owned(),
            generate::Cell::Default => return "DEFAULT".to_owned(),
            // The ORM cannot bind it, with batching or without.
            generate::Cell::Bind(value) if !S::can_bind(value) => return "NULL".to_owned(),
            generate::Cell::Bind(value) => value.clone(),
            generate::Cell::Label => Value::text(label),
            generate::Cell::Chosen(id) => id_value(kind, *id),
            generate::Cell::Earlier(back) => {
                let Kind::Reference(table) = kind else { unreachable!("only references refer") };
                let known = self.state.ids.get(&table).map(Vec::as_slice).unwrap_or_default();
                match known.len().checked_sub(back + 1) {
                    Some(at) => id_value(kind, known[at].0),
                    None => return "NULL".to_owned(),
                }
            }
        };
        binds.push(value);
        format!("${}", binds.len())
    }

    /// What a program sees of a returned row, without what may differ between two runs.
    fn returned(&mut self, insert: &Insert, made: &generate::Row, row: &[batch_tests::Cell]) -> Vec<String> {
        let columns = TABLES[insert.table].columns;
        let given = |column: usize| {
            let slot = insert.columns.iter().position(|&at| at == column);
            slot.is_some_and(|slot| !matches!(made.cells[slot], generate::Cell::Default))
        };
        insert
            .returning
            .iter()
            .zip(row)
            .map(|(&column, cell)| match columns[column].1 {
                Kind::Id => {
                    let id = cell.int();
                    self.new_id(insert.table, id, &made.label, given(column));
                    format!("id:{}", cell.oid)
                }
                Kind::Reference(table) => match &cell.bytes {
                    None => "NULL".to_owned(),
                    Some(_) => self.label_of(table, cell.int()),
                },
                Kind::Now => self.now(cell.bytes.clone().unwrap()),
                Kind::Clock => format!("clock:{}", cell.oid),
                Kind::Key if !given(column) => {
                    let bytes = cell.bytes.as_ref().unwrap();
                    format!("uuid of version {} and {} bytes", bytes[6] >> 4, bytes.len())
                }
                _ => shown(cell),
            })
            .collect()
    }

    fn new_id(&mut self, table: usize, id: i64, label: &str, given: bool) {
        self.state.ids.entry(table).or_default().push((id, label.to_owned()));
        if given {
            return;
        }
        let last = self.state.last.entry(table).or_default();
        if id <= *last {
            self.broken = Some(format!("{} of {label} got id {id} after {last}", TABLES[table].name));
        }
        *last = id;
    }

    fn label_of(&self, table: usize, id: i64) -> String {
        let known = self.state.ids.get(&table).map(Vec::as_slice).unwrap_or_default();
        let found = known.iter().rev().find(|(known, _)| *known == id);
        found.map_or_else(|| format!("id {id}"), |(_, label)| label.clone())
    }

    /// All `now()` of one transaction are the same.
    fn now(&mut self, bytes: Vec<u8>) -> String {
        let now = self.state.now.get_or_insert_with(|| bytes.clone());
        if *now == bytes { "now".to_owned() } else { "another now".to_owned() }
    }

    fn find(&mut self, insert: &Insert, slot: usize, create: bool) -> Outcome<Event> {
        let table = &TABLES[insert.table];
        let (name, kind) = table.columns[insert.columns[slot]];
        let mut binds = Vec::new();
        let value = match &insert.rows[0].cells[slot] {
            generate::Cell::Default => "NULL".to_owned(),
            cell => self.cell(cell, &insert.rows[0].label, kind, &mut binds),
        };
        let sql = format!("SELECT t.label FROM \"{}\" t WHERE t.\"{name}\" = {value} ORDER BY t.label", table.name);
        let rows = self.query(&sql, &binds)?;
        if create && rows.is_empty() { self.insert(insert) } else { Ok(Event::Rows(rows)) }
    }

    fn select(&mut self, table: usize) -> Outcome<Vec<Vec<String>>> {
        self.query(&content_sql(table), &[])
    }

    fn query(&mut self, sql: &str, binds: &[Value]) -> Outcome<Vec<Vec<String>>> {
        let rows = self.conn.rows(sql, binds)?;
        Ok(rows.iter().map(|row| row.iter().map(shown).collect()).collect())
    }

    fn contents(&mut self, table: usize) -> Outcome<Vec<Vec<String>>> {
        self.select(table)
    }
}

/// A value and its type; types that the schema makes have another oid in each database.
fn shown(cell: &batch_tests::Cell) -> String {
    let mut cell = cell.clone();
    if cell.oid >= 16_384 {
        cell.oid = u32::MAX;
    }
    format!("{cell:?}")
}

fn id_value(kind: Kind, id: i64) -> Value {
    // authors has integer ids, and books refers to them.
    match kind {
        Kind::Reference(super::schema::AUTHORS) => Value::int4(id as i32),
        _ => Value::int8(id),
    }
}

/// A table's rows in the order of their ids, references as labels, without ids, times and random values.
fn content_sql(at: usize) -> String {
    let table = &TABLES[at];
    let columns: Vec<String> = table
        .columns
        .iter()
        .map(|(name, kind)| match kind {
            Kind::Id => "t.id > 0 AS id".to_owned(),
            Kind::Now | Kind::Clock | Kind::Key => format!("t.{name} IS NULL AS {name}"),
            Kind::Reference(to) => {
                format!("(SELECT r.label FROM {} r WHERE r.id = t.{name}) AS {name}", TABLES[*to].name)
            }
            _ => format!("t.{name}"),
        })
        .collect();
    let order = if table.columns[0].1 == Kind::Id { "t.id" } else { "t.label, t.n" };
    format!("SELECT {} FROM {} t ORDER BY {order}", columns.join(", "), table.name)
}
