//! Rows that wait, a column at a time, in Postgres' binary array format.

use std::collections::{HashMap, HashSet};
use std::hash::RandomState;
use std::sync::Arc;

use crate::catalog::{Default, Table};
use crate::eligible::can_unnest;
use crate::recognise::TypeName;
use crate::statement::BindType;
use crate::stored;

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
    /// For each foreign key of the table: the values that these rows refer to.
    references: Vec<Referred>,
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
        self.segments.iter().any(|segment| segment.savepoint.is_some())
    }

    pub(crate) fn rows(&self) -> usize {
        self.tables().map(|rows| rows.rows).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.tables().map(TableRows::bytes).sum()
    }

    /// Parameters that the flush would need where rows cannot be sent as arrays.
    pub(crate) fn single_params(&self) -> usize {
        self.tables().filter(|rows| !rows.can_unnest()).map(|rows| rows.rows * rows.columns.len()).sum()
    }

    fn tables(&self) -> impl Iterator<Item = &TableRows> {
        self.segments.iter().flat_map(|segment| &segment.tables)
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

    pub(crate) fn hasher(&self) -> &RandomState {
        &self.hasher
    }

    /// Whether rows of `table` wait that may refer to others.
    pub(crate) fn has_references(&self, table: u32) -> bool {
        self.tables().any(|rows| rows.table.oid == table)
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
            rows.columns.iter().all(|column| mine.fits(column.column, column.bind, column.cast.as_ref()))
        })
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
        Self { table, name_sql, columns: Vec::new(), rows: 0, references }
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(|c| c.data.len() + c.defaults.as_ref().map_or(0, |d| 5 * d.len())).sum()
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

    fn append(&mut self, later: TableRows) {
        let total = self.rows + later.rows;
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
        for (mine, theirs) in self.references.iter_mut().zip(later.references) {
            mine.hashes.extend(theirs.hashes);
            mine.anything |= theirs.anything;
        }
    }
}

impl ColumnRows {
    fn new(column: usize, bind: BindType, cast: Option<TypeName>) -> Self {
        Self { column, bind, cast, data: Vec::new(), has_null: false, defaults: None, rows: 0, default_rows: 0 }
    }

    fn push(&mut self, value: Option<&[u8]>) {
        match value {
            Some(bytes) => {
                self.data.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
                self.data.extend_from_slice(bytes);
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
        self.rows += later.rows;
        self.default_rows += later.default_rows;
    }

    /// The values, one by one.
    pub(crate) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let mut rest = self.data.as_slice();
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
