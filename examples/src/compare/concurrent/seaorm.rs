//! SeaORM: a task for each client, and one pool for all.

use anyhow::Result;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, ConnectOptions, ConnectionTrait, Database};

use super::client::{Client, Event, Log, Window};
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
        let window = Window::open(job.time);
        let logs = tasks(Client::several(job.clients, window).map(|client| insert(db.clone(), client))).await?;
        db.close().await?;
        Ok(Done { logs, groups: None })
    })
}

pub(super) fn group_commit(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        let db = batch_seaorm::enable_batch_inserts_with(&connect(job).await?, job.options()).await?;
        let before = db.stats().group_commit;
        let window = Window::open(job.time);
        let logs = tasks(Client::several(job.clients, window).map(|client| insert(db.clone(), client))).await?;
        let groups = Groups::between(&before, &db.stats().group_commit);
        db.close().await?;
        Ok(Done { logs, groups: Some(groups) })
    })
}

async fn connect(job: Job<'_>) -> Result<sea_orm::DatabaseConnection> {
    let connections = job.clients.min(job.pool) as u32;
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
        let event = event.insert(&db).await?;
        client.end(event.id, Event { client: event.client, number: event.number, text: event.text })?;
    }
    Ok(client.into_log())
}
