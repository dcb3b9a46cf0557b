//! What Postgres takes: of one statement and its message ([`Load`]), and of one row and its index entries ([`Sizes`]).
//!
//! A statement that is larger fails as a whole, with all the rows that wait. So each row is counted before it joins those
//! that wait, and what may fail by itself is sent alone, where its error belongs to it.

use serde::Deserialize;

use crate::catalog::{Column, Default, Table};
use crate::pending::TableRows;
use crate::reserve;
use crate::statement::oid;

/// Parameters of one statement: they are counted in 16 bits.
pub(crate) const MAX_PARAMS: usize = 65_535;
/// Entries of one SELECT list (`MaxTupleAttributeNumber`).
const MAX_LIST: usize = 1_664;
/// Tables of one statement. Each takes up to three of the 65,000 places in a plan's range table (`INNER_VAR`).
const MAX_TABLES: usize = 4_096;
/// Bytes of one statement, whatever the options say. A message, and an array within it, may have 1 GiB (`MaxAllocSize`) and an
/// array 134,217,727 elements; but `jsonb` takes six times its text in an array.
pub(crate) const MAX_BYTES: usize = 128 << 20;

/// What a parameter takes of its message beside its bytes: their length, and its format.
const PARAM: usize = 6;
/// What an array takes beside its elements: its header. Each element has a length of four bytes.
const ARRAY: usize = 20;
/// What a single value takes of the text of a statement: `$65535, `, `DEFAULT, ` or a parenthesis more.
const TEXT: usize = 12;
/// The longest value that the engine makes: a UUID.
const OPEN: usize = 16;

/// What a statement holds of that which Postgres limits.
#[derive(Clone, Copy, Debug, std::default::Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub tables: usize,
    pub rows: usize,
    /// Of its parameters in a message, and of its text as far as that grows with the rows.
    pub bytes: usize,
    pub params: usize,
    /// Entries of its longest SELECT list.
    pub list: usize,
}

impl Load {
    /// Of both in one statement.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            tables: self.tables + other.tables,
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
            params: self.params + other.params,
            list: self.list.max(other.list),
        }
    }

    /// Whether Postgres takes it as one statement, with a request for ids beside it.
    pub(crate) fn fits(&self) -> bool {
        self.tables <= MAX_TABLES
            && self.bytes <= MAX_BYTES
            && self.params + reserve::PARAMS <= MAX_PARAMS
            && self.list <= MAX_LIST
    }
}

/// The values of one column in some rows.
#[derive(Clone, Copy, Debug, std::default::Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Rows that give it a value, NULL among them.
    pub given: usize,
    /// Rows that give it another value than NULL.
    pub values: usize,
    /// The bytes of these.
    pub bytes: usize,
    /// Rows of which it is not known yet whether they give it a value.
    pub open: usize,
}

/// What some rows of one table are, column by column.
#[derive(Clone, Debug)]
pub(crate) struct Shapes<'a> {
    table: &'a Table,
    rows: usize,
    can_unnest: bool,
    /// By column; `None` where no row mentions it.
    columns: Vec<Option<Shape>>,
}

impl<'a> Shapes<'a> {
    /// So many rows that mention no column yet.
    pub(crate) fn new(table: &'a Table, rows: usize) -> Self {
        Self { table, rows, can_unnest: true, columns: vec![None; table.columns.len()] }
    }

    /// Rows that wait.
    pub(crate) fn of(waiting: &'a TableRows) -> Self {
        let mut shapes = Self::new(&waiting.table, waiting.rows);
        shapes.can_unnest = waiting.can_unnest();
        for column in &waiting.columns {
            shapes.columns[column.column] = Some(column.shape());
        }
        shapes
    }

    /// The shape of a column that is mentioned.
    pub(crate) fn column(&mut self, at: usize) -> &mut Shape {
        self.columns[at].get_or_insert_default()
    }

    /// Values that cannot travel in an array are among them.
    pub(crate) fn are_single(&mut self) {
        self.can_unnest = false;
    }

    /// These rows and others of the same table.
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.rows += other.rows;
        self.can_unnest &= other.can_unnest;
        for (mine, theirs) in self.columns.iter_mut().zip(&other.columns) {
            *mine = match (*mine, *theirs) {
                (Some(a), Some(b)) => Some(Shape {
                    given: a.given + b.given,
                    values: a.values + b.values,
                    bytes: a.bytes + b.bytes,
                    open: a.open + b.open,
                }),
                (one, other) => one.or(other),
            };
        }
        self
    }

    pub(crate) fn load(&self) -> Load {
        let columns = self.columns.iter().enumerate();
        load(self.table, self.rows, self.can_unnest, columns.filter_map(|(at, shape)| Some((at, (*shape)?))))
    }
}

/// What these rows of one table are in a statement, in the form that [`flush`](crate::flush) gives them.
pub(crate) fn load(
    table: &Table,
    rows: usize,
    can_unnest: bool,
    columns: impl Iterator<Item = (usize, Shape)>,
) -> Load {
    let mut load = Load { tables: 1, rows, ..Load::default() };
    let mut mentioned = 0;
    for (at, shape) in columns {
        let column = &table.columns[at];
        let has_default = !matches!(column.default, Default::Null);
        // A column that all rows leave to its default is left out.
        let may_be_given = shape.given + shape.open > 0 || !has_default;
        if !may_be_given {
            continue;
        }
        mentioned += 1;
        if !can_unnest {
            let values = shape.values + shape.open;
            load.params += values;
            load.bytes += shape.bytes + OPEN * shape.open + values * PARAM + rows * TEXT;
            continue;
        }
        load.params += 1;
        load.bytes += PARAM + ARRAY + 4 * rows + shape.bytes + OPEN * shape.open;
        if has_default && shape.given < rows {
            // A flag for each row.
            load.params += 1;
            load.list += 1;
            load.bytes += PARAM + ARRAY + 5 * rows;
        }
    }
    load.list += mentioned;
    if mentioned == 0 {
        load.bytes += rows * TEXT;
    }
    load
}

/// The most that rows of a table can add to a statement, as arrays and whatever it holds of that table already: values of so many
/// bytes in all.
pub(crate) fn most(table: &Table, rows: usize, bytes: usize) -> Load {
    let columns = table.columns.len();
    Load {
        tables: 1,
        rows,
        bytes: bytes + columns * (rows * (4 + 5 + OPEN) + 2 * (PARAM + ARRAY)),
        params: 2 * columns,
        list: 2 * columns,
    }
}

/// How large a table's rows may be, and their entries in its indexes. The default says that they always fit.
#[derive(Debug)]
pub(crate) struct Sizes {
    entries: Vec<Entry>,
    rows: Vec<RowLayout>,
    /// An index or a generated column is computed from values, by functions that have limits of their own.
    computes: bool,
    /// So many bytes are too large for nothing but a page.
    harmless: usize,
}

/// The values that go into an entry of one index.
#[derive(Debug, PartialEq)]
struct Entry {
    /// Positions in the table's columns.
    columns: Vec<usize>,
    /// So many bytes of them always fit.
    limit: usize,
}

/// The parts of a row of the table, or of a partition of it, as they are stored.
#[derive(Debug, PartialEq)]
struct RowLayout {
    limit: usize,
    header: usize,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq)]
struct Part {
    column: Option<usize>,
    len: Option<usize>,
    align: usize,
    /// It is never stored elsewhere.
    stays: bool,
}

/// What is known of one value before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Null,
    Bytes(usize),
    Unknown,
}

/// So many bytes of a row are computed with: `to_tsvector` takes about 1 MiB, of which words have places as well.
const MAX_COMPUTED: usize = 256 << 10;
/// The value of an expression is taken to be at most four times as long as what it is made of.
const GROWTH: usize = 4;
/// `jsonb` may take six times its text.
const JSONB_GROWTH: usize = 6;
/// A value that is stored elsewhere leaves 18 bytes, and one of fewer than 21 is not (`MAXALIGN(TOAST_POINTER_SIZE)`).
const MAX_INLINE: usize = 21;

/// A row about an index: the columns of which its entries are made, as far as those have no fixed length.
#[derive(Deserialize)]
pub(crate) struct IndexRow {
    /// The table and those of which it is a partition.
    pub tables: Vec<u32>,
    block: usize,
    /// None is a row as a whole.
    columns: Option<Vec<Option<String>>>,
    computed: Option<bool>,
    expressions: bool,
}

/// A row about a table or partition whose rows may be larger than a page, even with all that can be stored elsewhere.
#[derive(Deserialize)]
pub(crate) struct WideRow {
    /// The table and those of which it is a partition.
    pub tables: Vec<u32>,
    block: usize,
    parts: Vec<PartRow>,
}

#[derive(Deserialize)]
struct PartRow {
    name: String,
    len: i64,
    align: String,
    storage: String,
}

/// What is to be known of indexes and wide rows, as further rows of the catalog's query.
///
/// Of access methods only Postgres' own are looked at: `btree`, `gist`, `gin`, `brin` and `spgist`; `hash` keeps hashes. A key of a
/// fixed length always fits, and so does one that Postgres' own support for `gin` and `gist` hashes or cuts.
pub(crate) const SQL: &str = "
UNION ALL
SELECT 'index', json_build_object('block', current_setting('block_size')::int4, 'expressions', i.indexprs IS NOT NULL,
    'tables', CASE WHEN t.relispartition THEN (SELECT json_agg(p.relid::oid::int8) FROM pg_partition_ancestors(t.oid) p)
        ELSE json_build_array(t.oid::int8) END,
    'columns', key.columns, 'computed', key.computed)::text
FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_class t ON t.oid = i.indrelid AND t.relkind IN ('r', 'p')
CROSS JOIN LATERAL (
    SELECT json_agg(a.attname), bool_or(i.indkey[k.attnum - 1] = 0)
    FROM pg_catalog.pg_attribute k LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid
        AND (a.attnum = i.indkey[k.attnum - 1] OR i.indkey[k.attnum - 1] = 0 AND a.attnum > 0 AND a.attnum IN (
            SELECT d.refobjsubid FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid
              AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = i.indrelid))
    WHERE k.attrelid = i.indexrelid AND k.attlen < 0 AND c.relam IN (403, 783, 2742, 3580, 4000)
      AND (c.relam IN (403, 3580) OR k.attnum > i.indnkeyatts OR NOT EXISTS (
          SELECT FROM pg_catalog.pg_opclass o WHERE o.oid = i.indclass[k.attnum - 1]
            AND o.opcname IN ('jsonb_ops', 'tsvector_ops', 'text_ops') AND o.opcnamespace = 'pg_catalog'::regnamespace))
) key (columns, computed)
WHERE i.indexrelid >= 16384 AND i.indislive AND (i.indexprs IS NOT NULL OR key.columns IS NOT NULL)
UNION ALL
SELECT 'wide', json_build_object('block', current_setting('block_size')::int4,
    'tables', CASE WHEN t.relispartition THEN (SELECT json_agg(p.relid::oid::int8) FROM pg_partition_ancestors(t.oid) p)
        ELSE json_build_array(t.oid::int8) END,
    'parts', (SELECT json_agg(json_build_object('name', a.attname, 'len', a.attlen, 'align', a.attalign::text, 'storage', a.attstorage::text)
        ORDER BY a.attnum) FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped))::text
FROM (
    SELECT a.attrelid FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY a.attrelid
    HAVING sum(CASE WHEN a.attlen > 0 THEN a.attlen + 7 ELSE 22 END) + 72 + max(a.attnum) / 8 > current_setting('block_size')::int4
        OR bool_or(a.attlen < 0 AND a.attstorage = 'p')
) large JOIN pg_catalog.pg_class t ON t.oid = large.attrelid AND t.relkind IN ('r', 'p')";

impl std::default::Default for Sizes {
    fn default() -> Self {
        Self { entries: Vec::new(), rows: Vec::new(), computes: false, harmless: usize::MAX }
    }
}

impl Sizes {
    /// An index of the table, or of a partition of it.
    pub(crate) fn index(&mut self, row: &IndexRow, columns: &[Column]) {
        self.computes |= row.expressions;
        if let Some(names) = &row.columns {
            let known = |name: &Option<String>| columns.iter().position(|column| Some(&column.name) == name.as_ref());
            let parts: Option<Vec<usize>> = names.iter().map(known).collect();
            let is_made = |parts: &Vec<usize>| parts.iter().any(|&at| columns[at].generated);
            // Three entries share a page of a B-tree, whose keys are the shortest of all.
            let limit = row.block / 4;
            let entry = match parts.filter(|parts| !is_made(parts)) {
                Some(columns) if row.computed == Some(true) => Entry { columns, limit: limit / GROWTH },
                Some(columns) => Entry { columns, limit },
                // Of a generated column nothing is known but that all columns may be in it.
                None => Entry { columns: (0..columns.len()).collect(), limit: limit / GROWTH },
            };
            // Those of partitions are often the same.
            if !self.entries.contains(&entry) {
                self.entries.push(entry);
            }
        }
    }

    /// A table or a partition of it with wide rows.
    pub(crate) fn wide(&mut self, row: &WideRow, columns: &[Column]) {
        let part = |part: &PartRow| Part {
            column: columns.iter().position(|column| column.name == part.name),
            len: usize::try_from(part.len).ok(),
            align: match part.align.as_str() {
                "s" => 2,
                "i" => 4,
                "d" => 8,
                _ => 1,
            },
            stays: part.storage == "p",
        };
        let layout = RowLayout {
            limit: row.block - 32,
            // 23 bytes, and a bit for each column.
            header: (23 + row.parts.len().div_ceil(8)).next_multiple_of(8),
            parts: row.parts.iter().map(part).collect(),
        };
        if !self.rows.contains(&layout) {
            self.rows.push(layout);
        }
    }

    /// Everything is known.
    pub(crate) fn complete(&mut self, columns: &[Column]) {
        self.computes |= columns.iter().any(|column| column.generated);
        let computed = if self.computes { MAX_COMPUTED } else { usize::MAX };
        let entries = self.entries.iter().map(|entry| entry.limit / JSONB_GROWTH).min();
        self.harmless = computed.min(entries.unwrap_or(usize::MAX));
    }

    /// Whether a statement whose values have so many bytes in all has to be looked at.
    pub(crate) fn matter(&self, bytes: usize) -> bool {
        bytes > self.harmless || !self.rows.is_empty()
    }

    /// Whether Postgres may refuse a row for its size, by the size of the value in each column.
    pub(crate) fn may_be_too_large(&self, columns: &[Column], size: impl Fn(usize) -> Size) -> bool {
        let known = |at: usize| match size(at) {
            Size::Bytes(bytes) => bytes,
            Size::Null | Size::Unknown => 0,
        };
        let indexed = |&at: &usize| known(at) * if columns[at].base_oid == oid::JSONB { JSONB_GROWTH } else { 1 };
        let is_large = |entry: &Entry| entry.columns.iter().map(indexed).sum::<usize>() > entry.limit;
        self.entries.iter().any(is_large)
            || self.computes && (0..columns.len()).map(known).sum::<usize>() > MAX_COMPUTED
            || self.rows.iter().any(|layout| layout.len(&size) > layout.limit)
    }
}

impl RowLayout {
    /// The most that a row takes on its page (`heap_compute_data_size`).
    fn len(&self, size: impl Fn(usize) -> Size) -> usize {
        let mut at = self.header;
        for part in &self.parts {
            let size = part.column.map_or(Size::Unknown, &size);
            at = match (size, part.len) {
                (Size::Null, _) => at,
                (_, Some(len)) => at.next_multiple_of(part.align) + len,
                (Size::Bytes(bytes), None) if part.stays => at.next_multiple_of(part.align) + 4 + bytes,
                (Size::Bytes(bytes), None) => at + (1 + bytes).min(MAX_INLINE),
                (Size::Unknown, None) => at + MAX_INLINE,
            };
        }
        at.next_multiple_of(8)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::catalog::Catalog;
    use crate::catalog::testing::{catalog, column, row, rows, table};
    use crate::flush;
    use crate::pending::Pending;
    use crate::statement::testing::{INT4, TEXT, int4s};

    /// Numbers that look random.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as usize % n
        }
    }

    #[test]
    fn what_waits_is_counted_as_it_is_sent() {
        let tables = |n: usize| {
            let text = column("a", "text");
            table(&format!("t{n}"))
                .column(text)
                .column(column("b", "int4").default("5"))
                .column(column("c", "int4[]"))
                .column(column("d", "text").default("'x'::text"))
        };
        let catalog = catalog((0..3).map(tables));
        let mut dice = Dice(42);
        for _ in 0..500 {
            let mut pending = Pending::new();
            for _ in 0..1 + dice.below(12) {
                let table = &catalog.tables()[dice.below(3)];
                let (waiting, _) = pending.table_mut(table, &table.name);
                let text = vec![b'x'; dice.below(9)];
                for at in 0..4 {
                    let array = int4s(&[1, 2]);
                    let (bind, value) = match at {
                        0 | 3 => (TEXT, Some(text.as_slice())),
                        1 => (INT4, Some(&[0, 0, 0, 1][..])),
                        _ => (array.0, array.1.as_deref()),
                    };
                    // Arrays are rare, so that there are tables without.
                    match dice.below(if at == 2 { 12 } else { 3 }) {
                        0 => waiting.push(at, bind, None, value),
                        1 => waiting.push(at, bind, None, None),
                        _ => {}
                    }
                }
                waiting.end_row();
            }
            let load = pending.load();
            let query = flush::statements(pending.take(), &[], false).remove(0);
            assert_eq!(load.params, query.params.len(), "{}", query.sql);
            let bytes: usize = query.params.iter().map(|param| PARAM + param.value.as_ref().map_or(0, Vec::len)).sum();
            assert!(bytes <= load.bytes, "{bytes} > {}: {}", load.bytes, query.sql);
            let longest = query.sql.split("INSERT").map(|part| part.matches("unnest(").count()).max().unwrap_or(0);
            assert!(longest <= load.list, "{longest} > {}: {}", load.list, query.sql);
        }
    }

    #[test]
    fn the_bounds_of_a_statement_are_those_of_postgres() {
        let load = Load { tables: 1, rows: 1, bytes: 1, params: 65_531, list: 1_664 };
        assert!(load.fits());
        assert!(!Load { params: 65_532, ..load }.fits());
        assert!(!Load { list: 1_665, ..load }.fits());
        assert!(!Load { bytes: (128 << 20) + 1, ..load }.fits());
        assert!(!load.and(Load { params: 1, ..Load::default() }).fits());
        assert!(load.and(Load { list: 1_664, ..Load::default() }).fits());
    }

    /// A catalog of one table with columns of these types, `c0` and on, and of these facts about it.
    fn sized(types: &[&str], facts: &[(&str, serde_json::Value)]) -> Arc<Catalog> {
        let described = types.iter().enumerate().map(|(at, name)| column(&format!("c{at}"), name));
        let mut all = rows([described.fold(table("t"), |table, column| table.column(column))]);
        for (what, fact) in facts {
            let mut fact = fact.clone();
            fact["tables"] = vec![100].into();
            fact["block"] = 8_192.into();
            all.push(row(what, fact));
        }
        Arc::new(Catalog::read(&all, 0).unwrap())
    }

    fn is_large(catalog: &Catalog, sizes: &[Size]) -> bool {
        let table = &catalog.tables()[0];
        let bytes = sizes.iter().map(|size| if let Size::Bytes(bytes) = size { *bytes } else { 0 }).sum();
        table.sizes.matter(bytes) && table.sizes.may_be_too_large(&table.columns, |at| sizes[at])
    }

    #[test]
    fn an_entry_of_an_index_is_the_sum_of_its_columns() {
        use Size::{Bytes, Null, Unknown};
        let index = |columns: &[&str], computed: bool| {
            ("index", json!({ "columns": columns, "computed": computed, "expressions": computed }))
        };
        let plain = sized(&["text", "text", "jsonb"], &[index(&["c0", "c1"], false)]);
        assert!(!is_large(&plain, &[Bytes(1_000), Bytes(1_048), Bytes(1 << 30)]));
        assert!(is_large(&plain, &[Bytes(1_001), Bytes(1_048), Null]));
        assert!(is_large(&plain, &[Bytes(2_049), Unknown, Null]));
        let computed = sized(&["text", "text"], &[index(&["c0"], true)]);
        assert!(!is_large(&computed, &[Bytes(512), Bytes(200_000)]));
        assert!(is_large(&computed, &[Bytes(513), Null]));
        // An index of which no entry can be too large may still be computed by a function that takes not everything.
        let words = sized(&["text"], &[("index", json!({ "columns": null, "computed": false, "expressions": true }))]);
        assert!(!is_large(&words, &[Bytes(256 << 10)]));
        assert!(is_large(&words, &[Bytes((256 << 10) + 1)]));
        let json = sized(&["jsonb"], &[index(&["c0"], false)]);
        assert!(is_large(&json, &[Bytes(350)]) && !is_large(&json, &[Bytes(340)]));
        assert!(!is_large(&sized(&["text"], &[]), &[Bytes(1 << 30)]));
    }

    #[test]
    fn a_row_takes_its_page_what_cannot_be_stored_elsewhere() {
        let part = |at: usize, len: i64, align: &str, storage: &str| json!({ "name": format!("c{at}"), "len": len, "align": align, "storage": storage });
        let wide = |parts: Vec<serde_json::Value>| ("wide", json!({ "parts": parts }));
        let texts = sized(&["text"; 400], &[wide((0..400).map(|at| part(at, -1, "i", "x")).collect())]);
        assert!(is_large(&texts, &[Size::Bytes(1_000); 400]));
        assert!(!is_large(&texts, &[Size::Bytes(18); 400]));
        assert!(!is_large(&texts, &[Size::Null; 400]));
        assert!(is_large(&texts, &[Size::Unknown; 400]));
        let stays = sized(&["text"], &[wide(vec![part(0, -1, "i", "p")])]);
        assert!(is_large(&stays, &[Size::Bytes(8_133)]) && !is_large(&stays, &[Size::Bytes(8_132)]));
        let mixed = sized(
            &["int8", "bool"],
            &[wide(
                (0..900)
                    .map(|at| part(at % 2, if at % 2 == 0 { 8 } else { 1 }, if at % 2 == 0 { "d" } else { "c" }, "p"))
                    .collect(),
            )],
        );
        // 450 times 16 bytes, as the larger ones are aligned.
        assert!(!is_large(&mixed, &[Size::Bytes(8), Size::Bytes(1)]));
    }
}
