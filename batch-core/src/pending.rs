//! Rows that wait, a column at a time, in Postgres' binary array format.

use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::sync::Arc;

use crate::catalog::{Default, Table};
use crate::eligible::can_unnest;
use crate::limits::{self, Load, Shape, Shapes};
use crate::recognise::TypeName;
use crate::statement::BindType;
use crate::{patience, stored};

/// All rows of a connection that wait.
///
/// A segment ends where a savepoint begins that is held back (`Nested::Merge`): its rows must be sent before the
/// savepoint, or rolling back to it would undo them.
#[derive(Debug)]
pub(crate) struct Pending {
    segments: Vec<Segment>,
    hasher: RandomState,
}

/// Rows between two savepoints.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    /// The savepoint that this segment begins with.
    pub savepoint: Option<String>,
    /// In the order of first use, so that transactions that do the same work lock in the same order.
    pub tables: Vec<TableRows>,
}

/// The rows of one table, in creation order.
#[derive(Debug)]
pub(crate) struct TableRows {
    pub table: Arc<Table>,
    /// As the statements write it.
    pub name_sql: String,
    pub columns: Vec<ColumnRows>,
    pub rows: usize,
    /// What they are in a statement.
    pub load: Load,
    /// Their `ON CONFLICT` clause.
    pub conflict: Option<String>,
    /// What they have in its key: Postgres updates no row twice in a statement.
    keys: HashSet<u64>,
    /// For each foreign key of the table: the values that these rows refer to.
    references: Vec<Referred>,
    /// The values of columns by which rows were looked for.
    held: Vec<Held>,
}

/// Which values a column has, as far as they were looked through.
#[derive(Debug)]
struct Held {
    column: usize,
    /// So many bytes of the column's data.
    bytes: usize,
    keys: HashSet<u64>,
    /// A value that cannot be compared.
    anything: bool,
}

/// The values of one column.
#[derive(Debug)]
pub(crate) struct ColumnRows {
    /// Position in the table's columns.
    pub column: usize,
    pub bind: BindType,
    pub cast: Option<TypeName>,
    /// For each row a length and that many bytes; -1 is NULL.
    pub data: Vec<u8>,
    pub has_null: bool,
    /// Rows with another value than NULL.
    values: usize,
    /// Rows that leave the column to its default, where that is not NULL.
    pub defaults: Option<Vec<bool>>,
    rows: usize,
    pub default_rows: usize,
}

#[derive(Debug, std::default::Default)]
struct Referred {
    hashes: HashSet<u64>,
    last: Option<u64>,
    /// A value that cannot be compared.
    anything: bool,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self { segments: vec![Segment::default()], hasher: RandomState::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.tables.is_empty())
    }

    /// Whether a savepoint is held back.
    pub(crate) fn holds_savepoint(&self) -> bool {
        self.savepoints().next().is_some()
    }

    /// Those that are held back, the innermost last.
    pub(crate) fn savepoints(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| segment.savepoint.as_deref())
    }

    pub(crate) fn rows(&self) -> usize {
        self.tables().map(|rows| rows.rows).sum()
    }

    /// What the flush will send.
    pub(crate) fn bytes(&self) -> usize {
        self.tables().map(|rows| rows.load.bytes).sum()
    }

    /// The statement that the next row joins, as it is now.
    pub(crate) fn load(&self) -> Load {
        self.segments.last().map(Segment::load).unwrap_or_default()
    }

    /// The statement that these rows would join, with them.
    pub(crate) fn load_with(&self, table: u32, joining: Shapes<'_>) -> Load {
        let Some(segment) = self.segments.last() else { return joining.load() };
        let others = segment.tables.iter().filter(|rows| rows.table.oid != table).map(|rows| rows.load);
        let joined = match self.current(table) {
            Some(waiting) => joining.and(&Shapes::of(waiting)),
            None => joining,
        };
        others.fold(joined.load(), Load::and)
    }

    fn tables(&self) -> impl Iterator<Item = &TableRows> {
        self.segments.iter().flat_map(|segment| &segment.tables)
    }

    /// How much work the rows of each table are.
    pub(crate) fn work(&self) -> impl Iterator<Item = (u32, usize)> {
        self.segments.iter().flat_map(Segment::work)
    }

    /// Takes everything, to send it or to discard it.
    pub(crate) fn take(&mut self) -> Vec<Segment> {
        std::mem::replace(&mut self.segments, vec![Segment::default()])
    }

    /// The rows of `table` that the next row joins.
    pub(crate) fn table_mut(&mut self, table: &Arc<Table>, name_sql: &str) -> (&mut TableRows, &RandomState) {
        if self.segments.is_empty() {
            self.segments.push(Segment::default());
        }
        let last = self.segments.len() - 1;
        (self.segments[last].table_mut(table, name_sql), &self.hasher)
    }

    /// The rows of the table that wait in the segment that the next row joins.
    pub(crate) fn current(&self, table: u32) -> Option<&TableRows> {
        self.segments.last()?.tables.iter().find(|rows| rows.table.oid == table)
    }

    /// From how many sequences Postgres will take ids at the flush.
    pub(crate) fn assigned_sequences(&self) -> usize {
        let mut sequences = HashSet::new();
        for rows in self.tables() {
            for (at, column) in rows.table.columns.iter().enumerate() {
                if let Default::Sequence(sequence) = &column.default
                    && rows.has_defaults(at)
                {
                    sequences.insert(sequence.oid);
                }
            }
        }
        sequences.len()
    }

    /// Whether rows of the table wait whose `column` Postgres fills.
    pub(crate) fn has_defaults(&self, table: u32, column: usize) -> bool {
        self.tables().any(|rows| rows.table.oid == table && rows.has_defaults(column))
    }

    pub(crate) fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Whether rows of `table` wait.
    pub(crate) fn has_rows(&self, table: u32) -> bool {
        self.tables().any(|rows| rows.table.oid == table)
    }

    /// Whether a waiting row of `table` may have the value with this [`stored::key_hash`] in `column`.
    pub(crate) fn may_hold(&mut self, table: u32, column: usize, key: u64) -> bool {
        let hasher = &self.hasher;
        let mut waiting = self.segments.iter_mut().flat_map(|segment| &mut segment.tables);
        waiting.any(|rows| rows.table.oid == table && (rows.conflict.is_some() || rows.may_hold(column, key, hasher)))
    }

    /// Whether a waiting row of `table` may refer by its `foreign_key` to the key with this hash.
    pub(crate) fn may_refer(&self, table: u32, foreign_key: usize, key: Option<u64>) -> bool {
        self.tables().filter(|rows| rows.table.oid == table).filter_map(|rows| rows.references.get(foreign_key)).any(
            |referred| match key {
                _ if referred.anything => true,
                Some(key) => referred.hashes.contains(&key),
                None => !referred.hashes.is_empty(),
            },
        )
    }

    /// Holds a savepoint back: rows from here on belong to it.
    pub(crate) fn hold_savepoint(&mut self, name: String) {
        self.segments.push(Segment { savepoint: Some(name), tables: Vec::new() });
    }

    /// Forgets a savepoint that was held back; its rows join those before. `false` if it was not held back.
    pub(crate) fn release(&mut self, name: &str) -> bool {
        let Some(at) = self.position(name) else { return false };
        for mut segment in self.segments.split_off(at) {
            segment.savepoint = None;
            self.join(segment);
        }
        true
    }

    /// Forgets all savepoints held back: the transaction ends.
    pub(crate) fn release_all(&mut self) {
        for mut segment in std::mem::take(&mut self.segments) {
            segment.savepoint = None;
            self.join(segment);
        }
    }

    /// Discards the rows since a savepoint that was held back and goes on holding it; how many rows, or `None` if it
    /// was not held back.
    pub(crate) fn roll_back_to(&mut self, name: &str) -> Option<usize> {
        let at = self.position(name)?;
        let discarded = self.segments.split_off(at);
        self.hold_savepoint(name.to_owned());
        Some(discarded.iter().map(Segment::rows).sum())
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.segments.iter().rposition(|segment| segment.savepoint.as_deref() == Some(name))
    }

    /// Appends a segment to the last one where that is possible, else behind it.
    fn join(&mut self, segment: Segment) {
        match self.segments.last_mut() {
            Some(last) if last.tables.is_empty() => last.tables = segment.tables,
            Some(last) if last.fits(&segment) => last.append(segment),
            _ => self.segments.push(segment),
        }
    }
}

impl Segment {
    pub(crate) fn rows(&self) -> usize {
        self.tables.iter().map(|rows| rows.rows).sum()
    }

    fn load(&self) -> Load {
        self.tables.iter().map(|rows| rows.load).fold(Load::default(), Load::and)
    }

    /// Both as one statement.
    fn load_with(&self, later: &Segment) -> Load {
        let joined = |rows: &TableRows| match later.tables.iter().find(|other| other.table.oid == rows.table.oid) {
            Some(other) => Shapes::of(rows).and(&Shapes::of(other)).load(),
            None => rows.load,
        };
        let is_new = |rows: &&TableRows| !self.tables.iter().any(|mine| mine.table.oid == rows.table.oid);
        let new = later.tables.iter().filter(is_new).map(|rows| rows.load);
        self.tables.iter().map(joined).chain(new).fold(Load::default(), Load::and)
    }

    /// By table.
    pub(crate) fn work(&self) -> impl Iterator<Item = (u32, usize)> {
        self.tables.iter().map(|rows| (rows.table.oid, patience::work(rows.rows, rows.load.bytes)))
    }

    fn table_mut(&mut self, table: &Arc<Table>, name_sql: &str) -> &mut TableRows {
        let found = self.tables.iter().position(|rows| rows.table.oid == table.oid);
        let at = found.unwrap_or_else(|| {
            self.tables.push(TableRows::new(Arc::clone(table), name_sql.to_owned()));
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    fn fits(&self, later: &Segment) -> bool {
        later.tables.iter().all(|rows| {
            let Some(mine) = self.tables.iter().find(|mine| mine.table.oid == rows.table.oid) else { return true };
            Arc::ptr_eq(&mine.table, &rows.table)
                && mine.conflict == rows.conflict
                && mine.keys.is_disjoint(&rows.keys)
                && rows.columns.iter().all(|column| mine.fits(column.column, column.bind, column.cast.as_ref()))
        }) && self.load_with(later).fits()
    }

    fn append(&mut self, later: Segment) {
        for rows in later.tables {
            match self.tables.iter_mut().find(|mine| mine.table.oid == rows.table.oid) {
                Some(mine) => mine.append(rows),
                None => self.tables.push(rows),
            }
        }
    }
}

impl TableRows {
    fn new(table: Arc<Table>, name_sql: String) -> Self {
        let references = table.foreign_keys.iter().map(|_| Referred::default()).collect();
        Self {
            table,
            name_sql,
            columns: Vec::new(),
            rows: 0,
            load: Load::default(),
            conflict: None,
            keys: HashSet::new(),
            references,
            held: Vec::new(),
        }
    }

    fn count(&mut self) {
        let columns = self.columns.iter().map(|column| (column.column, column.shape()));
        self.load = limits::load(&self.table, self.rows, self.can_unnest(), columns);
    }

    /// Whether a value of this type can join the column's values.
    pub(crate) fn fits(&self, column: usize, bind: BindType, cast: Option<&TypeName>) -> bool {
        self.columns.iter().find(|c| c.column == column).is_none_or(|c| c.bind == bind && c.cast.as_ref() == cast)
    }

    /// Whether the column waits with rows that leave it to its default.
    pub(crate) fn has_defaults(&self, column: usize) -> bool {
        match self.columns.iter().find(|c| c.column == column) {
            None => self.rows > 0,
            Some(c) => c.default_rows > 0,
        }
    }

    /// Whether every column can travel as an array.
    pub(crate) fn can_unnest(&self) -> bool {
        self.columns.iter().all(|c| can_unnest(c.bind, &self.table.columns[c.column]))
    }

    pub(crate) fn push(&mut self, column: usize, bind: BindType, cast: Option<&TypeName>, value: Option<&[u8]>) {
        let at = self.columns.iter().position(|c| c.column == column).unwrap_or_else(|| {
            let mut new = ColumnRows::new(column, bind, cast.cloned());
            for _ in 0..self.rows {
                new.push_default(&self.table.columns[column].default);
            }
            self.columns.push(new);
            self.columns.len() - 1
        });
        self.columns[at].push(value);
    }

    /// Ends a row: columns that it did not give a value are left to their defaults.
    pub(crate) fn end_row(&mut self) {
        self.rows += 1;
        for column in &mut self.columns {
            if column.rows < self.rows {
                column.push_default(&self.table.columns[column.column].default);
            }
        }
        self.count();
    }

    /// Whether a row with this key waits.
    pub(crate) fn has_key(&self, key: u64) -> bool {
        self.keys.contains(&key)
    }

    /// Notes a row's key.
    pub(crate) fn add_key(&mut self, key: u64) {
        self.keys.insert(key);
    }

    /// Notes what the row's foreign key refers to; `None` is a value that cannot be compared.
    pub(crate) fn refer(&mut self, foreign_key: usize, key: Option<u64>) {
        let Some(referred) = self.references.get_mut(foreign_key) else { return };
        match key {
            None => referred.anything = true,
            // Children of one parent often come one after the other.
            Some(_) if referred.last == key => {}
            Some(hash) => {
                referred.last = key;
                referred.hashes.insert(hash);
            }
        }
    }

    /// Whether a row may have the value with this hash in `column`. What was looked through once is remembered.
    fn may_hold(&mut self, column: usize, key: u64, hasher: &RandomState) -> bool {
        let described = &self.table.columns[column];
        let Some(values) = self.columns.iter().find(|c| c.column == column) else {
            return described.generated || !matches!(described.default, Default::Null);
        };
        if values.default_rows > 0 || !stored::is_compared_as_bound(values.bind.oid, values.cast.as_ref(), described) {
            return true;
        }
        let at = self.held.iter().position(|held| held.column == column).unwrap_or_else(|| {
            self.held.push(Held { column, bytes: 0, keys: HashSet::new(), anything: false });
            self.held.len() - 1
        });
        let held = &mut self.held[at];
        for value in read_values(&values.data[held.bytes..]).flatten() {
            match stored::key_hash(value, described, hasher) {
                Some(key) => drop(held.keys.insert(key)),
                None => held.anything = true,
            }
        }
        held.bytes = values.data.len();
        held.anything || held.keys.contains(&key)
    }

    fn append(&mut self, later: TableRows) {
        let total = self.rows + later.rows;
        self.keys.extend(later.keys);
        for column in later.columns {
            let at = self.columns.iter().position(|c| c.column == column.column).unwrap_or_else(|| {
                let mut new = ColumnRows::new(column.column, column.bind, column.cast.clone());
                for _ in 0..self.rows {
                    new.push_default(&self.table.columns[column.column].default);
                }
                self.columns.push(new);
                self.columns.len() - 1
            });
            self.columns[at].append(column);
        }
        for column in &mut self.columns {
            while column.rows < total {
                column.push_default(&self.table.columns[column.column].default);
            }
        }
        self.rows = total;
        self.count();
        for (mine, theirs) in self.references.iter_mut().zip(later.references) {
            mine.hashes.extend(theirs.hashes);
            mine.anything |= theirs.anything;
        }
    }
}

impl ColumnRows {
    fn new(column: usize, bind: BindType, cast: Option<TypeName>) -> Self {
        Self {
            column,
            bind,
            cast,
            data: Vec::new(),
            has_null: false,
            values: 0,
            defaults: None,
            rows: 0,
            default_rows: 0,
        }
    }

    fn push(&mut self, value: Option<&[u8]>) {
        match value {
            Some(bytes) => {
                self.data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                self.data.extend_from_slice(bytes);
                self.values += 1;
            }
            None => {
                self.data.extend_from_slice(&(-1_i32).to_be_bytes());
                self.has_null = true;
            }
        }
        if let Some(defaults) = &mut self.defaults {
            defaults.push(false);
        }
        self.rows += 1;
    }

    fn push_default(&mut self, default: &Default) {
        if !matches!(default, Default::Null) && self.defaults.is_none() {
            self.defaults = Some(vec![false; self.rows]);
        }
        self.push(None);
        if !matches!(default, Default::Null)
            && let Some(last) = self.defaults.as_mut().and_then(|defaults| defaults.last_mut())
        {
            *last = true;
            self.default_rows += 1;
        }
    }

    fn append(&mut self, later: ColumnRows) {
        if self.defaults.is_some() || later.defaults.is_some() {
            let mine = self.defaults.get_or_insert_with(|| vec![false; self.rows]);
            mine.extend(later.defaults.unwrap_or_else(|| vec![false; later.rows]));
        }
        self.data.extend_from_slice(&later.data);
        self.has_null |= later.has_null;
        self.values += later.values;
        self.rows += later.rows;
        self.default_rows += later.default_rows;
    }

    pub(crate) fn shape(&self) -> Shape {
        let bytes = self.data.len() - 4 * self.rows;
        Shape { given: self.rows - self.default_rows, values: self.values, bytes, open: 0 }
    }

    /// The values, one by one.
    pub(crate) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        read_values(&self.data)
    }
}

fn read_values(mut rest: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            rest = after;
            return Some(None);
        };
        let (value, after) = after.split_at(len);
        rest = after;
        Some(Some(value))
    })
}

/// The hash of the key that `columns` hold, by `value` of each; `None` if it cannot be compared, and nothing at all if
/// it is NULL and refers to nothing.
pub(crate) fn key_hash<'a>(
    hasher: &RandomState,
    table: &Table,
    columns: &[usize],
    value: impl Fn(usize) -> Known<'a>,
) -> Option<Option<u64>> {
    use std::hash::BuildHasher;
    let mut combined: u64 = 0;
    for &at in columns {
        let hash = match value(at) {
            Known::Null => return None,
            Known::Unknown => None,
            Known::Bytes(bytes) => stored::key_hash(bytes, &table.columns[at], hasher),
        };
        match hash {
            Some(hash) => combined = hasher.hash_one((combined, hash)),
            None => return Some(None),
        }
    }
    Some(Some(combined))
}

/// What is known of a row's value before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known<'a> {
    Null,
    Bytes(&'a [u8]),
    Unknown,
}

/// How many waiting rows each table has, for a trace.
pub(crate) fn rows_by_table(segments: &[Segment]) -> HashMap<String, usize> {
    let mut rows = HashMap::new();
    for table in segments.iter().flat_map(|segment| &segment.tables) {
        *rows.entry(table.table.full_name()).or_default() += table.rows;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{TableRow, catalog, column, table};
    use crate::statement::testing::{Bind, INT4, INT8, TEXT, int4, int4s, text};

    const ID: usize = 0;
    const NAME: usize = 1;
    const STATE: usize = 2;
    const TAGS: usize = 3;

    fn users() -> TableRow {
        table("users")
            .column(column("id", "int4").serial(1))
            .column(column("name", "text"))
            .column(column("state", "text").default("'new'::text"))
            .column(column("tags", "int4[]"))
    }

    fn the_table() -> Arc<Table> {
        Arc::clone(&catalog([users()]).tables()[0])
    }

    /// Adds a row with these values by column.
    fn add(pending: &mut Pending, table: &Arc<Table>, values: &[(usize, Bind)]) {
        let (rows, _) = pending.table_mut(table, &table.name);
        for (column, (bind, value)) in values {
            rows.push(*column, *bind, None, value.as_deref());
        }
        rows.end_row();
    }

    fn names(pending: &Pending) -> Vec<Vec<String>> {
        let of_table = |rows: &TableRows| {
            let column = rows.columns.iter().find(|c| c.column == NAME).unwrap();
            column.values().map(|v| v.map_or("-".into(), |v| String::from_utf8_lossy(v).into_owned())).collect()
        };
        pending.tables().map(of_table).collect()
    }

    fn column_of(pending: &Pending, at: usize) -> &ColumnRows {
        pending.segments.last().unwrap().tables[0].columns.iter().find(|c| c.column == at).unwrap()
    }

    #[test]
    fn rows_wait_in_the_order_of_their_creation() {
        let (mut pending, users) = (Pending::new(), the_table());
        assert!(pending.is_empty());
        add(&mut pending, &users, &[(NAME, text("a"))]);
        add(&mut pending, &users, &[(NAME, text("b"))]);
        assert_eq!((pending.rows(), pending.is_empty()), (2, false));
        // A parameter that is an array: a length of four bytes and one byte each.
        assert_eq!(pending.bytes(), 26 + 10);
        assert_eq!(names(&pending), [["a", "b"]]);
        assert_eq!(pending.take().len(), 1);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_column_that_only_some_rows_give_is_null_for_the_others() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(ID, int4(1))]);
        add(&mut pending, &users, &[(ID, int4(2)), (NAME, text("b"))]);
        add(&mut pending, &users, &[(ID, int4(3))]);
        assert_eq!(names(&pending), [["-", "b", "-"]]);
        let name = column_of(&pending, NAME);
        assert_eq!((name.has_null, &name.defaults, name.default_rows), (true, &None, 0));
    }

    #[test]
    fn a_column_with_a_default_remembers_the_rows_that_leave_it_out() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(NAME, text("a"))]);
        add(&mut pending, &users, &[(NAME, text("b")), (STATE, text("old"))]);
        add(&mut pending, &users, &[(NAME, text("c"))]);
        let state = column_of(&pending, STATE);
        assert_eq!((state.defaults.as_deref(), state.default_rows), (Some(&[true, false, true][..]), 2));
    }

    #[test]
    fn rows_that_leave_their_id_to_postgres_are_known() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(ID, int4(1)), (NAME, text("a"))]);
        assert!(!pending.has_defaults(users.oid, ID));
        add(&mut pending, &users, &[(NAME, text("b"))]);
        assert!(pending.has_defaults(users.oid, ID));
        // Behind a savepoint as well.
        pending.hold_savepoint("s".into());
        assert!(pending.has_defaults(users.oid, ID));
        assert_eq!(pending.assigned_sequences(), 1);
    }

    #[test]
    fn values_join_a_column_only_with_the_same_bind_and_cast() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(ID, int4(1))]);
        let rows = pending.current(users.oid).unwrap();
        let cast = TypeName { sql: "int4".into(), name: "int4".into() };
        assert!(rows.fits(ID, INT4, None));
        assert!(!rows.fits(ID, INT8, None));
        assert!(!rows.fits(ID, INT4, Some(&cast)));
        assert!(rows.fits(NAME, TEXT, Some(&cast)));
    }

    #[test]
    fn a_released_savepoint_merges_its_rows_with_those_before() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(NAME, text("a")), (STATE, text("old"))]);
        pending.hold_savepoint("s".into());
        add(&mut pending, &users, &[(ID, int4(7)), (NAME, text("b"))]);
        assert!(pending.release("s"));
        assert!(!pending.holds_savepoint());
        assert_eq!(names(&pending), [["a", "b"]]);
        assert_eq!(column_of(&pending, STATE).defaults.as_deref(), Some(&[false, true][..]));
        assert_eq!(column_of(&pending, ID).defaults.as_deref(), Some(&[true, false][..]));
        assert!(!pending.release("s"));
    }

    #[test]
    fn rows_that_do_not_fit_each_other_stay_apart() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(NAME, text("a")), (ID, int4(1))]);
        pending.hold_savepoint("s".into());
        add(&mut pending, &users, &[(NAME, text("b")), (ID, (INT8, Some(vec![0; 8])))]);
        pending.release_all();
        assert_eq!(names(&pending), [["a"], ["b"]]);
        assert!(!pending.holds_savepoint());
    }

    #[test]
    fn rows_checked_against_another_catalog_stay_apart() {
        let mut pending = Pending::new();
        add(&mut pending, &the_table(), &[(NAME, text("a"))]);
        pending.hold_savepoint("s".into());
        add(&mut pending, &the_table(), &[(NAME, text("b"))]);
        pending.release_all();
        assert_eq!(names(&pending), [["a"], ["b"]]);
    }

    #[test]
    fn rolling_back_to_a_savepoint_discards_its_rows_and_keeps_the_savepoint() {
        let (mut pending, users) = (Pending::new(), the_table());
        add(&mut pending, &users, &[(NAME, text("a"))]);
        pending.hold_savepoint("outer".into());
        add(&mut pending, &users, &[(NAME, text("b"))]);
        pending.hold_savepoint("inner".into());
        add(&mut pending, &users, &[(NAME, text("c"))]);
        assert_eq!(pending.roll_back_to("unknown"), None);
        assert_eq!(pending.roll_back_to("outer"), Some(2));
        assert_eq!(names(&pending), [["a"]]);
        assert_eq!(pending.roll_back_to("inner"), None);
        assert_eq!(pending.roll_back_to("outer"), Some(0));
    }

    #[test]
    fn of_two_savepoints_with_one_name_the_later_is_meant() {
        let (mut pending, users) = (Pending::new(), the_table());
        pending.hold_savepoint("s".into());
        add(&mut pending, &users, &[(NAME, text("a"))]);
        pending.hold_savepoint("s".into());
        add(&mut pending, &users, &[(NAME, text("b"))]);
        assert_eq!(pending.roll_back_to("s"), Some(1));
        assert!(pending.release("s") && pending.holds_savepoint());
        assert_eq!(names(&pending), [["a"]]);
    }

    #[test]
    fn one_array_makes_single_parameters_of_all_rows_of_its_table() {
        let (mut pending, users) = (Pending::new(), the_table());
        for _ in 0..10 {
            add(&mut pending, &users, &[(NAME, text("a"))]);
        }
        assert_eq!(pending.load().params, 1);
        add(&mut pending, &users, &[(TAGS, int4s(&[1]))]);
        assert_eq!(pending.load().params, 11);
        pending.hold_savepoint("s".into());
        add(&mut pending, &users, &[(NAME, text("b"))]);
        assert_eq!(pending.load().params, 1);
        pending.release_all();
        assert_eq!(pending.load().params, 12);
    }

    fn family() -> (Arc<Table>, Arc<Table>) {
        let catalog = catalog([
            table("parent").column(column("a", "int8")).column(column("b", "text")),
            table("child").column(column("x", "text")).column(column("y", "int4")).references(
                &["y", "x"],
                "parent",
                &["a", "b"],
            ),
        ]);
        (Arc::clone(&catalog.tables()[0]), Arc::clone(&catalog.tables()[1]))
    }

    /// Whether a parent with the key `(a, b)` may be the one that a waiting child `(x, y)` refers to.
    fn meets(child: [Known<'_>; 2], parent: [Known<'_>; 2]) -> bool {
        let (parents, children) = family();
        let mut pending = Pending::new();
        let hasher = pending.hasher().clone();
        add(&mut pending, &children, &[]);
        if let Some(key) = key_hash(&hasher, &children, &children.foreign_keys[0].columns, |at| child[at]) {
            pending.table_mut(&children, "child").0.refer(0, key);
        }
        let reference = &parents.referenced_by[0];
        key_hash(&hasher, &parents, &reference.columns, |at| parent[at])
            .is_some_and(|key| pending.may_refer(reference.table, reference.foreign_key, key))
    }

    #[test]
    fn a_foreign_key_is_compared_column_by_column_whatever_the_width_of_its_integers() {
        let [five, six] = [&[0, 0, 0, 5], &[0, 0, 0, 6]].map(|bytes| Known::Bytes(bytes));
        let wide_five = Known::Bytes(&[0, 0, 0, 0, 0, 0, 0, 5]);
        let [m, n] = [b"m", b"n"].map(|bytes| Known::Bytes(bytes));
        assert!(meets([m, five], [wide_five, m]));
        assert!(!meets([m, six], [wide_five, m]));
        assert!(!meets([n, five], [wide_five, m]));
    }

    #[test]
    fn null_refers_to_nothing_and_the_unknown_to_anything() {
        let five = Known::Bytes(&[0, 0, 0, 5]);
        let wide_five = Known::Bytes(&[0, 0, 0, 0, 0, 0, 0, 5]);
        let m = Known::Bytes(b"m");
        assert!(!meets([Known::Null, five], [wide_five, m]));
        assert!(!meets([m, five], [wide_five, Known::Null]));
        assert!(meets([m, Known::Unknown], [wide_five, m]));
        assert!(meets([m, five], [Known::Unknown, m]));
        assert!(!meets([Known::Null, five], [Known::Unknown, m]));
    }
}
