//! Diesel: a thread and a connection for each client.

use std::thread;

use anyhow::{Result, anyhow};
use batch_diesel::enable_batch_inserts_with;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;

use super::client::{Client, Event, Log, Window};
use super::way::{Done, Groups, Job};

diesel::table! {
    events (id) {
        id -> BigInt,
        client -> Integer,
        number -> Integer,
        text -> Text,
    }
}

pub(super) fn plain(job: Job<'_>) -> Result<Done> {
    let connect = |_| diesel::PgConnection::establish(job.url);
    let mut conns = (0..job.clients).map(connect).collect::<Result<Vec<_>, _>>()?;
    Ok(Done { logs: threads(&mut conns, job)?, groups: None })
}

pub(super) fn group_commit(job: Job<'_>) -> Result<Done> {
    let mut conns = Vec::with_capacity(job.clients);
    for _ in 0..job.clients {
        let mut conn = batch_diesel::PgConnection::establish(job.url)?;
        enable_batch_inserts_with(&mut conn, job.options())?;
        conns.push(conn);
    }
    // All of them count together.
    let before = conns[0].stats().group_commit;
    let logs = threads(&mut conns, job)?;
    let groups = Groups::between(&before, &conns[0].stats().group_commit);
    Ok(Done { logs, groups: Some(groups) })
}

fn threads<C: LoadConnection<Backend = Pg> + Send>(conns: &mut [C], job: Job<'_>) -> Result<Vec<Log>> {
    let window = Window::open(job.time);
    let clients = Client::several(conns.len(), window);
    thread::scope(|scope| {
        let threads: Vec<_> =
            clients.zip(conns).map(|(client, conn)| scope.spawn(move || insert(conn, client))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

fn insert<C: LoadConnection<Backend = Pg>>(conn: &mut C, mut client: Client) -> Result<Log> {
    while let Some(event) = client.begin() {
        let values = (events::client.eq(event.client), events::number.eq(event.number), events::text.eq(event.text));
        let (id, client_number, number, text) =
            diesel::insert_into(events::table).values(values).returning(events::all_columns).get_result(conn)?;
        client.end(id, Event { client: client_number, number, text })?;
    }
    Ok(client.into_log())
}
