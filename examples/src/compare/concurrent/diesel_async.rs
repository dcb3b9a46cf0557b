//! diesel-async: a task and a connection for each client.

use anyhow::Result;
use batch_diesel::enable_batch_inserts_with;
use diesel::ExpressionMethods;
use diesel::pg::Pg;
use diesel_async::{AsyncConnection, RunQueryDsl};

use super::client::{Client, Event, Log, Window};
use super::diesel::events;
use super::way::{Done, Groups, Job, tasks};

pub(super) fn plain(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        let mut conns = Vec::with_capacity(job.clients);
        for _ in 0..job.clients {
            conns.push(diesel_async::AsyncPgConnection::establish(job.url).await?);
        }
        let clients = Client::several(job.clients, Window::open(job.time));
        let logs = tasks(clients.zip(conns).map(|(client, conn)| insert(conn, client))).await?;
        Ok(Done { logs, groups: None })
    })
}

pub(super) fn group_commit(job: Job<'_>) -> Result<Done> {
    job.runtime()?.block_on(async {
        let mut conns = Vec::with_capacity(job.clients);
        for _ in 0..=job.clients {
            let mut conn = batch_diesel::AsyncPgConnection::establish(job.url).await?;
            enable_batch_inserts_with(&mut conn, job.options()).await?;
            conns.push(conn);
        }
        // One more, which inserts nothing: all of them count together.
        let counting = conns.pop();
        let stats = || counting.as_ref().map(|conn| conn.stats().group_commit).unwrap_or_default();
        let before = stats();
        let clients = Client::several(job.clients, Window::open(job.time));
        let logs = tasks(clients.zip(conns).map(|(client, conn)| insert(conn, client))).await?;
        Ok(Done { logs, groups: Some(Groups::between(&before, &stats())) })
    })
}

async fn insert<C: AsyncConnection<Backend = Pg>>(mut conn: C, mut client: Client) -> Result<Log> {
    while let Some(event) = client.begin() {
        let values = (events::client.eq(event.client), events::number.eq(event.number), events::text.eq(event.text));
        let (id, client_number, number, text) = diesel::insert_into(events::table)
            .values(values)
            .returning(events::all_columns)
            .get_result(&mut conn)
            .await?;
        client.end(id, Event { client: client_number, number, text })?;
    }
    Ok(client.into_log())
}
