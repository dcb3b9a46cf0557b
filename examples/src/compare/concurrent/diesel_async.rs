//! diesel-async: a task for each client, with a connection of its own or from a pool.

use anyhow::{Result, anyhow};
use batch_diesel::enable_batch_inserts_with;
use diesel::ExpressionMethods;
use diesel::pg::Pg;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, PoolableConnection};
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::client::{Client, Event, Inserted, Log};
use super::diesel::{events, inserted};
use super::way::{Done, Groups, Job, tasks};

pub(super) fn plain(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        let logs = run::<diesel_async::AsyncPgConnection>(job).await?;
        Ok(Done { logs, groups: None })
    })
}

pub(super) fn group_commit(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        // It inserts nothing: all connections count together.
        let mut counting = batch_diesel::AsyncPgConnection::establish(job.url).await?;
        enable_batch_inserts_with(&mut counting, job.options()).await?;
        let before = counting.stats().group_commit;
        let logs = run::<batch_diesel::AsyncPgConnection>(job).await?;
        Ok(Done { logs, groups: Some(Groups::between(&before, &counting.stats().group_commit)) })
    })
}

async fn run<C>(job: Job<'_>) -> Result<Vec<Log>>
where
    C: AsyncConnection<Backend = Pg> + PoolableConnection + 'static,
{
    if job.pool.is_some() {
        let manager = AsyncDieselConnectionManager::<C>::new(job.url);
        let pool = Pool::builder(manager).max_size(job.connections() as usize).build()?;
        return tasks(job.clients().map(|client| pooled(pool.clone(), client))).await;
    }
    let mut conns = Vec::with_capacity(job.clients);
    for _ in 0..job.clients {
        conns.push(C::establish(job.url).await?);
    }
    tasks(job.clients().zip(conns).map(|(client, conn)| own(conn, client))).await
}

async fn own<C: AsyncConnection<Backend = Pg>>(mut conn: C, mut client: Client) -> Result<Log> {
    while let Some(event) = client.begin() {
        client.end(insert(&mut conn, event).await?)?;
    }
    Ok(client.into_log())
}

async fn pooled<C>(pool: Pool<C>, mut client: Client) -> Result<Log>
where
    C: AsyncConnection<Backend = Pg> + PoolableConnection + 'static,
{
    while let Some(event) = client.begin() {
        let mut conn = pool.get().await.map_err(|error| anyhow!("{error}"))?;
        client.end(insert(&mut *conn, event).await?)?;
    }
    Ok(client.into_log())
}

async fn insert<C: AsyncConnection<Backend = Pg>>(conn: &mut C, event: Event) -> Result<Inserted> {
    let values = (events::client.eq(event.client), events::number.eq(event.number), events::text.eq(event.text));
    let insert = diesel::insert_into(events::table).values(values).returning(events::all_columns);
    inserted(insert.get_result(conn).await)
}
