//! What Diesel's own types and traits need of `batch_diesel::PgConnection`.
//!
//! A test asks two things: is the result that of `diesel::PgConnection`, and did the rows wait, or go out, as they
//! should?

use batch_support::Database;
use batch_tests::World;
use batch_tests::diesel_adapter::Diesel;
use diesel::prelude::*;

mod bad_input;
mod copy;
mod instrumentation;
mod loading;
mod migrations;
mod multi_connection;
mod observing;
mod pools;
mod raw;
mod returns;
mod transactions;
mod types;

/// Runs the body on a connection of Diesel's own and on one of ours, each with a database of its own, and compares
/// what it gives and what is in the tables afterwards. Gives the result and our world.
macro_rules! like_plain {
    ($schema:expr, |$conn:ident| $body:expr) => {{
        let plain = super::Plain::new($schema);
        let expected = {
            let connection = &mut plain.connect();
            let $conn = connection;
            $body
        };
        let mut world = super::world($schema);
        let result = {
            let $conn = &mut world.conn;
            $body
        };
        assert_eq!(result, expected, "the result differs from plain Diesel's");
        assert_eq!(super::contents(&world.database), super::contents(&plain.database), "the tables differ");
        (result, world)
    }};
}
use like_plain;

/// A database for Diesel's own connection.
struct Plain {
    database: Database,
}

impl Plain {
    fn new(schema: &str) -> Self {
        let database = Database::create();
        database.execute(schema);
        Self { database }
    }

    fn connect(&self) -> diesel::PgConnection {
        diesel::PgConnection::establish(self.database.url()).unwrap()
    }
}

/// A database with batching on.
fn world(schema: &str) -> World<Diesel> {
    World::new(schema)
}

/// Every row of every table, as text.
fn contents(database: &Database) -> Vec<(String, Vec<Option<String>>)> {
    let tables = database.query("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1");
    let read = |table: String| {
        let rows = database.query(&format!("SELECT t::text FROM \"{table}\" t ORDER BY 1"));
        (table, rows.into_iter().flatten().collect())
    };
    tables.into_iter().flatten().flatten().map(read).collect()
}

/// An error as a program sees it: kind, message, and what the server says beside it.
fn error_text(error: &diesel::result::Error) -> String {
    use diesel::result::Error;
    match error {
        Error::DatabaseError(kind, info) => format!(
            "{kind:?}: {} ({:?}, {:?}, {:?}, {:?})",
            info.message(),
            info.details(),
            info.table_name(),
            info.column_name(),
            info.constraint_name(),
        ),
        other => format!("{other:?}"),
    }
}

const USERS: &str =
    "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, hair text DEFAULT 'brown', age int)";

/// The same without a sequence.
const WITHOUT_IDS: &str = "CREATE TABLE users (id int, name text NOT NULL, hair text DEFAULT 'brown', age int)";

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        hair -> Nullable<Text>,
        age -> Nullable<Integer>,
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable, QueryableByName, Selectable, Identifiable)]
#[diesel(table_name = users, check_for_backend(diesel::pg::Pg))]
struct User {
    id: i32,
    name: String,
    hair: Option<String>,
    age: Option<i32>,
}

#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = users)]
struct NewUser {
    name: String,
    hair: Option<String>,
    age: Option<i32>,
}

fn new_user(name: &str, hair: Option<&str>, age: Option<i32>) -> NewUser {
    NewUser { name: name.to_owned(), hair: hair.map(str::to_owned), age }
}
