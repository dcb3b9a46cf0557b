//! Schemas that are made through SeaORM: `apply`, schema sync, migrations. Inserts go by what they made.

use batch_core::{BatchOptions, Reason};
use batch_tests::seaorm_adapter::block_on;
use sea_orm::ActiveValue::Set;
use sea_orm::prelude::*;
use sea_orm::{DbBackend, Statement, TransactionSession, TransactionTrait};
use sea_orm_migration::prelude::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager};

use super::{Pool, like_plain};

mod book {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "genre")]
    pub(super) enum Genre {
        #[sea_orm(string_value = "novel")]
        Novel,
        #[sea_orm(string_value = "poems")]
        Poems,
    }

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "books")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(unique)]
        pub title: String,
        pub genre: Genre,
        #[sea_orm(has_many)]
        pub pages: HasMany<super::page::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod page {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "pages")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub book_id: i32,
        pub text: String,
        #[sea_orm(belongs_to, from = "book_id", to = "id")]
        pub book: BelongsTo<super::book::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// `books` as a later version of the program has it.
mod edition {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "books")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        #[sea_orm(unique)]
        pub title: String,
        pub genre: super::book::Genre,
        pub publisher: Option<String>,
        #[sea_orm(default_value = 1)]
        pub print: i32,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

fn book(n: usize) -> book::ActiveModel {
    book::ActiveModel { title: Set(format!("book {n}")), genre: Set(book::Genre::Poems), ..Default::default() }
}

fn edition(n: usize) -> edition::ActiveModel {
    edition::ActiveModel {
        title: Set(format!("edition {n}")),
        genre: Set(book::Genre::Novel),
        publisher: Set(n.is_multiple_of(2).then(|| "house".to_owned())),
        ..Default::default()
    }
}

async fn insert_books<C: TransactionTrait>(db: &C) {
    let txn = db.begin().await.unwrap();
    for n in 0..4 {
        let book = book(n).insert(&txn).await.unwrap();
        let page = page::ActiveModel { book_id: Set(book.id), text: Set("text".to_owned()), ..Default::default() };
        assert_eq!(page.insert(&txn).await.unwrap().book_id, book.id);
    }
    txn.commit().await.unwrap();
}

async fn insert_editions<C: TransactionTrait>(db: &C) -> Vec<edition::Model> {
    let txn = db.begin().await.unwrap();
    let mut inserted = Vec::new();
    for n in 0..4 {
        inserted.push(edition(n).insert(&txn).await.unwrap());
    }
    txn.commit().await.unwrap();
    inserted
}

/// Takes the rows out of the tables, without their ids: those in stock are thrown away when the schema changes.
async fn take_rows<C: ConnectionTrait>(db: &C) -> Vec<String> {
    let sql = "SELECT (to_jsonb(books) - 'id')::text || COALESCE(pages.text, '') FROM books
        LEFT JOIN pages ON book_id = books.id ORDER BY books.id, pages.id";
    let rows = db.query_all_raw(Statement::from_string(DbBackend::Postgres, sql)).await.unwrap();
    db.execute_unprepared("TRUNCATE books, pages").await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// What the catalog of Postgres says about the tables.
const COLUMNS: &str =
    "SELECT attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull::text
    FROM pg_attribute WHERE attrelid::regclass::text IN ('books', 'pages') AND attnum > 0 ORDER BY 1, attnum";

fn assert_waited(pool: &Pool, inserts: u64) {
    let stats = pool.db.stats();
    assert_eq!(stats.inserts_deferred, inserts, "{stats}");
    assert!(stats.inserts_sent.is_empty(), "{stats}");
}

#[test]
fn a_schema_is_applied_and_inserts_into_it_wait() {
    block_on(async {
        let (_, pool) = like_plain!("", BatchOptions::new(), |db| {
            let builder = db.get_schema_builder();
            builder.register(page::Entity).register(book::Entity).apply(db).await.unwrap();
            insert_books(db).await;
            take_rows(db).await
        });
        assert_waited(&pool, 8);
    });
}

#[test]
fn schema_sync_makes_and_extends_tables_and_inserts_into_them_wait() {
    block_on(async {
        let (_, pool) = like_plain!("", BatchOptions::new(), |db| {
            let builder = || db.get_schema_builder().register(page::Entity);
            builder().register(book::Entity).sync(db).await.unwrap();
            insert_books(db).await;
            // Nothing is left to do.
            builder().register(book::Entity).sync(db).await.unwrap();
            db.get_schema_builder().register(edition::Entity).sync(db).await.unwrap();
            let editions = insert_editions(db).await;
            assert_eq!(editions[3].print, 1);
            take_rows(db).await
        });
        assert_waited(&pool, 8 + 4);
        let columns = pool.database.query(COLUMNS);
        assert!(columns.iter().any(|column| column[1].as_deref() == Some("publisher")), "{columns:?}");
    });
}

/// In the transaction that syncs, inserts go by the new schema at once; if it is rolled back, by the old one.
#[test]
fn schema_sync_runs_inside_of_a_transaction() {
    block_on(async {
        let (_, pool) = like_plain!("", BatchOptions::new(), |db| {
            let builder = db.get_schema_builder().register(page::Entity);
            let txn = db.begin().await.unwrap();
            builder.register(book::Entity).sync(&txn).await.unwrap();
            insert_books(&txn).await;
            txn.commit().await.unwrap();

            let txn = db.begin().await.unwrap();
            book(10).insert(&txn).await.unwrap();
            // What waited goes out before the schema is read and changed.
            db.get_schema_builder().register(edition::Entity).sync(&txn).await.unwrap();
            let editions = insert_editions(&txn).await;
            txn.rollback().await.unwrap();

            let txn = db.begin().await.unwrap();
            book(20).insert(&txn).await.unwrap();
            txn.commit().await.unwrap();
            let prints: Vec<i32> = editions.iter().map(|edition| edition.print).collect();
            (prints, take_rows(db).await)
        });
        assert!(pool.db.stats().inserts_deferred >= 9, "{}", pool.db.stats());
    });
}

/// Makes `books` and `pages`.
struct MakeBooks;

impl MigrationName for MakeBooks {
    fn name(&self) -> &'static str {
        "m1_make_books"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for MakeBooks {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.get_schema_builder().register(book::Entity).register(page::Entity).apply(db).await
    }
}

/// Adds what editions have, and a trigger.
struct AddEditions;

impl MigrationName for AddEditions {
    fn name(&self) -> &'static str {
        "m2_add_editions"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for AddEditions {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = "ALTER TABLE books ADD publisher varchar, ADD print int NOT NULL DEFAULT 7;
            CREATE FUNCTION exclaim() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN NEW.text = NEW.text || '!'; RETURN NEW; END $$;
            CREATE TRIGGER exclaim BEFORE INSERT ON pages FOR EACH ROW EXECUTE FUNCTION exclaim()";
        manager.get_connection().execute_unprepared(sql).await.map(drop)
    }
}

struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(MakeBooks), Box::new(AddEditions)]
    }
}

#[test]
fn migrations_run_on_the_pool_and_inserts_go_by_what_they_made() {
    block_on(async {
        let (_, pool) = like_plain!("", BatchOptions::new(), |db| {
            Migrator::up(db, Some(1)).await.unwrap();
            insert_books(db).await;
            Migrator::up(db, None).await.unwrap();
            insert_exclaimed(db).await;
            // So that both databases hold the same.
            db.execute_unprepared("UPDATE seaql_migrations SET applied_at = 0").await.unwrap();
            take_rows(db).await
        });
        let stats = pool.db.stats();
        assert_eq!(stats.inserts_deferred, 8 + 1, "{stats}");
        assert_eq!(stats.inserts_sent[&Reason::Trigger], 1, "{stats}");
    });
}

/// The same through SeaORM's own connection, of which batching hears nothing.
#[test]
fn migrations_on_seaorms_own_connection_are_made_known_by_a_call() {
    block_on(async {
        let pool = super::pool_with("", std::time::Duration::ZERO, BatchOptions::new()).await;
        Migrator::up(pool.db.as_sea_orm(), Some(1)).await.unwrap();
        // A table that the catalog does not know makes it look again by itself.
        insert_books(&pool.db).await;
        assert_waited(&pool, 8);
        Migrator::up(pool.db.as_sea_orm(), None).await.unwrap();
        pool.db.schema_changed();
        insert_exclaimed(&pool.db).await;
        assert_eq!(pool.db.stats().inserts_sent[&Reason::Trigger], 1, "{}", pool.db.stats());
    });
}

/// Inserts an edition, and a page that the trigger changes.
async fn insert_exclaimed<C: TransactionTrait>(db: &C) {
    let txn = db.begin().await.unwrap();
    let edition = edition(1).insert(&txn).await.unwrap();
    assert_eq!(edition.print, 7);
    let page = page::ActiveModel { book_id: Set(edition.id), text: Set("text".to_owned()), ..Default::default() };
    assert_eq!(page.insert(&txn).await.unwrap().text, "text!");
    txn.commit().await.unwrap();
}
