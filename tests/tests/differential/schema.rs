//! The tables that random programs work on: every supported column type and kind of default.

/// The tables. `label` names a row whatever its id is.
pub(crate) const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE authors (
    id serial PRIMARY KEY,
    label text NOT NULL,
    code int4 UNIQUE,
    mood mood NOT NULL DEFAULT 'ok',
    born date,
    score numeric(6,2) CHECK (score < 500),
    nick varchar(6) DEFAULT 'none',
    created timestamptz NOT NULL DEFAULT now(),
    active bool DEFAULT true
);
CREATE TABLE books (
    id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    label text NOT NULL,
    author_id int4 REFERENCES authors,
    pages int2 DEFAULT 0,
    isbn char(5),
    tags text[],
    doc jsonb,
    price numeric,
    raw bytea,
    at timestamp(3),
    key uuid DEFAULT gen_random_uuid()
);
CREATE TABLE nodes (
    id bigserial PRIMARY KEY,
    label text NOT NULL,
    parent_id int8 REFERENCES nodes,
    address inet,
    span int4range,
    mail email,
    weight float8,
    flag bool NOT NULL DEFAULT false,
    big int8 DEFAULT 5
);
CREATE TABLE events (
    label text NOT NULL,
    at timestamptz DEFAULT clock_timestamp(),
    n int4 DEFAULT 7
);
CREATE TABLE notes (n int4 NOT NULL, text text);
CREATE VIEW nicks AS SELECT nick FROM authors;
CREATE FUNCTION book_count() RETURNS int8 LANGUAGE sql AS 'SELECT count(*) FROM books';
CREATE FUNCTION shelf(authors) RETURNS int8 LANGUAGE sql AS 'SELECT count(*) FROM books WHERE author_id = $1.id';
CREATE FUNCTION lower(int4) RETURNS int8 LANGUAGE sql AS 'SELECT count(*) FROM nodes WHERE big < $1';
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.text := (SELECT count(*) FROM events);
    RETURN NEW;
END $$;
CREATE TRIGGER note BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION note();
";

/// What an upsert of authors by their codes does with a row that is there.
pub(crate) const UPSERTS: [&str; 5] = [
    "DO UPDATE SET nick = excluded.nick",
    "DO UPDATE SET score = authors.score + 1, active = NULL",
    "DO UPDATE SET code = excluded.code, nick = 'up' || excluded.nick",
    "DO UPDATE SET born = '2020-01-01' WHERE authors.born IS NULL",
    "DO NOTHING",
];

/// Queries whose text does not show all that they see.
pub(crate) const QUERIES: [&str; 9] = [
    "SELECT nick FROM nicks ORDER BY 1",
    "SELECT book_count()",
    "SELECT a.label, a.shelf FROM authors a ORDER BY a.label",
    "SELECT lower(5)",
    "SELECT n, text FROM notes ORDER BY n",
    "SELECT count(*) FROM events WHERE n IN (SELECT code FROM authors)",
    "WITH authors AS (SELECT label FROM events) SELECT label FROM authors ORDER BY label",
    "SELECT label FROM authors ORDER BY label FOR UPDATE",
    "SELECT (SELECT count(*) FROM nodes) + count(*) FROM events",
];

/// Makes foreign keys wait for the end of the transaction.
pub(crate) const DEFER: &str = "
ALTER TABLE books ALTER CONSTRAINT books_author_id_fkey DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE nodes ALTER CONSTRAINT nodes_parent_id_fkey DEFERRABLE INITIALLY DEFERRED;
";

/// Empties the tables, in a third of the time that TRUNCATE takes. Their sequences go on, so that ids stay in stock.
pub(crate) const RESET: &str = "
DELETE FROM events; DELETE FROM books; DELETE FROM authors;
UPDATE nodes SET parent_id = NULL; DELETE FROM nodes;
DELETE FROM notes; INSERT INTO notes SELECT n, 'note' FROM generate_series(1, 60, 20) AS n;
";

/// What a column holds, and with it which values are made for it and how it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An id: only that it grows is compared.
    Id,
    /// The row's name.
    Label,
    /// A reference to a row of this table, compared by that row's label.
    Reference(usize),
    Code,
    Mood,
    Date,
    Score,
    Nick,
    /// The transaction's start.
    Now,
    Bool,
    Pages,
    Isbn,
    Tags,
    Doc,
    Price,
    Raw,
    Timestamp,
    /// Random where it is left to its default.
    Key,
    Inet,
    Range,
    Mail,
    Float,
    Big,
    /// The time of day.
    Clock,
    Number,
}

/// A table and its columns.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [(&'static str, Kind)],
}

pub(crate) const AUTHORS: usize = 0;
pub(crate) const NODES: usize = 2;

/// All tables.
pub(crate) const TABLES: [Table; 4] = [
    Table {
        name: "authors",
        columns: &[
            ("id", Kind::Id),
            ("label", Kind::Label),
            ("code", Kind::Code),
            ("mood", Kind::Mood),
            ("born", Kind::Date),
            ("score", Kind::Score),
            ("nick", Kind::Nick),
            ("created", Kind::Now),
            ("active", Kind::Bool),
        ],
    },
    Table {
        name: "books",
        columns: &[
            ("id", Kind::Id),
            ("label", Kind::Label),
            ("author_id", Kind::Reference(AUTHORS)),
            ("pages", Kind::Pages),
            ("isbn", Kind::Isbn),
            ("tags", Kind::Tags),
            ("doc", Kind::Doc),
            ("price", Kind::Price),
            ("raw", Kind::Raw),
            ("at", Kind::Timestamp),
            ("key", Kind::Key),
        ],
    },
    Table {
        name: "nodes",
        columns: &[
            ("id", Kind::Id),
            ("label", Kind::Label),
            ("parent_id", Kind::Reference(NODES)),
            ("address", Kind::Inet),
            ("span", Kind::Range),
            ("mail", Kind::Mail),
            ("weight", Kind::Float),
            ("flag", Kind::Bool),
            ("big", Kind::Big),
        ],
    },
    Table { name: "events", columns: &[("label", Kind::Label), ("at", Kind::Clock), ("n", Kind::Number)] },
];
