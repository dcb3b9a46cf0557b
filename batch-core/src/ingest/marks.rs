//! Which items of a source are done, kept in the database beside their rows.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// The items of one source that earlier runs committed.
///
/// They stand in the table `batch_ingest_marks`, written by the transaction that wrote the rows
/// ([`Batch::marks_sql`](super::Batch::marks_sql)): an item is marked if and only if its rows are there. Of two runs at once the
/// second waits ([`Marks::lock_sql`]); without that it fails on the table's key, and commits nothing twice. What is done is
/// kept in memory, a text for each item: let an item be a file or a page rather than a row.
///
/// ```
/// use batch_core::ingest::Marks;
///
/// let marks = Marks::new("genbank 2026");
/// // run Marks::CREATE_TABLE_SQL once, then:
/// assert_eq!(marks.select_sql().unwrap(), "SELECT item FROM batch_ingest_marks WHERE source = 'genbank 2026'");
/// let marks = marks.with_done(["AF000001".to_owned()]); // what the SELECT gave
/// assert!(marks.is_done("AF000001"));
/// ```
#[derive(Clone, Debug)]
pub struct Marks {
    source: Arc<str>,
    done: Arc<HashSet<String>>,
}

impl PartialEq for Marks {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.done == other.done
    }
}

impl Eq for Marks {}

/// A source's name or an item's key that Postgres cannot store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMark(String);

impl fmt::Display for BadMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} cannot be marked in batch_ingest_marks: it contains a NUL, which Postgres does not store",
            self.0
        )
    }
}

impl std::error::Error for BadMark {}

impl Marks {
    /// Makes the table, if it is not there.
    pub const CREATE_TABLE_SQL: &str = "CREATE TABLE IF NOT EXISTS batch_ingest_marks \
        (source text NOT NULL, item text NOT NULL, PRIMARY KEY (source, item))";

    /// The marks of the source that is called so, none of which is known yet.
    pub fn new(source: &str) -> Self {
        Self { source: source.into(), done: Arc::default() }
    }

    /// Waits until no other run of the source is under way, one among them that was killed and whose last statement the
    /// server still executes. To be run first, on a connection that stays open to the end: the lock goes with it (Postgres
    /// manual, 13.3.5).
    ///
    /// # Errors
    ///
    /// Where the source's name contains a NUL.
    pub fn lock_sql(&self) -> Result<String, BadMark> {
        let source = literal(&self.source)?;
        Ok(format!("SELECT pg_advisory_lock(hashtext('batch_ingest_marks'), hashtext({source}))"))
    }

    /// The query for the items that are done.
    ///
    /// # Errors
    ///
    /// Where the source's name contains a NUL.
    pub fn select_sql(&self) -> Result<String, BadMark> {
        Ok(format!("SELECT item FROM batch_ingest_marks WHERE source = {}", literal(&self.source)?))
    }

    /// With the items that the query gave.
    #[must_use]
    pub fn with_done(self, items: impl IntoIterator<Item = String>) -> Self {
        Self { done: Arc::new(items.into_iter().collect()), ..self }
    }

    /// Whether an earlier run committed the item of this key.
    pub fn is_done(&self, key: &str) -> bool {
        self.done.contains(key)
    }

    /// The source alone.
    pub(super) fn named(&self) -> Self {
        Self { source: Arc::clone(&self.source), done: Arc::default() }
    }

    pub(super) fn insert_sql(&self, keys: &[String]) -> Result<String, BadMark> {
        let source = literal(&self.source)?;
        let mut sql = "INSERT INTO batch_ingest_marks (source, item) VALUES ".to_owned();
        for (at, key) in keys.iter().enumerate() {
            let key = literal(key)?;
            sql.push_str(if at > 0 { ", (" } else { "(" });
            sql.push_str(&source);
            sql.push_str(", ");
            sql.push_str(&key);
            sql.push(')');
        }
        Ok(sql)
    }

    /// All of them, as they are written together: if some others are there, another run has been at work, and the marks' key says
    /// so when they are written.
    pub(super) fn landed_sql(&self, keys: &[String]) -> Result<String, BadMark> {
        let source = literal(&self.source)?;
        let items: Vec<String> = keys.iter().map(|key| literal(key)).collect::<Result<_, _>>()?;
        Ok(format!(
            "SELECT count(*) = {} AS landed FROM batch_ingest_marks WHERE source = {source} AND item IN ({})",
            keys.len(),
            items.join(", ")
        ))
    }
}

/// As a string constant (Postgres manual, 4.1.2), whatever `standard_conforming_strings` says.
fn literal(text: &str) -> Result<String, BadMark> {
    if text.contains('\0') {
        return Err(BadMark(text.to_owned()));
    }
    let escape = if text.contains('\\') { "E" } else { "" };
    Ok(format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_quoted() {
        let marks = Marks::new("it's");
        let keys = ["plain", "o'clock", r"back\slash' OR 1"].map(str::to_owned);
        assert_eq!(
            marks.insert_sql(&keys).unwrap(),
            r"INSERT INTO batch_ingest_marks (source, item) VALUES ('it''s', 'plain'), ('it''s', 'o''clock'), ('it''s', E'back\\slash'' OR 1')"
        );
    }

    #[test]
    fn a_batch_has_landed_where_all_its_marks_are_there() {
        let keys = ["a", "o'clock"].map(str::to_owned);
        assert_eq!(
            Marks::new("s").landed_sql(&keys).unwrap(),
            "SELECT count(*) = 2 AS landed FROM batch_ingest_marks WHERE source = 's' AND item IN ('a', 'o''clock')"
        );
    }

    #[test]
    fn a_nul_is_an_error_that_says_so() {
        let error = Marks::new("s").insert_sql(&["a\0b".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("NUL"), "{error}");
        assert!(Marks::new("\0").select_sql().is_err());
    }
}
