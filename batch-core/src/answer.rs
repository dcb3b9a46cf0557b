//! The rows that the ORM gets back for an INSERT that waits.

use std::sync::Arc;

/// What an INSERT that waits is answered with.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// How many rows the statement inserts.
    pub count: usize,
    /// What `RETURNING` asked for; without columns where it asked for nothing.
    pub rows: Rows,
}

/// A column of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The column's name or its alias.
    pub name: String,
    /// The oid that Postgres would give for it: a domain's base type.
    pub type_oid: u32,
}

/// Rows in Postgres' binary format, in one buffer.
#[derive(Clone, Debug)]
pub struct Rows {
    fields: Arc<[Field]>,
    /// Values in the buffer.
    cells: usize,
    /// An [`End`] for each value there is to be, then the values.
    buffer: Vec<u8>,
}

/// Where a value ends, and whether it is NULL.
struct End(u64);

impl End {
    const SIZE: usize = 8;
    const NULL: u64 = 1 << 63;

    fn new(at: usize, is_null: bool) -> Self {
        Self(at as u64 | if is_null { Self::NULL } else { 0 })
    }

    fn at(&self) -> usize {
        (self.0 & !Self::NULL) as usize
    }

    fn is_null(&self) -> bool {
        self.0 & Self::NULL != 0
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::new(Arc::from([]), 0)
    }
}

impl Rows {
    /// One row of values in Postgres' binary format, as many as there are fields.
    pub fn one<'a>(fields: &Arc<[Field]>, values: impl Iterator<Item = Option<&'a [u8]>>) -> Self {
        Self::several(fields, 1, values)
    }

    /// So many rows, as [`Rows::one`].
    pub fn several<'a>(fields: &Arc<[Field]>, rows: usize, values: impl Iterator<Item = Option<&'a [u8]>>) -> Self {
        let cells = rows * fields.len();
        let mut rows = Self::new(Arc::clone(fields), rows);
        values.take(cells).for_each(|value| rows.push(value));
        rows
    }

    /// Room for so many rows, whose values are then pushed one by one.
    pub(crate) fn new(fields: Arc<[Field]>, rows: usize) -> Self {
        /// What most values fit into, so that most answers are one allocation.
        const VALUE: usize = 12;
        let cells = rows * fields.len();
        let mut buffer = Vec::with_capacity(cells * (End::SIZE + VALUE));
        buffer.resize(cells * End::SIZE, 0);
        Self { fields, cells: 0, buffer }
    }

    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        self.buffer.extend_from_slice(value.unwrap_or_default());
        let End(end) = End::new(self.buffer.len(), value.is_none());
        let at = self.cells * End::SIZE;
        self.buffer[at..at + End::SIZE].copy_from_slice(&end.to_ne_bytes());
        self.cells += 1;
    }

    fn end(&self, cell: usize) -> End {
        let mut end = [0; End::SIZE];
        end.copy_from_slice(&self.buffer[cell * End::SIZE..][..End::SIZE]);
        End(u64::from_ne_bytes(end))
    }

    /// The columns.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.cells.checked_div(self.fields.len()).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value in this row and column; `None` is NULL.
    ///
    /// # Panics
    ///
    /// Panics if there is no such row or column.
    pub fn get(&self, row: usize, column: usize) -> Option<&[u8]> {
        assert!(column < self.fields.len(), "the answer has {} columns", self.fields.len());
        let cell = row * self.fields.len() + column;
        assert!(cell < self.cells, "the answer has {} rows", self.len());
        let start = cell.checked_sub(1).map_or(self.cells * End::SIZE, |before| self.end(before).at());
        let end = self.end(cell);
        (!end.is_null()).then(|| &self.buffer[start..end.at()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_row_and_column() {
        let field = |name: &str| Field { name: name.into(), type_oid: 25 };
        let mut rows = Rows::new([field("a"), field("b")].into(), 2);
        for value in [Some(&b"x"[..]), None, Some(b""), Some(b"yz")] {
            rows.push(value);
        }
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.get(0, 0), Some(&b"x"[..]));
        assert_eq!(rows.get(0, 1), None);
        assert_eq!(rows.get(1, 0), Some(&b""[..]));
        assert_eq!(rows.get(1, 1), Some(&b"yz"[..]));
    }
}
