//! Group commit on `DatabaseConnection`: models of many tasks, and tasks that go away.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use batch_core::GroupCommit;
use sea_orm::{EntityTrait, IntoActiveModel};

use super::*;

/// However far the server is: on a slow machine it seems so far that most would go alone.
fn one_at_a_time() -> GroupCommit {
    GroupCommit::new().groups_per_table(1)
}

/// A group at a time, which waits for whatever is on its way for as long as it takes.
fn patient() -> BatchOptions {
    BatchOptions::new().group_commit(one_at_a_time().lock_timeout(Duration::from_secs(60)))
}

fn a_post(title: &str) -> post::ActiveModel {
    post::ActiveModel {
        title: Set(title.to_owned()),
        score: Set(Some("1.5".parse().unwrap())),
        tags: Set(vec![title.to_owned(), "all".to_owned()]),
        meta: Set(serde_json::json!({"title": title, "ratio": 0.5})),
        mood: Set(post::Mood::Sad),
        ratio: Set(None),
        ..Default::default()
    }
}

#[test]
fn models_that_many_tasks_insert_are_each_their_own_row() {
    const TASKS: usize = 32;
    const POSTS: usize = 10;
    block_on(async {
        let options = BatchOptions::new().group_commit(one_at_a_time());
        let pool = pool_with(SCHEMA, Duration::ZERO, options).await;
        let tasks = (0..TASKS).map(|task| {
            let db = pool.db.clone();
            tokio::spawn(async move {
                for at in 0..POSTS {
                    let title = format!("{task} {at}");
                    let model = a_post(&title).insert(&db).await.unwrap();
                    assert_eq!((model.title.as_str(), model.tags[0].as_str()), (title.as_str(), title.as_str()));
                    assert_eq!(post::Entity::find_by_id(model.id).one(&db).await.unwrap(), Some(model));
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(pool.database.query("SELECT 1 FROM posts").len(), TASKS * POSTS);
        let stats = pool.db.stats();
        let group = stats.group_commit;
        assert_eq!((stats.inserts_grouped, group.rows + group.alone), (group.rows, (TASKS * POSTS) as u64));
        assert!(group.groups > 0 && group.groups < group.rows / 2, "{group}");
    });
}

#[test]
fn a_transaction_gets_no_lower_id_than_a_group_before_it() {
    block_on(async {
        let options = BatchOptions::new().group_commit(GroupCommit::new().always());
        let pool = pool_with(SCHEMA, Duration::ZERO, options).await;
        let post_id = a_post("all").insert(&pool.db).await.unwrap().id;
        let a_comment = || comment::ActiveModel { id: NotSet, post_id: Set(post_id), body: Set("a".to_owned()) };
        let in_transaction = async || {
            let txn = pool.db.begin().await.unwrap();
            let mut ids = Vec::new();
            for _ in 0..6 {
                ids.push(a_comment().insert(&txn).await.unwrap().id);
            }
            txn.commit().await.unwrap();
            ids
        };
        // The last one gets its id from Postgres, so that nobody knows what the pool's connections had.
        in_transaction().await;
        let alone = "INSERT INTO comments (post_id, body) SELECT id, title FROM posts LIMIT 1";
        pool.db.execute_unprepared(alone).await.unwrap();
        let before = in_transaction().await;
        assert!(pool.db.stats().ids_unused > 0, "{}", pool.db.stats());
        let group = a_comment().insert(&pool.db).await.unwrap().id;
        let after = in_transaction().await;
        assert!(before[5] < group && group < after[0], "{before:?} {group} {after:?}");
    });
}

#[test]
fn a_leader_does_not_keep_the_only_connection_of_a_pool_from_those_who_want_it() {
    block_on(async {
        let database = Database::create();
        database.execute(SCHEMA);
        // While one group is on its way, the members of the one before it come back.
        let proxy = Proxy::start(database.url(), Duration::from_millis(2));
        let mut settings = ConnectOptions::new(proxy.url());
        settings.max_connections(1).sqlx_logging(false);
        let db = sea_orm::Database::connect(settings).await.unwrap();
        let options = BatchOptions::new().group_commit(one_at_a_time());
        let db = batch_seaorm::enable_batch_inserts_with(&db, options).await.unwrap();
        let is_done = Arc::new(AtomicBool::new(false));
        let inserts = (0..16).map(|task| {
            let (db, is_done) = (db.clone(), Arc::clone(&is_done));
            tokio::spawn(async move {
                for at in 0.. {
                    if is_done.load(Ordering::SeqCst) {
                        break;
                    }
                    a_post(&format!("{task} {at}")).insert(&db).await.unwrap();
                }
            })
        });
        let inserts: Vec<_> = inserts.collect();
        while db.stats().group_commit.groups < 5 {
            assert!(!inserts.iter().any(|task| task.is_finished()), "an insert failed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut groups = Vec::new();
        for _ in 0..10 {
            let before = db.stats().group_commit.groups;
            post::Entity::find().one(&db).await.unwrap();
            groups.push(db.stats().group_commit.groups - before);
        }
        is_done.store(true, Ordering::SeqCst);
        for task in inserts {
            task.await.unwrap();
        }
        // Who asks for the connection has it after the group that is on its way; a few more may be done until it is told.
        groups.sort();
        assert!(groups[5] < 4, "{groups:?}");
    });
}

#[test]
fn a_task_that_is_stopped_while_its_insert_waits_inserts_nothing() {
    block_on(async {
        let pool = pool_with(SCHEMA, Duration::ZERO, patient()).await;
        let blocker = connect(pool.database.url()).await.begin().await.unwrap();
        blocker.execute_unprepared("LOCK TABLE posts IN SHARE MODE").await.unwrap();
        let insert = |title: &'static str| {
            let db = pool.db.clone();
            tokio::spawn(async move { a_post(title).insert(&db).await })
        };
        let first = insert("first");
        while pool.db.stats().group_commit.alone == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (stopped, other, last) = (insert("stopped"), insert("other"), insert("last"));
        while pool.db.stats().group_commit.depth < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stopped.abort();
        assert!(stopped.await.unwrap_err().is_cancelled());
        blocker.rollback().await.unwrap();
        for task in [first, other, last] {
            task.await.unwrap().unwrap();
        }
        let titles = pool.database.query("SELECT title FROM posts ORDER BY title");
        assert_eq!(titles.concat(), ["first", "last", "other"].map(|title| Some(title.to_owned())));
    });
}

#[test]
fn a_task_that_is_stopped_while_it_leads_takes_nobody_along() {
    block_on(async {
        let pool = pool_with(SCHEMA, Duration::ZERO, patient()).await;
        let lock = async || {
            let blocker = connect(pool.database.url()).await.begin().await.unwrap();
            blocker.execute_unprepared("LOCK TABLE posts IN SHARE MODE").await.unwrap();
            blocker
        };
        let waits = || {
            let sql = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            pool.database.query(sql).len() == 1
        };
        let insert = |title: &'static str| {
            let db = pool.db.clone();
            tokio::spawn(async move { a_post(title).insert(&db).await })
        };
        // So that there are ids at hand, and even a group of one is sent as a group.
        future::join_all(["a", "b", "c", "d", "e", "f"].map(insert)).await;
        pool.database.execute("DELETE FROM posts");
        let blocker = lock().await;
        let leader = insert("leader");
        while !waits() {}
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        let other = insert("other");
        while pool.db.stats().group_commit.depth < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        blocker.rollback().await.unwrap();
        other.await.unwrap().unwrap();
        let titles = pool.database.query("SELECT title FROM posts ORDER BY title");
        assert_eq!(titles.concat(), ["leader", "other"].map(|title| Some(title.to_owned())));
    });
}

#[test]
fn each_way_to_insert_a_model_joins_groups_and_the_metric_callback_hears_of_it() {
    const TASKS: usize = 24;
    block_on(async {
        let options = BatchOptions::new().group_commit(one_at_a_time());
        let mut pool = pool_with(SCHEMA, Duration::ZERO, options).await;
        let heard = Arc::new(AtomicUsize::new(0));
        let hears = Arc::clone(&heard);
        pool.db.set_metric_callback(move |info| {
            assert!(!info.failed);
            hears.fetch_add(1, Ordering::SeqCst);
        });
        let inserts = (0..TASKS).map(async |task| {
            let post = a_post(&task.to_string());
            match task % 3 {
                0 => drop(post.save(&pool.db).await.unwrap()),
                1 => {
                    let id = post::Entity::insert(post).exec(&pool.db).await.unwrap().last_insert_id;
                    let found = post::Entity::find_by_id(id).one(&pool.db).await.unwrap().unwrap().into_active_model();
                    assert_eq!(found.title.unwrap(), task.to_string());
                    heard.fetch_sub(1, Ordering::SeqCst);
                }
                _ => {
                    let rows = post::Entity::insert(post).exec_without_returning(&pool.db).await.unwrap();
                    assert_eq!(rows, 1);
                }
            }
        });
        future::join_all(inserts).await;
        assert_eq!(heard.load(Ordering::SeqCst), TASKS);
        assert!(pool.db.stats().inserts_grouped > 0);
        assert_eq!(pool.database.query("SELECT 1 FROM posts").len(), TASKS);
    });
}
