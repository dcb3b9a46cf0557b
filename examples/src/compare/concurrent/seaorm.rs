//! SeaORM: a task for each client, and one pool for all.

use anyhow::Result;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, ConnectOptions, ConnectionTrait, Database, SqlErr};

use super::client::{Client, Event, Log};
use super::way::{Done, Groups, Job, tasks};

mod event {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "events")]
    pub(super) struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub client: i32,
        pub number: i32,
        pub text: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(super) fn plain(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        let db = connect(job).await?;
        let logs = tasks(job.clients().map(|client| insert(db.clone(), client))).await?;
        db.close().await?;
        Ok(Done { logs, groups: None })
    })
}

pub(super) fn group_commit(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        let db = batch_seaorm::enable_batch_inserts_with(&connect(job).await?, job.options()).await?;
        let before = db.stats().group_commit;
        let logs = tasks(job.clients().map(|client| insert(db.clone(), client))).await?;
        let groups = Groups::between(&before, &db.stats().group_commit);
        db.close().await?;
        Ok(Done { logs, groups: Some(groups) })
    })
}

async fn connect(job: Job<'_>) -> Result<sea_orm::DatabaseConnection> {
    let connections = job.connections();
    let mut options = ConnectOptions::new(job.url);
    options.sqlx_logging(false).min_connections(connections).max_connections(connections);
    Ok(Database::connect(options).await?)
}

async fn insert<C: ConnectionTrait>(db: C, mut client: Client) -> Result<Log> {
    while let Some(event) = client.begin() {
        let event = event::ActiveModel {
            id: NotSet,
            client: Set(event.client),
            number: Set(event.number),
            text: Set(event.text),
        };
        let inserted = match event.insert(&db).await {
            Ok(event::Model { id, client, number, text }) => Some((id, Event { client, number, text })),
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => None,
            Err(error) => return Err(error.into()),
        };
        client.end(inserted)?;
    }
    Ok(client.into_log())
}
