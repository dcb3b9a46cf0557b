//! Batches that share parents.

use sea_orm::EntityTrait;
use sea_orm::sea_query::OnConflict;

use super::*;

mod group {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "groups")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub kind: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod member {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "members")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub item: i32,
        pub group_name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

const SCHEMA: &str = "
CREATE TABLE groups (name text PRIMARY KEY, kind text NOT NULL);
CREATE TABLE members (id serial PRIMARY KEY, item int NOT NULL, group_name text NOT NULL REFERENCES groups)";

async fn commit(db: &DatabaseConnection, batch: &Batch<i32>) -> Result<(), DbErr> {
    let names: std::collections::BTreeSet<String> = batch.items.iter().map(|item| group_of(*item)).collect();
    let txn = db.begin().await?;
    for name in names {
        let kind = format!("kind of {name}");
        group::Entity::insert(group::ActiveModel { name: Set(name), kind: Set(kind) })
            .on_conflict(OnConflict::column(group::Column::Name).update_column(group::Column::Kind).to_owned())
            .exec_without_returning(&txn)
            .await?;
    }
    for item in &batch.items {
        member::ActiveModel { item: Set(*item), group_name: Set(group_of(*item)), ..Default::default() }
            .insert(&txn)
            .await?;
    }
    txn.commit().await
}

fn group_of(item: i32) -> String {
    format!("group {}", item % 7)
}

#[test]
fn parents_that_batches_share_are_there_once_however_often_they_are_written() {
    block_on(async {
        let database = Database::create();
        database.execute(SCHEMA);
        let proxy = Proxy::start(database.url(), Duration::ZERO);
        let db = connect(proxy.url()).await;
        for run in 1..=2 {
            proxy.reset();
            let ingest = Ingest::new().max_rows(10);
            let source = stream::iter((0..ITEMS).map(Ok::<i32, Error>));
            let stage = async |item| Ok(Extracted::new(item, 1, size_of::<i32>()));
            let report = ingest.run(source, stage, async |batch: &Batch<i32>| commit(&db, batch).await).await.unwrap();
            assert_eq!(report.batches, 4);
            assert_eq!(count(&database, "SELECT count(*) FROM groups WHERE kind = 'kind of ' || name"), 7);
            assert_eq!(count(&database, "SELECT count(*) FROM groups"), 7);
            let members = "SELECT count(*) FROM members WHERE group_name = 'group ' || item % 7";
            assert_eq!(count(&database, members), i64::from(run * ITEMS));
            let writes = proxy.trace().into_iter().filter(|sql| sql.starts_with("EXECUTE") && sql.contains("groups"));
            assert_eq!(writes.count(), 4, "a statement a batch");
        }
    });
}
