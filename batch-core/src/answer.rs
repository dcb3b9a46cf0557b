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

/// Rows in Postgres' binary format, row after row in one buffer.
#[derive(Clone, Debug)]
pub struct Rows {
    fields: Arc<[Field]>,
    bytes: Vec<u8>,
    /// Where each value ends in `bytes`, and whether it is NULL.
    cells: Vec<(u32, bool)>,
}

impl Default for Rows {
    fn default() -> Self {
        Self::new(Arc::from([]))
    }
}

impl Rows {
    pub(crate) fn new(fields: Arc<[Field]>) -> Self {
        Self { fields, bytes: Vec::new(), cells: Vec::new() }
    }

    pub(crate) fn push(&mut self, value: Option<&[u8]>) {
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.cells.push((self.bytes.len() as u32, value.is_none()));
    }

    /// The columns.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.cells.len().checked_div(self.fields.len()).unwrap_or(0)
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
        let at = row * self.fields.len() + column;
        let start = at.checked_sub(1).map_or(0, |before| self.cells[before].0) as usize;
        let (end, is_null) = self.cells[at];
        (!is_null).then(|| &self.bytes[start..end as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_row_and_column() {
        let field = |name: &str| Field { name: name.into(), type_oid: 25 };
        let mut rows = Rows::new([field("a"), field("b")].into());
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
