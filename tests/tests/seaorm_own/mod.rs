//! What SeaORM's own types and traits need: models, streams, nested saves, shared transactions, cancellation, pools.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use batch_core::{BatchOptions, Reason};
use batch_seaorm::{DatabaseConnection, DatabaseTransaction};
use batch_support::{Database, Proxy};
use batch_tests::seaorm_adapter::block_on;
use futures_util::{StreamExt, TryStreamExt, future};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::prelude::*;
use sea_orm::{
    ConnectOptions, DbBackend, IsolationLevel, QueryOrder, Statement, StreamTrait, TransactionError, TransactionTrait,
    TryInsertResult,
};

mod cascades;
mod groups;
mod rows;
mod schema;
mod types;

/// Runs the body on a pool of SeaORM's own and on one of ours, each with a database of its own, and compares what it
/// gives and what is in the tables afterwards. Gives the result and our pool.
macro_rules! like_plain {
    ($schema:expr, $options:expr, |$db:ident| $body:expr) => {{
        let database = batch_support::Database::create();
        database.execute($schema);
        let expected = {
            let $db = &super::connect(database.url()).await;
            $body
        };
        let pool = super::pool_with($schema, std::time::Duration::ZERO, $options).await;
        let result = {
            let $db = &pool.db;
            $body
        };
        assert_eq!(result, expected, "the result differs from plain SeaORM's");
        assert_eq!(super::contents(&pool.database), super::contents(&database), "the tables differ");
        (result, pool)
    }};
}
use like_plain;

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('happy', 'sad');
CREATE TABLE posts (
    id serial PRIMARY KEY, title text NOT NULL UNIQUE, mood mood NOT NULL DEFAULT 'happy', score numeric(8,2),
    tags text[] NOT NULL DEFAULT '{}', meta jsonb NOT NULL DEFAULT '{}', key uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamp, day date, raw bytea, ratio float8
);
CREATE TABLE comments (id bigserial PRIMARY KEY, post_id int NOT NULL REFERENCES posts, body text NOT NULL);
";

mod post {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "mood")]
    pub(super) enum Mood {
        #[sea_orm(string_value = "happy")]
        Happy,
        #[sea_orm(string_value = "sad")]
        Sad,
    }

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "posts")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub title: String,
        pub mood: Mood,
        #[sea_orm(column_type = "Decimal(Some((8, 2)))")]
        pub score: Option<Decimal>,
        pub tags: Vec<String>,
        #[sea_orm(column_type = "JsonBinary")]
        pub meta: Json,
        pub key: Uuid,
        pub created_at: DateTimeWithTimeZone,
        pub updated_at: Option<DateTime>,
        pub day: Option<Date>,
        pub raw: Option<Vec<u8>>,
        pub ratio: Option<f64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod comment {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "comments")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub post_id: i32,
        pub body: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A database and a pool of ours, through a proxy.
struct Pool {
    database: Database,
    proxy: Proxy,
    db: DatabaseConnection,
}

async fn connect(url: &str) -> sea_orm::DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options.max_connections(4).sqlx_logging(false).acquire_timeout(Duration::from_secs(10));
    sea_orm::Database::connect(options).await.unwrap()
}

async fn pool_with(schema: &str, latency: Duration, options: BatchOptions) -> Pool {
    let database = Database::create();
    database.execute(schema);
    let proxy = Proxy::start(database.url(), latency);
    let db = connect(proxy.url()).await;
    let db = batch_seaorm::enable_batch_inserts_with(&db, options).await.unwrap();
    Pool { database, proxy, db }
}

async fn pool_over(latency: Duration) -> Pool {
    pool_with(SCHEMA, latency, BatchOptions::new()).await
}

async fn pool() -> Pool {
    pool_over(Duration::ZERO).await
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

impl Pool {
    fn posts(&self) -> usize {
        self.database.query("SELECT 1 FROM posts").len()
    }

    fn inserts_on_the_wire(&self) -> usize {
        self.proxy.trace().iter().filter(|sql| sql.starts_with("EXECUTE") && sql.contains("INSERT INTO")).count()
    }
}

fn post(title: &str) -> post::ActiveModel {
    post::ActiveModel { title: Set(title.to_owned()), ..Default::default() }
}

fn full(title: &str) -> post::ActiveModel {
    post::ActiveModel {
        id: NotSet,
        title: Set(title.to_owned()),
        mood: Set(post::Mood::Sad),
        score: Set(Some(Decimal::new(1250, 2))),
        tags: Set(vec!["a".to_owned(), "b".to_owned()]),
        meta: Set(serde_json::json!({ "b": 1, "a": [true, null] })),
        key: Set(Uuid::from_u128(7)),
        created_at: Set("2024-05-06T07:08:09.123456+02:00".parse().unwrap()),
        updated_at: Set(Some("2024-05-06T07:08:09".parse().unwrap())),
        day: Set(Some("2024-05-06".parse().unwrap())),
        raw: Set(Some(vec![0, 255])),
        ratio: Set(Some(0.25)),
    }
}

#[test]
fn models_come_back_as_postgres_stores_them() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        let mut inserted = Vec::new();
        for n in 0..4 {
            inserted.push(full(&format!("full {n}")).insert(&txn).await.unwrap());
            // All that nobody bound: an enum, an array, jsonb, a uuid, `now()`.
            inserted.push(post(&format!("bare {n}")).insert(&txn).await.unwrap());
        }
        let stored = post::Entity::find().order_by_asc(post::Column::Id).all(&txn).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(inserted, stored);
        let stats = pool.db.stats();
        assert!(stats.inserts_deferred >= 6, "{stats}");
        assert_eq!(pool.posts(), 8);
    });
}

#[test]
fn a_row_can_be_read_as_any_type_that_fits_by_name_and_by_position() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        for round in 0..4 {
            let sql = "INSERT INTO posts (title) VALUES ($1) RETURNING title, created_at, id";
            let stmt = Statement::from_sql_and_values(DbBackend::Postgres, sql, [format!("{round}").into()]);
            let row = txn.query_one_raw(stmt).await.unwrap().unwrap();
            assert_eq!(row.column_names(), ["title", "created_at", "id"]);
            assert_eq!(row.try_get_by_index::<String>(0).unwrap(), round.to_string());
            assert!(row.try_get_by_index::<i32>(2).unwrap() > round);
            let fixed: DateTimeWithTimeZone = row.try_get("", "created_at").unwrap();
            let utc: DateTimeUtc = row.try_get("", "created_at").unwrap();
            let time: TimeDateTimeWithTimeZone = row.try_get_by_index(1).unwrap();
            assert_eq!(fixed, utc);
            assert_eq!(i128::from(utc.timestamp_micros()) * 1_000, time.unix_timestamp_nanos());
            assert!(row.try_get::<i64>("", "id").is_err(), "as of an int4");
        }
        assert!(txn.stats().await.inserts_deferred >= 2);
        txn.rollback().await.unwrap();
    });
}

#[test]
fn every_way_to_insert_waits_and_answers() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        for n in 0..2 {
            post(&format!("first {n}")).insert(&txn).await.unwrap();
        }
        let before = txn.stats().await.inserts_deferred;
        let saved = post("saved").save(&txn).await.unwrap();
        let exec = post::Entity::insert(post("exec")).exec(&txn).await.unwrap();
        assert_eq!(exec.last_insert_id, saved.id.unwrap() + 1);
        let returned = post::Entity::insert(post("returned")).exec_with_returning(&txn).await.unwrap();
        assert_eq!(returned.title, "returned");
        assert_eq!(post::Entity::insert(post("silent")).exec_without_returning(&txn).await.unwrap(), 1);
        let many = post::Entity::insert_many([post("m1"), post("m2")]).exec_with_returning(&txn).await.unwrap();
        assert_eq!(many.iter().map(|model| model.title.as_str()).collect::<Vec<_>>(), ["m1", "m2"]);
        let last = post::Entity::insert_many([post("m3"), post("m4")]).exec(&txn).await.unwrap();
        assert_eq!(last.last_insert_id, Some(many[1].id + 2));
        let comment = comment::ActiveModel { id: NotSet, post_id: Set(many[0].id), body: Set("c".to_owned()) };
        comment.insert(&txn).await.unwrap();
        assert_eq!(txn.stats().await.inserts_deferred - before, 7, "{}", txn.stats().await);
        txn.commit().await.unwrap();
        assert_eq!(pool.posts(), 10);
    });
}

#[test]
fn on_conflict_is_sent_as_it_is() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        post("a").insert(&txn).await.unwrap();
        let conflict = sea_orm::sea_query::OnConflict::column(post::Column::Title).do_nothing().to_owned();
        let insert = post::Entity::insert(post("a")).on_conflict(conflict).try_insert().exec(&txn).await.unwrap();
        assert!(matches!(insert, TryInsertResult::Conflicted));
        txn.commit().await.unwrap();
        assert_eq!(pool.posts(), 1);
    });
}

#[test]
fn streams_see_what_waited_and_may_be_left_early() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        for n in 0..5 {
            post(&format!("{n}")).insert(&txn).await.unwrap();
        }
        let titles: Vec<String> =
            post::Entity::find().stream(&txn).await.unwrap().map_ok(|model| model.title).try_collect().await.unwrap();
        assert_eq!(titles.len(), 5);
        let mut left = post::Entity::find().stream(&txn).await.unwrap();
        assert!(left.next().await.unwrap().is_ok());
        drop(left);
        post("after").insert(&txn).await.unwrap();
        let insert =
            Statement::from_string(DbBackend::Postgres, "INSERT INTO posts (title) VALUES ('s') RETURNING title");
        let rows: Vec<QueryResult> = txn.stream_raw(insert).await.unwrap().try_collect().await.unwrap();
        assert_eq!(rows[0].try_get_by_index::<String>(0).unwrap(), "s");
        txn.commit().await.unwrap();
        assert_eq!(pool.posts(), 7);
        let outside = post::Entity::find().stream(&pool.db).await.unwrap().count().await;
        assert_eq!(outside, 7);
    });
}

#[test]
fn tasks_may_share_a_transaction() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        let inserts = (0..40).map(|n| {
            let txn = &txn;
            async move { post(&format!("{n}")).insert(txn).await.map(|model| (model.id, model.title == n.to_string())) }
        });
        let mut inserted = future::try_join_all(inserts).await.unwrap();
        assert!(inserted.iter().all(|(_, is_its_own)| *is_its_own));
        txn.commit().await.unwrap();
        inserted.sort_unstable();
        inserted.dedup_by_key(|(id, _)| *id);
        assert_eq!((inserted.len(), pool.posts()), (40, 40));
    });
}

#[test]
fn transactions_at_once_on_one_pool_batch_and_share_ids() {
    block_on(async {
        let pool = pool().await;
        let work = (0..12).map(|task| {
            let db = pool.db.clone();
            tokio::spawn(async move {
                for round in 0..5 {
                    let txn = db.begin().await.unwrap();
                    let mut last = 0;
                    for n in 0..6 {
                        let model = post(&format!("{task} {round} {n}")).insert(&txn).await.unwrap();
                        assert!(model.id > last);
                        last = model.id;
                    }
                    txn.commit().await.unwrap();
                }
            })
        });
        for task in work.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(pool.posts(), 360);
        let stats = pool.db.stats();
        assert!(stats.inserts_deferred > 300, "{stats}");
    });
}

#[test]
fn closures_commit_and_roll_back() {
    block_on(async {
        let pool = pool().await;
        pool.db
            .transaction::<_, (), DbErr>(|txn| {
                Box::pin(async move {
                    post("kept").insert(txn).await?;
                    let nested = txn
                        .transaction::<_, (), DbErr>(|txn| {
                            Box::pin(async move {
                                post("undone").insert(txn).await?;
                                Err(DbErr::Custom("changed my mind".into()))
                            })
                        })
                        .await;
                    assert!(matches!(nested, Err(TransactionError::Transaction(DbErr::Custom(_)))));
                    post("kept too").insert(txn).await.map(drop)
                })
            })
            .await
            .unwrap();
        let asynchronous = pool
            .db
            .transaction_async(async |txn: &DatabaseTransaction| post("async").insert(txn).await.map(|model| model.id))
            .await;
        assert!(asynchronous.unwrap() > 0);
        let config = pool.db.begin_with_config(Some(IsolationLevel::Serializable), None).await.unwrap();
        post("serializable").insert(&config).await.unwrap();
        let level = Statement::from_string(DbBackend::Postgres, "SHOW transaction_isolation");
        let level = config.query_one_raw(level).await.unwrap().unwrap();
        assert_eq!(level.try_get_by_index::<String>(0).unwrap(), "serializable");
        config.commit().await.unwrap();
        let titles = pool.database.query("SELECT title FROM posts ORDER BY title");
        let titles: Vec<_> = titles.iter().map(|row| row[0].as_deref().unwrap()).collect();
        assert_eq!(titles, ["async", "kept", "kept too", "serializable"]);
    });
}

#[test]
fn a_unique_violation_comes_from_the_nested_transaction_and_is_survived() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        for title in ["a", "b", "c"] {
            post(title).insert(&txn).await.unwrap();
        }
        let nested = txn.begin().await.unwrap();
        post("a").insert(&nested).await.unwrap();
        let error = nested.commit().await.unwrap_err();
        assert!(matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))), "{error}");
        post("d").insert(&txn).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(pool.posts(), 4);
    });
}

#[test]
fn what_is_dropped_is_rolled_back() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        post("outer").insert(&txn).await.unwrap();
        let nested = txn.begin().await.unwrap();
        post("dropped").insert(&nested).await.unwrap();
        drop(nested);
        post("after").insert(&txn).await.unwrap();
        txn.commit().await.unwrap();
        let txn = pool.db.begin().await.unwrap();
        post("never").insert(&txn).await.unwrap();
        drop(txn);
        assert_eq!(pool.posts(), 2);
        // The pool is whole.
        for n in 0..8 {
            let txn = pool.db.begin().await.unwrap();
            post(&format!("{n}")).insert(&txn).await.unwrap();
            txn.commit().await.unwrap();
        }
        assert_eq!(pool.posts(), 10);
    });
}

#[test]
fn a_transaction_that_is_dropped_with_a_flush_under_way_is_rolled_back_and_gives_its_connection_back() {
    block_on(async {
        let pool = pool_with(SCHEMA, Duration::ZERO, BatchOptions::new().max_rows(5)).await;
        let locked = connect(pool.database.url()).await.begin().await.unwrap();
        locked.execute_unprepared("LOCK TABLE posts IN SHARE MODE").await.unwrap();
        let mut dropped = Vec::new();
        // As many as the pool has connections.
        for n in 0..4 {
            let txn = pool.db.begin().await.unwrap();
            for m in 0..6 {
                post(&format!("{n} {m}")).insert(&txn).await.unwrap();
            }
            assert_eq!(txn.stats().await.flushes_overlapped, 1);
            dropped.push(txn);
        }
        drop(dropped);
        locked.rollback().await.unwrap();
        let txn = pool.db.begin().await.unwrap();
        post("after").insert(&txn).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(pool.database.query("SELECT title FROM posts"), [[Some("after".to_owned())]]);
    });
}

#[test]
fn nested_transactions_that_are_dropped_together_are_rolled_back_and_the_outer_one_goes_on() {
    block_on(async {
        let pool = pool().await;
        let txn = pool.db.begin().await.unwrap();
        post("outer").insert(&txn).await.unwrap();
        let nested = txn.begin().await.unwrap();
        post("nested").insert(&nested).await.unwrap();
        let innermost = nested.begin().await.unwrap();
        post("innermost").insert(&innermost).await.unwrap();
        drop(innermost);
        drop(nested);
        post("after").insert(&txn).await.unwrap();
        txn.commit().await.unwrap();
        let titles = pool.database.query("SELECT title FROM posts ORDER BY id");
        assert_eq!(titles, [[Some("outer".to_owned())], [Some("after".to_owned())]]);
    });
}

#[test]
fn a_nested_transaction_that_is_dropped_while_a_task_is_in_a_statement_is_rolled_back() {
    block_on(async {
        let pool = pool_over(Duration::from_millis(20)).await;
        let txn = pool.db.begin().await.unwrap();
        let nested = txn.begin().await.unwrap();
        post("nested").insert(&nested).await.unwrap();
        let mut statement = Box::pin(txn.execute_unprepared("SELECT 1"));
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut statement).await.is_err());
        drop(nested);
        statement.await.unwrap();
        post("outer").insert(&txn).await.unwrap();
        txn.commit().await.unwrap();
        assert_eq!(pool.database.query("SELECT title FROM posts"), [[Some("outer".to_owned())]]);
    });
}

/// DESIGN.md §2.8: futures dropped at random points of inserts, flushes and commits.
#[test]
fn cancelled_futures_commit_all_or_nothing_and_leave_the_pool_whole() {
    cancel_anywhere(BatchOptions::new());
}

#[test]
fn so_they_do_while_flushes_are_under_way() {
    cancel_anywhere(BatchOptions::new().max_rows(2));
}

fn cancel_anywhere(options: BatchOptions) {
    block_on(async {
        let pool = pool_with(SCHEMA, Duration::from_millis(1), options).await;
        let mut committed = 0;
        for round in 0..60_u64 {
            let work = async {
                let txn = pool.db.begin().await?;
                for n in 0..4 {
                    let model = post(&format!("{round} {n}")).insert(&txn).await?;
                    if n == 2 {
                        txn.flush().await?;
                    }
                    let comment = comment::ActiveModel { id: NotSet, post_id: Set(model.id), body: Set("c".into()) };
                    comment.insert(&txn).await?;
                }
                txn.commit().await
            };
            let micros = 100 + (round * 7_919) % 30_000;
            match tokio::time::timeout(Duration::from_micros(micros), work).await {
                Ok(done) => {
                    done.unwrap();
                    committed += 1;
                }
                Err(_) => continue,
            }
        }
        // A connection that went back with a statement under way finishes it first.
        let txn = pool.db.begin().await.unwrap();
        post("after").insert(&txn).await.unwrap();
        txn.commit().await.unwrap();
        for whole in pool.database.query(
            "SELECT count(DISTINCT p.id), count(c.id) FROM posts p LEFT JOIN comments c ON c.post_id = p.id
             WHERE title <> 'after' GROUP BY split_part(title, ' ', 1)",
        ) {
            assert_eq!(whole, [Some("4".to_owned()), Some("4".to_owned())]);
        }
        assert!(pool.posts() > committed * 4, "{committed}");
    });
}

#[test]
fn a_cancelled_flush_leaves_a_transaction_that_can_only_be_rolled_back() {
    block_on(async {
        let pool = pool_over(Duration::from_millis(50)).await;
        let txn = pool.db.begin().await.unwrap();
        for n in 0..3 {
            post(&format!("{n}")).insert(&txn).await.unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_millis(5), txn.flush()).await.is_err());
        let error = post("more").insert(&txn).await.unwrap_err();
        assert!(error.to_string().contains("can only be rolled back"), "{error}");
        let error = txn.commit().await.unwrap_err();
        assert!(error.to_string().contains("can only be rolled back"), "{error}");
        assert_eq!(pool.posts(), 0);
    });
}

#[test]
fn a_transaction_in_which_a_nested_one_was_cancelled_and_dropped_can_be_rolled_back() {
    block_on(async {
        let pool = pool_over(Duration::from_millis(50)).await;
        let txn = pool.db.begin().await.unwrap();
        post("outer").insert(&txn).await.unwrap();
        let nested = txn.begin().await.unwrap();
        for n in 0..3 {
            post(&format!("{n}")).insert(&nested).await.unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_millis(5), nested.flush()).await.is_err());
        drop(nested);
        txn.rollback().await.unwrap();
        assert_eq!(pool.posts(), 0);
    });
}

#[test]
fn metrics_report_each_statement_of_the_program() {
    block_on(async {
        let mut pool = pool().await;
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        pool.db.set_metric_callback(move |info| {
            assert!(!info.failed);
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let txn = pool.db.begin().await.unwrap();
        for n in 0..5 {
            post(&format!("{n}")).insert(&txn).await.unwrap();
        }
        // A stream is reported when it is dropped.
        let mut stream = post::Entity::find().stream(&txn).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        assert_eq!(calls.load(Ordering::Relaxed), 5);
        drop(stream);
        assert_eq!(calls.load(Ordering::Relaxed), 6);
        txn.commit().await.unwrap();
        post::Entity::find().all(&pool.db).await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 7);
    });
}

#[test]
fn outside_of_transactions_nothing_waits_and_the_pool_is_seaorms_own() {
    block_on(async {
        let pool = pool().await;
        let model = full("outside").insert(&pool.db).await.unwrap();
        assert_eq!(post::Entity::find_by_id(model.id).one(pool.db.as_sea_orm()).await.unwrap(), Some(model));
        assert_eq!(pool.db.stats().inserts_sent[&Reason::NotInTransaction], 1);
        pool.db.ping().await.unwrap();
        let explanation = pool.db.explain().await.unwrap();
        assert_eq!(explanation.table("posts").unwrap().reason, None);
        pool.db.clone().close().await.unwrap();
        assert!(matches!(pool.db.begin().await, Err(DbErr::ConnectionAcquire(_))));
        assert_eq!(pool.inserts_on_the_wire(), 1);
    });
}

#[test]
fn what_is_no_postgres_connection_is_a_clear_error() {
    block_on(async {
        let error = batch_seaorm::enable_batch_inserts(&sea_orm::DatabaseConnection::default()).await.unwrap_err();
        assert!(error.to_string().contains("batched writes are for Postgres"), "{error}");
    });
}
