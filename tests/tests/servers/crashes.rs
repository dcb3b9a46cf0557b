//! A server that crashes loses what its log did not have yet: ids that were reserved and not committed are given again.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::*;

#[test]
fn ids_that_a_crash_took_back_are_given_once() {
    let Some(cluster) = cluster() else { return };
    // What is not committed stays in memory.
    cluster.execute("postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'");
    cluster.execute("postgres", "SELECT pg_reload_conf()");
    let crash = |name: &str, crash: &dyn Fn()| {
        let prepared = each!(prepared(&cluster, name));
        // Nothing may be committed from here on.
        let then = prepared.map(|open| open());
        crash();
        finish(then);
    };
    crash("stopped", &|| cluster.crash());
    // The server's first process, and with it the time of its start, outlives this.
    let connect = || <Diesel as Adapter>::Plain::connect(&cluster.url("postgres")).unwrap();
    let (mut victim, witness) = (connect(), RefCell::new(connect()));
    let pid = victim.one("SELECT pg_backend_pid()", &[]).unwrap().int().to_string();
    crash("killed", &|| {
        cluster.kill(&pid);
        // All sessions end with it, in time.
        while witness.borrow_mut().one("SELECT 1", &[]).is_ok() {}
    });
}

fn prepared<A: Adapter>(cluster: &Cluster, name: &str) -> Box<dyn FnOnce() -> Then> {
    let name = named::<A>(name);
    cluster.execute("postgres", &format!("CREATE DATABASE {name}"));
    let url = cluster.url(&name);
    let mut program = Program::<A>::start(&url);
    program.conn.script(PARENTS).unwrap();
    let first = names(&mut program.conn, "parents", 5).unwrap();
    Box::new(move || {
        program.conn.begin().unwrap();
        program.conn.one("SELECT 1", &[]).unwrap();
        for _ in 0..300 {
            program.conn.insert_name("parents", "never").unwrap();
        }
        Box::new(move || {
            assert!(program.conn.commit().is_err(), "{}", A::NAME);
            while A::Plain::connect(&url).is_err() {}
            program.reconnect();
            let ids = names(&mut program.conn, "parents", 5).unwrap();
            assert!(ids.iter().all(|id| !first.contains(id)), "{}: {ids:?} after {first:?}", A::NAME);
            // As many as were reserved and more.
            let insert = "INSERT INTO parents (name) SELECT 'plain' FROM generate_series(1, 3000)";
            A::Plain::connect(&url).unwrap().script(insert).unwrap_or_else(|error| panic!("{}: {error}", A::NAME));
            let before = program.deferred();
            names(&mut program.conn, "parents", 5).unwrap();
            assert!(program.deferred() > before, "{}: {}", A::NAME, program.conn.stats());
        })
    })
}

#[test]
fn a_restart_under_load_loses_nothing_and_gives_no_error_of_its_own() {
    let Some(cluster) = cluster() else { return };
    let load = each!(loaded(&cluster));
    cluster.crash();
    finish(load);
}

/// A batched program and a plain one, which are seen to work before and after.
fn loaded<A: Adapter>(cluster: &Cluster) -> Then {
    let name = named::<A>("loaded");
    cluster.execute("postgres", &format!("CREATE DATABASE {name}"));
    cluster.execute(&name, PARENTS);
    let url = cluster.url(&name);
    A::Batched::connect(&url).unwrap().enable(BatchOptions::new()).unwrap();
    let workers = [Worker::start::<A::Batched>(&url, A::POOLED), Worker::start::<A::Plain>(&url, A::POOLED)];
    workers.iter().for_each(Worker::wait);
    Box::new(move || {
        workers.iter().for_each(Worker::wait);
        let mut kept = Vec::new();
        for worker in workers {
            let work = worker.stop();
            assert_eq!(work.failures, [""; 0], "{}", A::NAME);
            kept.extend(work.ids);
        }
        let mut plain = A::Plain::connect(&url).unwrap();
        let mut there: Vec<i64> =
            plain.rows("SELECT id FROM parents", &[]).unwrap().iter().map(|row| row[0].int()).collect();
        there.sort_unstable();
        kept.sort_unstable();
        let lost: Vec<&i64> = kept.iter().filter(|id| there.binary_search(id).is_err()).collect();
        assert_eq!(lost, [&0; 0], "{}: ids that were told to be committed", A::NAME);
        assert!(kept.windows(2).all(|two| two[0] < two[1]), "{}: an id was given twice", A::NAME);
        let ahead = plain.one("SELECT nextval('parents_id_seq') - max(id) FROM parents", &[]).unwrap().int();
        assert!(ahead > 0, "{}: other programs get ids that are taken", A::NAME);
    })
}

/// A program that inserts until it is told to stop, and connects again where its connection is lost.
struct Worker {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Work>,
}

#[derive(Default)]
struct Work {
    ids: Vec<i64>,
    /// Other than that the connection was lost.
    failures: Vec<String>,
}

impl Worker {
    fn start<S: Session>(url: &str, pooled: bool) -> Self {
        let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (url, counted, stopped) = (url.to_owned(), Arc::clone(&done), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut work = Work::default();
            let mut conn = S::connect(&url).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                match names(&mut conn, "parents", 3) {
                    Ok(ids) => {
                        work.ids.extend(ids);
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(failure) if failure.constraint.is_some() || failure.message.contains("duplicate") => {
                        work.failures.push(failure.to_string());
                    }
                    Err(_) if pooled => {}
                    Err(_) => conn = reconnected(&url),
                }
            }
            work
        });
        Self { done, stop, thread }
    }

    /// Until it has done some transactions more.
    fn wait(&self) {
        let (start, done) = (Instant::now(), self.done.load(Ordering::Relaxed));
        while self.done.load(Ordering::Relaxed) < done + 20 {
            assert!(start.elapsed() < Duration::from_secs(30) && !self.thread.is_finished(), "it does not get on");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) -> Work {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn reconnected<S: Session>(url: &str) -> S {
    loop {
        if let Ok(conn) = S::connect(url) {
            return conn;
        }
    }
}
