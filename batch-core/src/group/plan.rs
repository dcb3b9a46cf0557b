//! Which INSERTs may join a group, and the statements that send one.
//!
//! Postgres itself answers, so more may join than may wait in a transaction: values that only it can convert, volatile
//! defaults, generated columns. What counts instead is that each caller's row is found again among those that come back, by a
//! key that is known before: ids that were reserved, an id that the engine made, or a unique key that the program bound.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::answer::Field;
use crate::catalog::{Catalog, Default, Table};
use crate::eligible::{ID, Reason, can_unnest, mentioned, output};
use crate::flush::{array_of, quoted};
use crate::ids::Request;
use crate::limits::{MAX_PARAMS, Size};
use crate::options::BatchOptions;
use crate::recognise::{Insert, Returned, TypeName, Value};
use crate::reserve;
use crate::statement::{BindType, Binds, Param, Purpose, Query, oid};
use crate::stored::{self, Rule, Stored};

/// How one INSERT statement travels in a group: made once per statement, bind types and catalog.
#[derive(Debug)]
pub(crate) struct Plan {
    catalog: Arc<Catalog>,
    pub table: Arc<Table>,
    columns: Vec<Sent>,
    pub key: Option<Key>,
    /// Where the key's columns are in what comes back.
    pub key_output: Vec<usize>,
    pub fields: Arc<[Field]>,
    /// Where nothing is asked for: the engine's key, which tells the rows that are in.
    key_field: Option<(String, Arc<[Field]>)>,
    /// How many groups are still likely to meet a key that is taken.
    taken: AtomicU32,
    can_unnest: bool,
    /// `INSERT INTO table (columns)`
    head: String,
    /// `RETURNING …`
    tail: String,
    /// What RETURNING asks for, of rows that have one of the ids `$1`.
    found: Option<String>,
}

/// A column that gets a value.
#[derive(Debug)]
struct Sent {
    column: usize,
    bind: BindType,
    cast: Option<TypeName>,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The program's, by its index.
    Bind(usize, Option<Rule>),
    /// The engine's.
    Key,
}

/// By what the rows of a group are told apart.
#[derive(Debug)]
pub(crate) enum Key {
    /// An id that was reserved.
    Id { column: usize, sequence: u32, descending: bool, is_unique: bool },
    /// A UUID that the engine makes.
    Uuid { is_unique: bool },
    /// Values that the program binds, by index, and how each is stored: a unique index is on them.
    Bound(Vec<(usize, usize, Rule)>),
}

/// What the values of one execution are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub values: Vec<Option<Vec<u8>>>,
    /// The key's bytes, each value behind its length; none where it is an id that is still to be reserved.
    pub key: Option<Vec<u8>>,
    pub bytes: usize,
}

/// How several rows are sent as one statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending<'a> {
    /// How long it waits for a lock, in milliseconds.
    pub lock_timeout: u128,
    /// Rows of which a key is taken are left out; without that they fail the statement.
    pub leaves_out: bool,
    /// Ids that come with the rows, for later groups.
    pub refill: Option<&'a Request>,
}

/// So many groups leave out what is taken, after one that met a key that was.
const CAREFUL: u32 = 64;

impl Plan {
    pub(crate) fn make(
        insert: &Insert,
        table: &Arc<Table>,
        catalog: &Arc<Catalog>,
        types: &[BindType],
        options: &BatchOptions,
    ) -> Result<Self, Reason> {
        if options.excludes(&table.schema, &table.name) {
            return Err(Reason::Excluded);
        }
        if let Some(reason) = table.unfit {
            return Err(reason);
        }
        if insert.rows != 1 {
            return Err(Reason::NotInTransaction);
        }
        if insert.conflict.is_some() {
            return Err(Reason::OnConflict);
        }
        let mentioned = mentioned(insert, table)?;
        let mut columns = Vec::new();
        for (&column, value) in mentioned.iter().zip(&insert.values) {
            if let Some(sent) = sent(column, value, table, types)? {
                columns.push(sent);
            }
        }
        let is_left_out = |column: usize| !columns.iter().any(|sent| sent.column == column);
        for (_, column) in table.columns.iter().enumerate().filter(|(at, _)| is_left_out(*at)) {
            let is_sequence = matches!(column.default, Default::Sequence(_));
            match &column.default {
                Default::Null if column.not_null && !column.generated => return Err(Reason::Null),
                Default::Unfit(reason) if *reason != Reason::VolatileDefault => return Err(*reason),
                _ if !column.is_default_shared && !is_sequence => return Err(Reason::VolatileDefault),
                // The engine follows one sequence for a table.
                _ if is_sequence && table.sequences().count() > 1 => return Err(Reason::NoKey),
                _ => {}
            }
        }
        let (output, fields) = output(insert, table)?;
        if !output.is_empty() && !table.can_select {
            return Err(Reason::NoPrivilege);
        }
        let key = key(table, &columns, &output);
        let is_made = matches!(key, Some(Key::Id { .. } | Key::Uuid { .. }));
        if key.is_none() && !output.is_empty() {
            return Err(Reason::NoKey);
        }
        // Rows whose keys are made here are not known to anybody before they are in.
        let refers_to_itself = table.referenced_by.iter().any(|reference| reference.table == table.oid);
        if refers_to_itself && !is_made {
            return Err(Reason::SelfReference);
        }
        let key_columns: Vec<usize> = match &key {
            Some(Key::Id { column, .. }) => vec![*column],
            Some(Key::Uuid { .. }) => uuid_column(table, &columns).into_iter().collect(),
            Some(Key::Bound(columns)) => columns.iter().map(|(column, ..)| *column).collect(),
            None => Vec::new(),
        };
        if is_made {
            let bind = if matches!(key, Some(Key::Id { .. })) { ID } else { UUID };
            columns.extend(key_columns.iter().map(|&column| Sent { column, bind, cast: None, source: Source::Key }));
        }
        if columns.is_empty() {
            return Err(Reason::Form);
        }
        let place = |column: &usize| output.iter().position(|asked| asked == column);
        let key_output = match output.is_empty() && is_made {
            true => vec![0],
            false => key_columns.iter().filter_map(place).collect(),
        };
        let found = is_made.then(|| found(insert, table, key_columns[0]));
        let key_field = (is_made && output.is_empty()).then(|| {
            let column = &table.columns[key_columns[0]];
            let field = Field { name: column.name.clone(), type_oid: column.base_oid };
            (quoted(&column.name), Arc::from([field]))
        });
        Ok(Self {
            catalog: Arc::clone(catalog),
            can_unnest: columns.iter().all(|sent| can_unnest(sent.bind, &table.columns[sent.column])),
            head: head(insert, table, &columns),
            tail: tail(insert),
            found,
            table: Arc::clone(table),
            columns,
            key,
            key_output,
            key_field,
            taken: AtomicU32::new(0),
            fields: fields.into(),
        })
    }

    /// Whether a group whose outcome is not known may be sent again: what it made before is told by its keys.
    pub(crate) fn repeats(&self) -> bool {
        matches!(self.key, Some(Key::Id { is_unique: true, .. } | Key::Uuid { is_unique: true }))
    }

    /// The values of one execution, or why they are better sent alone: Postgres is known to refuse them.
    pub(crate) fn row(&self, binds: &Binds) -> Result<Row, Reason> {
        let mut values = Vec::with_capacity(self.columns.len());
        let mut key = match &self.key {
            Some(Key::Uuid { .. }) => Some(Vec::new()),
            Some(Key::Bound(_)) => Some(Vec::new()),
            _ => None,
        };
        for sent in &self.columns {
            let column = &self.table.columns[sent.column];
            let value = match sent.source {
                Source::Bind(index, rule) => {
                    let value = binds.values.get(index).ok_or(Reason::Form)?;
                    match (value, rule) {
                        (None, _) if column.not_null => return Err(Reason::Null),
                        // What Postgres only rounds is no reason to be alone.
                        (Some(bytes), Some(rule)) if !rule.rounds() => {
                            rule.apply(bytes, column, &self.catalog, false)?;
                        }
                        _ => {}
                    }
                    value.clone()
                }
                Source::Key => match &self.key {
                    Some(Key::Uuid { .. }) => {
                        let uuid = crate::batch::random_uuid().ok_or(Reason::AnswerUnknown)?;
                        push_key(key.get_or_insert_default(), &uuid);
                        Some(uuid.to_vec())
                    }
                    // Set when it is reserved.
                    _ => None,
                },
            };
            values.push(value);
        }
        if let Some(Key::Bound(columns)) = &self.key {
            for &(column, index, rule) in columns {
                let bytes = binds.values.get(index).and_then(Option::as_deref).ok_or(Reason::NoKey)?;
                let stored = match rule.apply(bytes, &self.table.columns[column], &self.catalog, true)? {
                    Stored::Same => bytes,
                    Stored::Becomes(ref bytes) => {
                        push_key(key.get_or_insert_default(), bytes);
                        continue;
                    }
                    Stored::Unknown => return Err(Reason::NoKey),
                };
                push_key(key.get_or_insert_default(), stored);
            }
        }
        let bytes = values.iter().flatten().map(Vec::len).sum::<usize>() + 16 * values.len();
        let size = |column: usize| match self.columns.iter().position(|sent| sent.column == column) {
            Some(at) => values[at].as_ref().map_or(Size::Null, |value| Size::Bytes(value.len())),
            None => Size::Unknown,
        };
        if self.table.sizes.matter(bytes) && self.table.sizes.may_be_too_large(&self.table.columns, size) {
            return Err(Reason::TooLarge);
        }
        Ok(Row { values, key, bytes })
    }

    /// Puts a reserved id into a row; whether the column can hold it.
    pub(crate) fn set_id(&self, row: &mut Row, id: i64) -> bool {
        let Some(Key::Id { column, .. }) = &self.key else { return false };
        let Some((bytes, len)) = stored::id_bytes(id, &self.table.columns[*column]) else { return false };
        let mut key = Vec::new();
        push_key(&mut key, &bytes[..len]);
        row.key = Some(key);
        for (sent, value) in self.columns.iter().zip(&mut row.values) {
            if matches!(sent.source, Source::Key) {
                *value = Some(id.to_be_bytes().to_vec());
            }
        }
        true
    }

    /// One row, sent as a statement of its own that waits for locks as long as the session does; and ids for later groups.
    pub(crate) fn one(&self, row: &Row, refill: Option<&Request>) -> Query {
        let mut query = Query::new(Purpose::Flush, format!("{} VALUES (", self.head));
        for (at, (sent, value)) in self.columns.iter().zip(&row.values).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(query.sql, "{comma}{}", cast(&format!("${}", at + 1), sent));
            query.params.push(Param { type_oid: sent.bind.oid, value: value.clone() });
        }
        let _ = write!(query.sql, "){}", self.tail);
        if let Some(request) = refill {
            self.write_refill(&mut query, &[row], false, request);
        }
        query
    }

    /// Several rows as one statement. The CTE is run before the rows that are joined with it, and what it sets ends with the
    /// statement.
    pub(crate) fn many(&self, rows: &[&Row], sending: Sending<'_>) -> Query {
        let Sending { lock_timeout, leaves_out, refill } = sending;
        let mut query = Query::new(Purpose::Flush, "");
        let _ = write!(
            query.sql,
            "WITH limits AS MATERIALIZED (SELECT set_config('lock_timeout', '{lock_timeout}ms', true)) {} SELECT ",
            self.head
        );
        for (at, sent) in self.columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(query.sql, "{comma}{}", cast(&format!("u.c{at}"), sent));
        }
        query.sql.push_str(" FROM limits, (");
        if self.can_unnest {
            self.write_arrays(&mut query, rows);
        } else {
            self.write_values(&mut query, rows);
        }
        if leaves_out {
            query.sql.push_str(" ON CONFLICT DO NOTHING");
        }
        match self.key_field.as_ref().filter(|_| leaves_out) {
            Some((key, _)) => _ = write!(query.sql, " RETURNING {key}"),
            None => query.sql.push_str(&self.tail),
        }
        if let Some(request) = refill {
            self.write_refill(&mut query, rows, leaves_out, request);
        }
        query
    }

    /// One more column, in which the last row brings ids. Postgres computes it once, and not for a statement that fails
    /// before that row.
    fn write_refill(&self, query: &mut Query, rows: &[&Row], leaves_out: bool, request: &Request) {
        let last = self.columns.iter().position(|sent| matches!(sent.source, Source::Key));
        let (Some(at), Some(row)) = (last, rows.last()) else { return };
        let key = quoted(&self.table.columns[self.columns[at].column].name);
        let start = if self.fields(leaves_out).is_empty() { " RETURNING" } else { "," };
        query.params.push(Param { type_oid: oid::INT8, value: row.values[at].clone() });
        let number = query.params.len();
        query.params.extend(reserve::refill_params(request));
        let _ = write!(query.sql, "{start} CASE WHEN {key} = ${number} THEN {} END", reserve::refill_sql(number + 1));
    }

    /// The columns that come back.
    pub(crate) fn fields(&self, leaves_out: bool) -> &Arc<[Field]> {
        match &self.key_field {
            Some((_, fields)) if leaves_out => fields,
            _ => &self.fields,
        }
    }

    /// Whether rows of which a key is taken can be left out, and are then known.
    pub(crate) fn can_leave_out(&self) -> bool {
        !self.table.has_late_keys && self.table.can_select && !self.fields(true).is_empty()
    }

    /// Whether this group had better leave out what is taken, as one did lately.
    pub(crate) fn is_careful(&self) -> bool {
        let less = |taken: u32| taken.checked_sub(1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_ok()
    }

    pub(crate) fn met_taken_key(&self) {
        self.taken.store(CAREFUL, Ordering::Release);
    }

    fn write_arrays(&self, query: &mut Query, rows: &[&Row]) {
        query.sql.push_str("SELECT ");
        for (at, sent) in self.columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(query.sql, "{comma}unnest(${}) AS c{at}", at + 1);
            let values = array_of(sent.bind.oid, rows.iter().map(|row| row.values[at].as_deref()));
            query.params.push(Param { type_oid: sent.bind.array_oid, value: Some(values) });
        }
        query.sql.push_str(") AS u");
    }

    /// For types that `unnest` would take apart.
    fn write_values(&self, query: &mut Query, rows: &[&Row]) {
        query.cacheable = false;
        query.sql.push_str("VALUES ");
        for (at, row) in rows.iter().enumerate() {
            query.sql.push_str(if at == 0 { "(" } else { ", (" });
            for (column, (sent, value)) in self.columns.iter().zip(&row.values).enumerate() {
                query.params.push(Param { type_oid: sent.bind.oid, value: value.clone() });
                let comma = if column == 0 { "" } else { ", " };
                let _ = write!(query.sql, "{comma}${}", query.params.len());
            }
            query.sql.push(')');
        }
        let names: Vec<String> = (0..self.columns.len()).map(|at| format!("c{at}")).collect();
        let _ = write!(query.sql, ") AS u ({})", names.join(", "));
    }

    /// The rows that have the keys of these, as RETURNING would show them; only for keys that the engine made.
    pub(crate) fn found(&self, rows: &[&Row]) -> Option<Query> {
        let at = self.columns.iter().position(|sent| matches!(sent.source, Source::Key))?;
        let bind = self.columns[at].bind;
        let keys = array_of(bind.oid, rows.iter().map(|row| row.values[at].as_deref()));
        let mut query = Query::new(Purpose::Ask, self.found.clone()?);
        query.params.push(Param { type_oid: bind.array_oid, value: Some(keys) });
        Some(query)
    }

    /// So many rows at most, as the parameters of one statement are counted.
    pub(crate) fn max_rows(&self) -> usize {
        if self.can_unnest { usize::MAX } else { MAX_PARAMS / self.columns.len() }
    }
}

const UUID: BindType = BindType { oid: oid::UUID, array_oid: oid::UUID_ARRAY };

/// Adds a value to the bytes of a key.
pub(crate) fn push_key(key: &mut Vec<u8>, value: &[u8]) {
    key.extend_from_slice(&(value.len() as u64).to_be_bytes());
    key.extend_from_slice(value);
}

/// What is left of the bytes of a key behind this value; `None` if another value is there.
pub(crate) fn take_key<'a>(key: &'a [u8], value: &[u8]) -> Option<&'a [u8]> {
    let (len, rest) = key.split_first_chunk::<8>()?;
    if u64::from_be_bytes(*len) == value.len() as u64 { rest.strip_prefix(value) } else { None }
}

/// How a value travels; `None` where it is left to its default.
fn sent(column: usize, value: &Value, table: &Table, types: &[BindType]) -> Result<Option<Sent>, Reason> {
    let definition = &table.columns[column];
    let (index, cast) = match value {
        Value::Default => return Ok(None),
        Value::Literal(_) => return Err(Reason::Literal),
        Value::Bind { index, cast } => (*index, cast.clone()),
    };
    if definition.generated || definition.always_identity {
        return Err(Reason::Generated);
    }
    let bind = *types.get(index).ok_or(Reason::Form)?;
    if bind.oid == 0 {
        return Err(Reason::Cast);
    }
    let rule = stored::rule(bind.oid, cast.as_ref(), definition).ok();
    Ok(Some(Sent { column, bind, cast, source: Source::Bind(index, rule) }))
}

fn cast(value: &str, sent: &Sent) -> String {
    match &sent.cast {
        Some(cast) => format!("CAST({value} AS {})", cast.sql),
        None => value.to_owned(),
    }
}

/// By what the rows are told apart, if RETURNING asks for it or for nothing.
fn key(table: &Table, columns: &[Sent], output: &[usize]) -> Option<Key> {
    let is_told = |column: usize| output.is_empty() || output.contains(&column);
    let is_left_out = |column: usize| !columns.iter().any(|sent| sent.column == column);
    for (at, column) in table.columns.iter().enumerate().filter(|(at, _)| is_left_out(*at)) {
        if let Default::Sequence(sequence) = &column.default {
            // The ids come from the stock, so they must be told.
            let (sequence, descending) = (sequence.oid, sequence.descending);
            let is_unique = is_unique(table, at);
            return is_told(at).then_some(Key::Id { column: at, sequence, descending, is_unique });
        }
    }
    if let Some(at) = uuid_column(table, columns).filter(|&at| is_told(at)) {
        return Some(Key::Uuid { is_unique: is_unique(table, at) });
    }
    let bound = |column: &usize| {
        let sent = columns.iter().find(|sent| sent.column == *column)?;
        match sent.source {
            Source::Bind(index, Some(rule)) if is_told(*column) => Some((*column, index, rule)),
            _ => None,
        }
    };
    // Where nothing is asked for, nothing has to be found again.
    let uniques = table.uniques.iter().filter(|_| !output.is_empty());
    uniques.map(|unique| unique.iter().map(bound).collect::<Option<Vec<_>>>()).find_map(|key| key).map(Key::Bound)
}

/// The first column that is left to `gen_random_uuid()`.
fn uuid_column(table: &Table, columns: &[Sent]) -> Option<usize> {
    let is_left_out = |column: usize| !columns.iter().any(|sent| sent.column == column);
    (0..table.columns.len()).find(|&at| is_left_out(at) && matches!(table.columns[at].default, Default::RandomUuid(_)))
}

/// Whether two rows can never have the same value there.
fn is_unique(table: &Table, column: usize) -> bool {
    table.uniques.iter().any(|unique| unique.as_slice() == [column])
}

fn head(insert: &Insert, table: &Table, columns: &[Sent]) -> String {
    let names: Vec<String> = columns.iter().map(|sent| quoted(&table.columns[sent.column].name)).collect();
    let overriding = columns.iter().any(|sent| table.columns[sent.column].always_identity);
    let overriding = if overriding { " OVERRIDING SYSTEM VALUE" } else { "" };
    format!("INSERT INTO {} ({}){overriding}", insert.table_sql, names.join(", "))
}

fn tail(insert: &Insert) -> String {
    if insert.returning.is_empty() { String::new() } else { format!(" RETURNING {}", asked(insert)) }
}

/// What stands behind RETURNING.
fn asked(insert: &Insert) -> String {
    let item = |returned: &Returned| match returned {
        Returned::All => "*".to_owned(),
        Returned::Column { name, alias, cast } => {
            let value = match cast {
                Some(cast) => format!("CAST({} AS {})", quoted(name), cast.sql),
                None => quoted(name),
            };
            match alias {
                Some(alias) => format!("{value} AS {}", quoted(alias)),
                None => value,
            }
        }
    };
    insert.returning.iter().map(item).collect::<Vec<_>>().join(", ")
}

fn found(insert: &Insert, table: &Table, key: usize) -> String {
    let key = quoted(&table.columns[key].name);
    let asked = if insert.returning.is_empty() { key.clone() } else { asked(insert) };
    format!("SELECT {asked} FROM {} WHERE {key} = ANY ($1)", insert.table_sql)
}
