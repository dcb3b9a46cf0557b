//! What diesel-async's own types and traits need of `batch_diesel::AsyncPgConnection`.

use std::time::Duration;

use batch_diesel::{AsyncPgConnection, BatchOptions};
use batch_support::{Database, Proxy};
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

pub(crate) use batch_tests::seaorm_adapter::block_on;

mod cancellation;
mod connection;
mod groups;
mod migrations;
mod overlap;
mod pools;
mod types;

const SCHEMA: &str = "
    CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE, age int);
    CREATE TABLE notes (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users DEFERRABLE, text text NOT NULL)";

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        age -> Nullable<Integer>,
    }
}

diesel::table! {
    notes (id) {
        id -> Integer,
        user_id -> Integer,
        text -> Text,
    }
}

fn database() -> Database {
    let database = Database::create();
    Database::execute(&database, SCHEMA);
    database
}

/// A connection of ours through a proxy, with batching on.
async fn batched(database: &Database, latency: Duration) -> (Proxy, AsyncPgConnection) {
    batched_with(database, latency, BatchOptions::new()).await
}

async fn batched_with(database: &Database, latency: Duration, options: BatchOptions) -> (Proxy, AsyncPgConnection) {
    let proxy = Proxy::start(database.url(), latency);
    let mut conn = AsyncPgConnection::establish(proxy.url()).await.unwrap();
    batch_diesel::enable_batch_inserts_with(&mut conn, options).await.unwrap();
    (proxy, conn)
}

async fn user(conn: &mut AsyncPgConnection, name: &str) -> QueryResult<i32> {
    diesel::insert_into(users::table).values(users::name.eq(name)).returning(users::id).get_result(conn).await
}

async fn note(conn: &mut AsyncPgConnection, user: i32, text: &str) -> QueryResult<usize> {
    diesel::insert_into(notes::table).values((notes::user_id.eq(user), notes::text.eq(text))).execute(conn).await
}

/// A user and its notes in one transaction.
async fn user_with_notes(conn: &mut AsyncPgConnection, name: &str, notes: usize) -> QueryResult<i32> {
    conn.transaction(async |conn| {
        let id = user(conn, name).await?;
        for n in 0..notes {
            note(conn, id, &format!("{name} {n}")).await?;
        }
        Ok(id)
    })
    .await
}

/// So many users in one transaction.
async fn users(conn: &mut AsyncPgConnection, name: &str, many: usize) -> QueryResult<()> {
    conn.transaction(async |conn| {
        for n in 0..many {
            user(conn, &format!("{name} {n}")).await?;
        }
        Ok(())
    })
    .await
}

fn count(database: &Database, sql: &str) -> i64 {
    database.query(sql)[0][0].as_deref().unwrap().parse().unwrap()
}
