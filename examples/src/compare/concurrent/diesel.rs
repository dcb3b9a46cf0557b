//! Diesel: a thread for each client, with a connection of its own or from a pool.

use std::thread;

use anyhow::{Result, anyhow};
use batch_diesel::enable_batch_inserts_with;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool, R2D2Connection};
use diesel::result::DatabaseErrorKind::UniqueViolation;
use diesel::result::Error;

use super::client::{Event, Inserted, Log};
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
    let logs = if job.pool.is_some() {
        pooled(&pool::<diesel::PgConnection>(job)?, job)?
    } else {
        let connect = |_| diesel::PgConnection::establish(job.url);
        own((0..job.clients).map(connect).collect::<Result<_, _>>()?, job)?
    };
    Ok(Done { logs, groups: None })
}

pub(super) fn group_commit(job: Job<'_>) -> Result<Done> {
    let mut counting = batch_diesel::PgConnection::establish(job.url)?;
    enable_batch_inserts_with(&mut counting, job.options())?;
    // All connections count together.
    let before = counting.stats().group_commit;
    let logs = if job.pool.is_some() {
        pooled(&pool::<batch_diesel::PgConnection>(job)?, job)?
    } else {
        let connect = |_| batch_diesel::PgConnection::establish(job.url);
        own((0..job.clients).map(connect).collect::<Result<_, _>>()?, job)?
    };
    Ok(Done { logs, groups: Some(Groups::between(&before, &counting.stats().group_commit)) })
}

fn pool<C: R2D2Connection + 'static>(job: Job<'_>) -> Result<Pool<ConnectionManager<C>>> {
    Ok(Pool::builder().max_size(job.connections()).build(ConnectionManager::new(job.url))?)
}

fn own<C: LoadConnection<Backend = Pg> + Send>(conns: Vec<C>, job: Job<'_>) -> Result<Vec<Log>> {
    threads(conns, job, |conn, event| insert(conn, event))
}

fn pooled<C>(pool: &Pool<ConnectionManager<C>>, job: Job<'_>) -> Result<Vec<Log>>
where
    C: LoadConnection<Backend = Pg> + R2D2Connection + 'static,
{
    threads(vec![pool.clone(); job.clients], job, |pool, event| insert(&mut *pool.get()?, event))
}

fn threads<S: Send>(
    sources: Vec<S>,
    job: Job<'_>,
    insert: impl Fn(&mut S, Event) -> Result<Inserted> + Sync,
) -> Result<Vec<Log>> {
    let insert = &insert;
    thread::scope(|scope| {
        let threads: Vec<_> = job
            .clients()
            .zip(sources)
            .map(|(mut client, mut source)| {
                scope.spawn(move || {
                    while let Some(event) = client.begin() {
                        client.end(insert(&mut source, event)?)?;
                    }
                    anyhow::Ok(client.into_log())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?).collect()
    })
}

fn insert<C: LoadConnection<Backend = Pg>>(conn: &mut C, event: Event) -> Result<Inserted> {
    let values = (events::client.eq(event.client), events::number.eq(event.number), events::text.eq(event.text));
    inserted(diesel::insert_into(events::table).values(values).returning(events::all_columns).get_result(conn))
}

/// What came of it, of Diesel's and diesel-async's.
pub(super) fn inserted(result: QueryResult<(i64, i32, i32, String)>) -> Result<Inserted> {
    match result {
        Ok((id, client, number, text)) => Ok(Some((id, Event { client, number, text }))),
        Err(Error::DatabaseError(UniqueViolation, _)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
