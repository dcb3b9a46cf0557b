//! `ActiveModelEx`: a save that saves what the model is tied to, and the hooks that run on the way.

use std::collections::BTreeMap;

use batch_core::{BatchOptions, FlushCause, Nested, Stats};
use batch_tests::seaorm_adapter::block_on;
use sea_orm::prelude::*;
use sea_orm::{ActiveHasMany, IntoActiveModel, Set, TransactionSession, TransactionTrait};

use super::{Pool, like_plain};

const BLOG: &str = "
CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE);
CREATE TABLE profiles (id serial PRIMARY KEY, picture text NOT NULL, user_id int NOT NULL UNIQUE REFERENCES users);
CREATE TABLE posts (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users, title text NOT NULL);
CREATE TABLE comments (id bigserial PRIMARY KEY, post_id int NOT NULL REFERENCES posts, body text NOT NULL);
CREATE TABLE attachments (id serial PRIMARY KEY, post_id int REFERENCES posts, file text NOT NULL);
CREATE TABLE tags (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE post_tag (post_id int NOT NULL REFERENCES posts, tag_id int NOT NULL REFERENCES tags,
    PRIMARY KEY (post_id, tag_id));
CREATE TABLE log (id bigserial PRIMARY KEY, what text NOT NULL);
";

mod user {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
        #[sea_orm(unique)]
        pub email: String,
        #[sea_orm(has_one)]
        pub profile: HasOne<super::profile::Entity>,
        #[sea_orm(has_many)]
        pub posts: HasMany<super::post::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod profile {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "profiles")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub picture: String,
        #[sea_orm(unique)]
        pub user_id: i32,
        #[sea_orm(belongs_to, from = "user_id", to = "id")]
        pub user: BelongsTo<super::user::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod post {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "posts")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub user_id: i32,
        pub title: String,
        #[sea_orm(belongs_to, from = "user_id", to = "id")]
        pub author: BelongsTo<super::user::Entity>,
        #[sea_orm(has_many)]
        pub comments: HasMany<super::comment::Entity>,
        #[sea_orm(has_many)]
        pub attachments: HasMany<super::attachment::Entity>,
        #[sea_orm(has_many, via = "post_tag")]
        pub tags: HasMany<super::tag::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod comment {
    use sea_orm::ActiveValue::Set;
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "comments")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub post_id: i32,
        pub body: String,
        #[sea_orm(belongs_to, from = "post_id", to = "id")]
        pub post: BelongsTo<super::post::Entity>,
    }

    /// Writes down what it sees, before and after, and what the database holds then.
    #[async_trait::async_trait]
    impl ActiveModelBehavior for ActiveModel {
        async fn before_save<C: ConnectionTrait>(mut self, db: &C, insert: bool) -> Result<Self, DbErr> {
            if self.body.as_ref() == "rejected" {
                return Err(DbErr::Custom("a comment was rejected".to_owned()));
            }
            super::log(db, format!("before_save insert={insert} {:?}", self)).await?;
            if insert {
                self.body = Set(self.body.unwrap().trim().to_owned());
            }
            Ok(self)
        }

        async fn after_save<C: ConnectionTrait>(model: Model, db: &C, insert: bool) -> Result<Model, DbErr> {
            super::log(db, format!("after_save insert={insert} {model:?}")).await?;
            if model.body == "reads" {
                let stored = Entity::find_by_id(model.id).one(db).await?;
                super::log(db, format!("stored {stored:?}")).await?;
            }
            Ok(model)
        }

        async fn after_delete<C: ConnectionTrait>(self, db: &C) -> Result<Self, DbErr> {
            super::log(db, format!("after_delete {:?}", self)).await?;
            Ok(self)
        }
    }
}

mod attachment {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "attachments")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub post_id: Option<i32>,
        pub file: String,
        #[sea_orm(belongs_to, from = "post_id", to = "id")]
        pub post: BelongsTo<Option<super::post::Entity>>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod tag {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tags")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
        #[sea_orm(has_many, via = "post_tag")]
        pub posts: HasMany<super::post::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod post_tag {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "post_tag")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub post_id: i32,
        #[sea_orm(primary_key, auto_increment = false)]
        pub tag_id: i32,
        #[sea_orm(belongs_to, from = "post_id", to = "id")]
        pub post: BelongsTo<super::post::Entity>,
        #[sea_orm(belongs_to, from = "tag_id", to = "id")]
        pub tag: BelongsTo<super::tag::Entity>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

mod log {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "log")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub what: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

async fn log<C: ConnectionTrait>(db: &C, what: String) -> Result<(), DbErr> {
    log::ActiveModel { what: Set(what), ..Default::default() }.insert(db).await.map(drop)
}

/// A user with two posts and an attachment to each: five models in three tables.
fn family(n: usize) -> user::ActiveModelEx {
    let post = |title: &str| {
        post::ActiveModel::builder()
            .set_title(format!("{title} {n}"))
            .add_attachment(attachment::ActiveModel::builder().set_file(format!("{title} {n}.pdf")))
    };
    user::ActiveModel::builder()
        .set_name(format!("user {n}"))
        .set_email(format!("{n}@example.org"))
        .add_post(post("first"))
        .add_post(post("second"))
}

/// Saves families in one transaction, after two in others that leave ids in stock.
async fn save_families<C: TransactionTrait>(db: &C) -> Vec<user::ActiveModelEx> {
    let mut saved = Vec::new();
    for n in 0..2 {
        saved.push(family(n).save(db).await.unwrap());
    }
    let txn = db.begin().await.unwrap();
    for n in 2..10 {
        saved.push(family(n).save(&txn).await.unwrap());
    }
    txn.commit().await.unwrap();
    saved
}

/// What a transaction costs that saves eight families, where ids are in stock.
async fn eight_more(pool: &Pool, family: impl Fn(usize) -> user::ActiveModelEx) -> Stats {
    let before = pool.db.stats();
    pool.proxy.reset();
    let txn = pool.db.begin().await.unwrap();
    for n in 10..18 {
        family(n).save(&txn).await.unwrap();
    }
    txn.commit().await.unwrap();
    let mut stats = pool.db.stats();
    for (cause, count) in before.flushes {
        *stats.flushes.get_mut(&cause).unwrap() -= count;
    }
    stats.flushes.retain(|_, count| *count > 0);
    stats.flush_statements -= before.flush_statements;
    stats.inserts_deferred -= before.inserts_deferred;
    stats.inserts_seen -= before.inserts_seen;
    stats
}

#[test]
fn a_loop_of_nested_saves_is_one_flush_where_nested_transactions_merge() {
    block_on(async {
        let merge = BatchOptions::new().nested(Nested::Merge);
        let (saved, pool) = like_plain!(BLOG, merge.clone(), |db| save_families(db).await);
        assert_eq!(saved[9].posts[1].attachments[0].file.as_ref(), "second 9.pdf");
        let stats = eight_more(&pool, family).await;
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (40, 40), "{stats}");
        assert_eq!(stats.flushes, BTreeMap::from([(FlushCause::Commit, 1)]), "{stats}");
        assert_eq!((stats.flush_statements, pool.inserts_on_the_wire()), (1, 1), "{stats}");
        assert!(!pool.proxy.trace().iter().any(|sql| sql.contains("SAVEPOINT")), "{:#?}", pool.proxy.trace());
    });
}

#[test]
fn by_default_each_model_of_a_nested_save_is_a_flush() {
    block_on(async {
        let (_, pool) = like_plain!(BLOG, BatchOptions::new(), |db| save_families(db).await);
        let stats = eight_more(&pool, family).await;
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (40, 40), "{stats}");
        // A model with children goes out where the first child's SAVEPOINT is set, the others where theirs is released.
        let (parents, leaves) = (8 * 3, 8 * 2);
        let by_cause = BTreeMap::from([(FlushCause::Savepoint, parents), (FlushCause::Release, leaves)]);
        assert_eq!(stats.flushes, by_cause, "{stats}");
        assert_eq!((stats.flush_statements, pool.inserts_on_the_wire()), (40, 40), "{stats}");
    });
}

/// SeaORM looks for a child that the new one is to replace, whatever the parent: the parent goes out for that query, and
/// what follows when the nested transaction that holds the query ends.
#[test]
fn a_nested_save_with_a_has_one_child_is_two_flushes_where_nested_transactions_merge() {
    fn portrayed(n: usize) -> user::ActiveModelEx {
        family(n).set_profile(profile::ActiveModel::builder().set_picture(format!("{n}.jpg")))
    }
    block_on(async {
        let merge = BatchOptions::new().nested(Nested::Merge);
        let (_, pool) = like_plain!(BLOG, merge.clone(), |db| {
            for n in 0..4 {
                portrayed(n).save(db).await.unwrap();
            }
        });
        let stats = eight_more(&pool, portrayed).await;
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (48, 48), "{stats}");
        let by_cause = BTreeMap::from([(FlushCause::Statement, 8), (FlushCause::Release, 8)]);
        assert_eq!(stats.flushes, by_cause, "{stats}");
    });
}

/// Outside of a transaction a nested save has one of its own.
#[test]
fn a_nested_save_on_the_pool_is_one_flush_where_nested_transactions_merge() {
    block_on(async {
        let merge = BatchOptions::new().nested(Nested::Merge);
        let (_, pool) = like_plain!(BLOG, merge.clone(), |db| save_families(db).await);
        let before = pool.db.stats();
        family(10).save(&pool.db).await.unwrap();
        let after = pool.db.stats();
        assert_eq!(after.inserts_deferred - before.inserts_deferred, 5, "{after}");
        assert_eq!(after.flush_statements - before.flush_statements, 1, "{after}");
    });
}

fn both_ways() -> [BatchOptions; 2] {
    [Nested::Flush, Nested::Merge].map(|nested| BatchOptions::new().nested(nested))
}

/// A post whose author is new, with comments whose hooks write rows and read their own.
fn discussed(n: usize) -> post::ActiveModelEx {
    let comment = |body: &str| comment::ActiveModel::builder().set_body(body);
    post::ActiveModel::builder()
        .set_title(format!("post {n}"))
        .set_author(user::ActiveModel::builder().set_name(format!("author {n}")).set_email(format!("{n}@example.org")))
        .add_comment(comment("  spaces around "))
        .add_comment(comment("reads"))
        .add_comment(comment("last"))
}

#[test]
fn hooks_see_the_values_that_they_see_without_batching() {
    async fn program<C: TransactionTrait>(db: &C) -> Vec<post::ModelEx> {
        let txn = db.begin().await.unwrap();
        let mut saved = Vec::new();
        for n in 0..5 {
            saved.push(discussed(n).insert(&txn).await.unwrap());
        }
        txn.commit().await.unwrap();
        saved
    }
    block_on(async {
        for options in both_ways() {
            let (saved, pool) = like_plain!(BLOG, options.clone(), |db| program(db).await);
            assert_eq!(saved[4].comments[0].body, "spaces around");
            let logged = pool.database.query("SELECT 1 FROM log");
            assert_eq!(logged.len(), 5 * (3 + 3 + 1));
            let stored = pool.database.query("SELECT 1 FROM log WHERE what LIKE 'stored Some%'");
            assert_eq!(stored.len(), 5);
            assert!(pool.db.stats().inserts_deferred >= 30, "{}", pool.db.stats());
        }
    });
}

#[test]
fn an_error_of_a_hook_leaves_what_it_leaves_without_batching() {
    async fn program<C: TransactionTrait>(db: &C) -> Vec<String> {
        let txn = db.begin().await.unwrap();
        let mut errors = Vec::new();
        for n in 0..6 {
            let mut post = discussed(n);
            if n % 2 == 1 {
                post.comments.push(comment::ActiveModel::builder().set_body("rejected"));
            }
            if let Err(error) = post.save(&txn).await {
                errors.push(error.to_string());
            }
        }
        txn.commit().await.unwrap();
        errors
    }
    block_on(async {
        for options in both_ways() {
            let (errors, pool) = like_plain!(BLOG, options.clone(), |db| program(db).await);
            assert_eq!(errors, ["Custom Error: a comment was rejected"; 3]);
            assert_eq!(pool.posts(), 3);
        }
    });
}

/// A second user with the same e-mail address, three models into the save of a post.
#[test]
fn a_constraint_that_fails_inside_of_a_nested_save_fails_there_by_default_and_at_the_commit_where_they_merge() {
    async fn duplicate<T: TransactionTrait>(txn: &T) -> Result<post::ActiveModelEx, DbErr> {
        let mut post = discussed(7);
        post.author.as_mut().unwrap().email = Set("0@example.org".to_owned());
        post.save(txn).await
    }
    block_on(async {
        let is_unique = |error: &DbErr| matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)));

        let (posts, pool) = like_plain!(BLOG, BatchOptions::new(), |db| {
            let txn = db.begin().await.unwrap();
            for n in 0..3 {
                discussed(n).save(&txn).await.unwrap();
            }
            assert!(is_unique(&duplicate(&txn).await.unwrap_err()));
            discussed(4).save(&txn).await.unwrap();
            txn.commit().await.unwrap();
            post::Entity::find().count(db).await.unwrap()
        });
        assert_eq!((posts, pool.posts()), (4, 4));

        let merge = BatchOptions::new().nested(Nested::Merge);
        let pool = super::pool_with(BLOG, std::time::Duration::ZERO, merge).await;
        save_families(&pool.db).await;
        let txn = pool.db.begin().await.unwrap();
        let again = user::ActiveModel::builder().set_name("again").set_email("0@example.org");
        again.save(&txn).await.unwrap();
        let error = txn.commit().await.unwrap_err();
        assert!(is_unique(&error), "{error}");
        assert_eq!(pool.database.query("SELECT 1 FROM users").len(), 10);
    });
}

#[test]
fn children_are_replaced_linked_and_deleted_as_without_batching() {
    async fn program<C: TransactionTrait + ConnectionTrait>(db: &C) -> Vec<String> {
        let txn = db.begin().await.unwrap();
        let mut seen = Vec::new();
        for n in 0..4 {
            let mut user = family(n).save(&txn).await.unwrap();
            // Replaced: the two posts go, with their attachments left behind.
            let spare = attachment::ActiveModel::builder().set_file("spare").save(&txn).await.unwrap();
            user.posts =
                ActiveHasMany::Replace(vec![post::ActiveModel::builder().set_title("third").add_attachment(spare)]);
            let mut user = user.save(&txn).await.unwrap();
            // Updated through the parent, and more added.
            user.posts[0].title = Set("third, revised".to_owned());
            user.posts.push(post::ActiveModel::builder().set_title("fourth"));
            let user = user.save(&txn).await.unwrap();
            // Many to many: new tags and one that is there.
            let mut post = post::Entity::find_by_id(*user.posts[1].id.as_ref())
                .one(&txn)
                .await
                .unwrap()
                .unwrap()
                .into_active_model()
                .into_ex();
            let tag = tag::ActiveModel::builder().set_name(format!("tag {n}")).save(&txn).await.unwrap();
            post.tags = ActiveHasMany::Append(vec![tag.clone(), tag::ActiveModel::builder().set_name("new")]);
            let mut post = post.save(&txn).await.unwrap();
            post.tags = ActiveHasMany::Replace(vec![tag]);
            let post = post.save(&txn).await.unwrap();
            seen.push(format!("{user:?} {post:?}"));
            if n == 3 {
                let deleted = user.delete(&txn).await;
                seen.push(format!("{deleted:?}"));
            }
        }
        txn.commit().await.unwrap();
        seen
    }
    block_on(async {
        for options in both_ways() {
            let (seen, pool) = like_plain!(BLOG, options.clone(), |db| program(db).await);
            assert_eq!(seen.len(), 5);
            assert!(pool.db.stats().inserts_deferred > 20, "{}", pool.db.stats());
        }
    });
}
