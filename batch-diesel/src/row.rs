//! Rows that come from Postgres or from the engine, as one type.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use batch_core::{Batch, Rows};
use diesel::pg::{Pg, PgValue, TypeOidLookup};
use diesel::result::QueryResult;
use diesel::row::{self, PartialRow, RowIndex, RowSealed};

/// The rows of a query that are all there: from Postgres, or from the engine where an INSERT waits.
#[allow(missing_debug_implementations, reason = "Diesel's cursors have none")]
pub struct AllRows<C>(AllRowsFrom<C>);

enum AllRowsFrom<C> {
    Postgres(C),
    Engine(Answered),
}

impl<C> AllRows<C> {
    pub(crate) fn postgres(rows: C) -> Self {
        Self(AllRowsFrom::Postgres(rows))
    }

    pub(crate) fn engine(rows: Rows) -> Self {
        Self(AllRowsFrom::Engine(Answered::new(rows)))
    }
}

impl<C, R> Iterator for AllRows<C>
where
    C: Iterator<Item = QueryResult<R>>,
{
    type Item = QueryResult<Row<R>>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            AllRowsFrom::Postgres(rows) => Some(rows.next()?.map(Row::postgres)),
            AllRowsFrom::Engine(rows) => rows.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            AllRowsFrom::Postgres(rows) => rows.size_hint(),
            AllRowsFrom::Engine(rows) => rows.left().size_hint(),
        }
    }
}

/// The rows of a query that come one by one: from Postgres, or from the engine where an INSERT waits.
#[allow(missing_debug_implementations, reason = "Diesel's cursors have none")]
pub struct Cursor<'conn, C> {
    source: Source<'conn, C>,
}

enum Source<'conn, C> {
    Postgres { rows: C, batch: &'conn mut Batch },
    Engine(Answered),
}

impl<'conn, C> Cursor<'conn, C> {
    pub(crate) fn postgres(rows: C, batch: &'conn mut Batch) -> Self {
        Self { source: Source::Postgres { rows, batch } }
    }

    pub(crate) fn engine(rows: Rows) -> Self {
        Self { source: Source::Engine(Answered::new(rows)) }
    }
}

impl<C, R> Iterator for Cursor<'_, C>
where
    C: Iterator<Item = QueryResult<R>>,
{
    type Item = QueryResult<Row<R>>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::Postgres { rows, batch } => {
                let row = rows.next()?;
                if row.is_err() {
                    batch.failed_late();
                }
                Some(row.map(Row::postgres))
            }
            Source::Engine(rows) => rows.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.source {
            Source::Postgres { rows, .. } => rows.size_hint(),
            Source::Engine(rows) => rows.left().size_hint(),
        }
    }
}

/// The rows of an INSERT that waits, one by one.
pub(crate) struct Answered {
    rows: Arc<Rows>,
    next: usize,
}

impl Answered {
    pub(crate) fn new(rows: Rows) -> Self {
        Self { rows: Arc::new(rows), next: 0 }
    }

    pub(crate) fn next<R>(&mut self) -> Option<QueryResult<Row<R>>> {
        let row = self.left().next()?;
        self.next += 1;
        Some(Ok(Row::engine(Arc::clone(&self.rows), row)))
    }

    pub(crate) fn left(&self) -> Range<usize> {
        self.next..self.rows.len()
    }
}

/// One row.
#[allow(missing_debug_implementations, reason = "Diesel's rows have none")]
pub struct Row<R>(Origin<R>);

enum Origin<R> {
    Postgres(R),
    Engine { rows: Arc<Rows>, row: usize },
}

impl<R> Row<R> {
    pub(crate) fn postgres(row: R) -> Self {
        Self(Origin::Postgres(row))
    }

    fn engine(rows: Arc<Rows>, row: usize) -> Self {
        Self(Origin::Engine { rows, row })
    }
}

impl<R> RowSealed for Row<R> {}

impl<'a, R: row::Row<'a, Pg>> row::Row<'a, Pg> for Row<R> {
    type Field<'f>
        = Field<'f, R::Field<'f>>
    where
        'a: 'f,
        Self: 'f;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        match &self.0 {
            Origin::Postgres(row) => row.field_count(),
            Origin::Engine { rows, .. } => rows.fields().len(),
        }
    }

    fn get<'b, I>(&'b self, idx: I) -> Option<Self::Field<'b>>
    where
        'a: 'b,
        Self: RowIndex<I>,
    {
        let column = self.idx(idx)?;
        match &self.0 {
            Origin::Postgres(row) => row.get(column).map(|field| Field(FieldOrigin::Postgres(field))),
            Origin::Engine { rows, row } => Some(Field(FieldOrigin::Engine(Cell { rows, row: *row, column }))),
        }
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self::InnerPartialRow> {
        PartialRow::new(self, range)
    }
}

impl<R: RowIndex<usize>> RowIndex<usize> for Row<R> {
    fn idx(&self, idx: usize) -> Option<usize> {
        match &self.0 {
            Origin::Postgres(row) => row.idx(idx),
            Origin::Engine { rows, .. } => (idx < rows.fields().len()).then_some(idx),
        }
    }
}

impl<'n, R: RowIndex<&'n str>> RowIndex<&'n str> for Row<R> {
    fn idx(&self, name: &'n str) -> Option<usize> {
        match &self.0 {
            Origin::Postgres(row) => row.idx(name),
            Origin::Engine { rows, .. } => rows.fields().iter().position(|field| field.name == name),
        }
    }
}

/// A value of a row.
#[allow(missing_debug_implementations, reason = "Diesel's fields have none")]
pub struct Field<'f, F>(FieldOrigin<'f, F>);

enum FieldOrigin<'f, F> {
    Postgres(F),
    Engine(Cell<'f>),
}

impl<'f, F: row::Field<'f, Pg>> row::Field<'f, Pg> for Field<'f, F> {
    fn field_name(&self) -> Option<&str> {
        match &self.0 {
            FieldOrigin::Postgres(field) => field.field_name(),
            FieldOrigin::Engine(cell) => Some(&cell.rows.fields()[cell.column].name),
        }
    }

    fn value(&self) -> Option<PgValue<'_>> {
        match &self.0 {
            FieldOrigin::Postgres(field) => field.value(),
            FieldOrigin::Engine(cell) => cell.rows.get(cell.row, cell.column).map(|bytes| PgValue::new(bytes, cell)),
        }
    }
}

/// A place in the engine's rows.
struct Cell<'f> {
    rows: &'f Rows,
    row: usize,
    column: usize,
}

impl TypeOidLookup for Cell<'_> {
    fn lookup(&self) -> NonZeroU32 {
        // No type has the oid 0.
        NonZeroU32::new(self.rows.fields()[self.column].type_oid).unwrap_or(NonZeroU32::MIN)
    }
}
