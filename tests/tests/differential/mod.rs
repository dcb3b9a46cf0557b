//! The guard of the promise: the same random program, plain and batched, everything compared.
//!
//! Programs are made by [`generate`], run by [`run`] and compared here. Ids are not compared by their value, as blocks
//! leave gaps that the contract allows (§2.4): references are compared by the label of the row they point at, and every
//! id must be higher than those before it. `BATCH_DIFFERENTIAL_CASES` sets the number of programs and
//! `BATCH_DIFFERENTIAL_SEED` repeats a run; a failure prints its seed and the smallest program that shows it.

mod generate;
mod run;
mod schema;

use std::time::Duration;

use batch_core::{BatchOptions, GroupCommit, Nested, Reason, Stats};
use batch_support::Database;
use batch_tests::diesel_adapter::Diesel;
use batch_tests::diesel_async_adapter::DieselAsync;
use batch_tests::seaorm_adapter::SeaOrm;
use batch_tests::{Adapter, Batching, Session};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::generate::{Options, Program};
use self::run::{Errors, Event, Run, Transcript};

const CASES: u32 = 1_000;
const PROGRAMS_A_CONNECTION: u32 = 10;

#[test]
fn programs_of_diesel_cannot_tell_the_difference() {
    programs_cannot_tell_the_difference::<Diesel>();
}

#[test]
fn programs_of_diesel_async_cannot_tell_the_difference() {
    programs_cannot_tell_the_difference::<DieselAsync>();
}

#[test]
fn programs_of_seaorm_cannot_tell_the_difference() {
    programs_cannot_tell_the_difference::<SeaOrm>();
}

/// Runs random programs on plain and batched connections of an adapter.
fn programs_cannot_tell_the_difference<A: Adapter>() {
    let cases = std::env::var("BATCH_DIFFERENTIAL_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let seed = std::env::var("BATCH_DIFFERENTIAL_SEED").map_or_else(|_| rand_seed(), |seed| seed.parse().unwrap());
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let bench = std::cell::RefCell::new(Bench::<A>::new());
    let outcome = runner.run(&generate::program().prop_map(Program::label), |program| {
        bench.borrow_mut().compare(&program).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {
            let bench = bench.into_inner();
            eprintln!(
                "{cases} programs with seed {seed}: {} inserts deferred, {} sent at once, {} in groups, {} errors caught",
                bench.deferred, bench.sent, bench.grouped, bench.caught
            );
            eprintln!("{}", bench.batched.stats());
            assert!(
                bench.deferred > bench.sent,
                "too few inserts of the programs' transactions waited: little is tested"
            );
            assert!(
                bench.passed > u64::from(cases) / 10,
                "too few statements went past rows that waited: {}",
                bench.passed
            );
            assert!(
                bench.grouped > u64::from(cases) / 50,
                "too few inserts outside of transactions were committed in groups: {}",
                bench.grouped
            );
            assert!(
                bench.caught >= u64::from(cases) / 400,
                "too few errors at the start of a nested transaction were caught: {}",
                bench.caught
            );
        }
        Err(TestError::Fail(reason, program)) => {
            panic!("BATCH_DIFFERENTIAL_SEED={seed}\n{reason}\nthe smallest program that shows it:\n{program:#?}")
        }
        Err(TestError::Abort(reason)) => panic!("BATCH_DIFFERENTIAL_SEED={seed}: gave up: {reason}"),
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// The databases that programs run on.
struct Bench<A: Adapter> {
    plain: A::Plain,
    /// They know every error that a statement of a program would have met.
    oracles: [(A::Plain, Errors); 2],
    batched: A::Batched,
    deferred: u64,
    sent: u64,
    grouped: u64,
    passed: u64,
    caught: u64,
    programs: u32,
    databases: [Database; 4],
}

impl<A: Adapter> Bench<A> {
    fn new() -> Self {
        let databases = [(); 4].map(|()| Database::create());
        for database in &databases {
            database.execute(schema::SCHEMA);
        }
        databases[3].execute(schema::DEFER);
        let plain = |at: usize| A::Plain::connect(databases[at].url()).unwrap();
        Self {
            plain: plain(0),
            oracles: [(plain(1), Errors::UndoTheStatement), (plain(3), Errors::KeepTheRow)],
            batched: A::Batched::connect(databases[2].url()).unwrap(),
            deferred: 0,
            sent: 0,
            grouped: 0,
            passed: 0,
            caught: 0,
            programs: 0,
            databases,
        }
    }

    fn compare(&mut self, program: &Program) -> Result<(), String> {
        let Options { max_rows, merge, late_begin, overlap, group_commit, max_id_block, impatient, .. } =
            program.options;
        let nested = if merge { Nested::Merge } else { Nested::Flush };
        let options = BatchOptions::new().max_rows(max_rows).nested(nested);
        let mut options = options.late_begin(late_begin).overlap(overlap).max_id_block(max_id_block);
        if impatient {
            options = options.max_age(Duration::ZERO);
        }
        if group_commit {
            options = options.group_commit(GroupCommit::new().always());
        }
        // A program may leave doubts about its session's settings, with which no insert joins a group.
        if group_commit || self.programs.is_multiple_of(PROGRAMS_A_CONNECTION) {
            self.batched = A::Batched::connect(self.databases[2].url()).map_err(|error| error.to_string())?;
        }
        self.programs += 1;
        self.batched.enable(options).map_err(|error| error.to_string())?;
        let plain = Run::new(&mut self.plain, Errors::EndTheTransaction).run(program)?;
        if merge && plain.has_failures() {
            // Where nested transactions merge, errors come from the outer flush (§2.6): there is nothing to compare.
            return Ok(());
        }
        let before = self.batched.stats();
        let batched = Run::new(&mut self.batched, Errors::EndTheTransaction).run(program)?;
        self.caught += batched.caught;
        let after = self.batched.stats();
        self.grouped += after.inserts_grouped - before.inserts_grouped;
        self.passed += after.statements_passed - before.statements_passed;
        // Group commit has reasons of its own to send what is outside of transactions.
        if !group_commit {
            self.deferred += after.inserts_deferred - before.inserts_deferred;
            self.sent += sent_in_transactions(&after) - sent_in_transactions(&before);
        }
        let mut known = Vec::new();
        if plain.has_failures() {
            for (conn, errors) in &mut self.oracles {
                known.push(Run::new(conn, *errors).run(program)?);
            }
        }
        same(&plain, &batched, &known)
    }
}

/// Without group commit no insert outside of transactions has another reason than that.
fn sent_in_transactions(stats: &Stats) -> u64 {
    stats.inserts_sent.iter().filter(|(reason, _)| **reason != Reason::NotInTransaction).map(|(_, sent)| sent).sum()
}

/// Compares two transcripts; the oracles know every error that a statement of the program would have met.
fn same(plain: &Transcript, batched: &Transcript, oracles: &[Transcript]) -> Result<(), String> {
    same_events(&plain.events, &batched.events, oracles)?;
    for (expected, actual) in plain.contents.iter().zip(&batched.contents) {
        if expected != actual {
            return Err(format!("the contents differ\n  plain:   {expected:?}\n  batched: {actual:?}"));
        }
    }
    Ok(())
}

fn same_events(plain: &[Event], batched: &[Event], oracles: &[Transcript]) -> Result<(), String> {
    for (at, expected) in plain.iter().enumerate() {
        let Some(actual) = batched.get(at) else {
            return Err(format!("batched stopped before {expected:?}"));
        };
        match (expected, actual) {
            (
                Event::Block { events: a, failure: a_failed, rolls_back },
                Event::Block { events: b, failure: b_failed, .. },
            ) => {
                same_events(a, b, oracles)
                    .map_err(|error| format!("{error}\n  plain failed: {a_failed:?}, batched failed: {b_failed:?}"))?;
                match (a_failed, b_failed) {
                    (None, None) if a.len() != b.len() => {
                        return Err("one ran more statements than the other".to_owned());
                    }
                    (None, None) => {}
                    // The one visible difference: the error comes at the flush (§2.6), so that more statements ran before
                    // it, and another of them may be the first to fail.
                    (Some(_), Some(failed)) if a_failed == b_failed || oracles.iter().any(|o| o.knows(failed)) => {}
                    // Rows that are rolled back are never sent (§2.2).
                    (Some(_), None) if *rolls_back => {}
                    _ => return Err(format!("the errors differ\n  plain:   {a_failed:?}\n  batched: {b_failed:?}")),
                }
            }
            (expected, actual) if expected == actual => {}
            _ => return Err(format!("the results differ\n  plain:   {expected:?}\n  batched: {actual:?}")),
        }
    }
    Ok(())
}
