use std::cell::{Cell, RefCell};
use std::io::{Error, ErrorKind};

use futures_util::stream;
use tokio::time::sleep;

use super::*;

/// The numbers below `n`.
fn numbers(n: u64) -> impl Stream<Item = Result<u64, Error>> {
    stream::iter((0..n).map(Ok))
}

/// As one row of ten bytes.
async fn row(n: u64) -> Result<Extracted<u64>, Error> {
    Ok(Extracted::new(n, 1, 10))
}

fn failure(text: &str) -> Error {
    Error::new(ErrorKind::InvalidData, text)
}

/// What a commit is given, batch by batch.
#[derive(Default)]
struct Sink(RefCell<Vec<Vec<u64>>>);

impl Sink {
    fn take(&self, batch: &Batch<u64>) {
        self.0.borrow_mut().push(batch.items.clone());
    }

    fn all(&self) -> Vec<u64> {
        self.0.borrow().concat()
    }
}

#[tokio::test]
async fn batches_are_full_by_rows_or_by_bytes_and_in_the_order_of_the_source() {
    for ingest in [Ingest::new().max_rows(4), Ingest::new().max_bytes(80)] {
        let sink = Sink::default();
        // The later ones of each four are done first.
        let stage = async |n: u64| {
            sleep(Duration::from_millis(4 - n % 4)).await;
            row(n).await
        };
        let commit = async |batch: &Batch<u64>| {
            sink.take(batch);
            Ok::<(), Error>(())
        };
        let report = ingest.run(numbers(10), stage, commit).await.unwrap();
        assert_eq!(*sink.0.borrow(), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
        assert_eq!((report.batches, report.items, report.rows), (3, 10, 10));
    }
}

#[tokio::test]
async fn an_item_larger_than_a_batch_is_a_batch() {
    let sizes = RefCell::new(Vec::new());
    let stage = async |n: u64| Ok(Extracted::new(n, 1, if n == 1 { 1_000_000 } else { 1 }));
    let commit = async |batch: &Batch<u64>| {
        sizes.borrow_mut().push(batch.bytes);
        Ok::<(), Error>(())
    };
    Ingest::new().max_bytes(20).run(numbers(4), stage, commit).await.unwrap();
    assert_eq!(*sizes.borrow(), [1_000_001, 2]);
}

#[tokio::test]
async fn the_next_batch_is_extracted_during_a_commit_and_no_more_than_that() {
    let extracted = Cell::new(0);
    let seen = RefCell::new(Vec::new());
    let stage = async |n: u64| {
        extracted.set(extracted.get() + 1);
        row(n).await
    };
    let commit = async |_: &Batch<u64>| {
        sleep(Duration::from_millis(2)).await;
        seen.borrow_mut().push(extracted.get());
        Ok::<(), Error>(())
    };
    for (batches, expected) in [(1, [10, 20, 30, 40]), (2, [20, 30, 40, 40]), (3, [30, 40, 40, 40])] {
        extracted.set(0);
        seen.borrow_mut().clear();
        Ingest::new().concurrency(1).max_rows(10).max_batches(batches).run(numbers(40), &stage, commit).await.unwrap();
        assert_eq!(*seen.borrow(), expected, "with {batches} batches in memory");
    }
}

#[tokio::test]
async fn so_many_items_are_in_the_stage_at_a_time() {
    let (now, most) = (Cell::new(0), Cell::new(0));
    let stage = async |n: u64| {
        now.set(now.get() + 1);
        most.set(most.get().max(now.get()));
        sleep(Duration::from_millis(1)).await;
        now.set(now.get() - 1);
        row(n).await
    };
    Ingest::new().concurrency(3).run(numbers(20), stage, async |_| Ok::<(), Error>(())).await.unwrap();
    assert_eq!(most.get(), 3);
}

#[tokio::test]
async fn a_commit_that_fails_leaves_those_before_it_and_says_what_is_not_committed() {
    let sink = Sink::default();
    let commit = async |batch: &Batch<u64>| {
        if batch.number == 2 {
            return Err(failure("no space left"));
        }
        sink.take(batch);
        Ok(())
    };
    let ingest = Ingest::new().concurrency(1).max_rows(5).marks(Marks::new("s"), |n| format!("n{n}"));
    let error = ingest.run(numbers(100), row, commit).await.unwrap_err();
    assert_eq!(sink.all(), (0..10).collect::<Vec<_>>());
    assert_eq!((error.report.batches, error.report.items), (2, 10));
    assert_eq!(error.uncommitted.start, 10);
    let keys: Vec<String> = error.uncommitted.clone().map(|n| format!("n{n}")).collect();
    assert_eq!(error.uncommitted_keys, keys);
    let said = error.to_string();
    assert!(said.starts_with("batch 2 could not be committed: no space left; items 10 to "), "{said}");
}

#[tokio::test]
async fn what_came_before_an_item_that_fails_is_committed() {
    let broken = |at: u64| move |n: u64| if n == at { Err(failure("cut off")) } else { Ok(n) };
    let source = stream::iter((0..100).map(broken(7)));
    let sink = Sink::default();
    let commit = async |batch: &Batch<u64>| {
        sink.take(batch);
        Ok::<(), Error>(())
    };
    let error = Ingest::new().max_rows(5).run(source, row, commit).await.unwrap_err();
    assert_eq!(sink.all(), (0..7).collect::<Vec<_>>());
    assert_eq!(error.to_string(), "item 7 of the source failed: cut off; all items before it are committed");

    let sink = Sink::default();
    let commit = async |batch: &Batch<u64>| {
        sink.take(batch);
        Ok::<(), Error>(())
    };
    let stage = async |n: u64| row(broken(8)(n)?).await;
    let error = Ingest::new().max_rows(5).run(numbers(100), stage, commit).await.unwrap_err();
    assert_eq!(sink.all(), (0..8).collect::<Vec<_>>());
    assert!(matches!(error.kind, IngestErrorKind::Extract(_)) && error.uncommitted.is_empty());
}

#[tokio::test]
async fn bad_items_are_set_aside_up_to_a_limit() {
    let stage = async |n: u64| {
        if n.is_multiple_of(3) { Ok(Extracted::bad(format!("{n} is a multiple"))) } else { row(n).await }
    };
    let sink = Sink::default();
    let commit = async |batch: &Batch<u64>| {
        sink.take(batch);
        Ok::<(), Error>(())
    };
    let report = Ingest::new().max_bad(4).run(numbers(10), stage, commit).await.unwrap();
    assert_eq!(sink.all(), [1, 2, 4, 5, 7, 8]);
    let bad: Vec<_> = report.bad.iter().map(|bad| (bad.position, bad.reason.as_str())).collect();
    assert_eq!(bad, [(0, "0 is a multiple"), (3, "3 is a multiple"), (6, "6 is a multiple"), (9, "9 is a multiple")]);

    let sink = Sink::default();
    let commit = async |batch: &Batch<u64>| {
        sink.take(batch);
        Ok::<(), Error>(())
    };
    let error = Ingest::new().max_bad(2).run(numbers(10), stage, commit).await.unwrap_err();
    assert_eq!(sink.all(), [1, 2, 4, 5]);
    let said = error.to_string();
    assert!(said.starts_with("3 items of the source are bad, the last of them item 6: 6 is a multiple"), "{said}");
}

#[tokio::test]
async fn marked_items_are_skipped_before_the_stage_and_each_batch_marks_its_own() {
    let marks = Marks::new("s").with_done((0..6).map(|n| n.to_string()));
    let staged = RefCell::new(Vec::new());
    let stage = async |n: u64| {
        staged.borrow_mut().push(n);
        row(n).await
    };
    let statements = RefCell::new(Vec::new());
    let commit = async |batch: &Batch<u64>| {
        statements.borrow_mut().extend(batch.marks_sql().unwrap());
        Ok::<(), Error>(())
    };
    let ingest = Ingest::new().max_rows(2).marks(marks, u64::to_string);
    let report = ingest.run(numbers(9), stage, commit).await.unwrap();
    assert_eq!(*staged.borrow(), [6, 7, 8]);
    assert_eq!((report.skipped, report.items), (6, 3));
    assert_eq!(
        *statements.borrow(),
        [
            "INSERT INTO batch_ingest_marks (source, item) VALUES ('s', '6'), ('s', '7')",
            "INSERT INTO batch_ingest_marks (source, item) VALUES ('s', '8')",
        ]
    );
}

#[tokio::test]
async fn each_commit_is_told_of() {
    let told = RefCell::new(Vec::new());
    let ingest = Ingest::new().max_rows(4);
    let events = std::sync::Mutex::new(Vec::new());
    let ingest = ingest.on_batch_committed(|done| events.lock().unwrap().push((done.batch, done.items, done.cursor)));
    let commit = async |batch: &Batch<u64>| {
        told.borrow_mut().push((batch.first, batch.last));
        Ok::<(), Error>(())
    };
    ingest.run(numbers(10), row, commit).await.unwrap();
    assert_eq!(*told.borrow(), [(0, 3), (4, 7), (8, 9)]);
    assert_eq!(*events.lock().unwrap(), [(0, 4, 3), (1, 4, 7), (2, 2, 9)]);
}

/// Fails the tries of the second batch as it was told, and takes the others.
struct Flaky {
    sink: Sink,
    errors: RefCell<VecDeque<Error>>,
    /// Of each try: batch, attempt, and whether the batch asks if it has landed.
    tries: RefCell<Vec<(u64, u32, bool)>>,
}

impl Flaky {
    fn new(errors: impl IntoIterator<Item = ErrorKind>) -> Self {
        let errors = errors.into_iter().map(|kind| Error::new(kind, "said so")).collect();
        Self { sink: Sink::default(), errors: RefCell::new(errors), tries: RefCell::default() }
    }

    fn commit(&self, batch: &Batch<u64>) -> Result<(), Error> {
        let asks = batch.landed_sql().unwrap().is_some();
        self.tries.borrow_mut().push((batch.number, batch.attempt, asks));
        if batch.number == 1
            && let Some(error) = self.errors.borrow_mut().pop_front()
        {
            return Err(error);
        }
        self.sink.take(batch);
        Ok(())
    }
}

fn retrying<'a>(retries: u32) -> Ingest<'a, u64, Error> {
    let ingest = Ingest::new().concurrency(1).max_rows(5).retry_pauses(Duration::ZERO, Duration::ZERO);
    ingest.retries(retries, |error: &Error| error.kind() == ErrorKind::Interrupted)
}

#[tokio::test]
async fn a_commit_that_fails_transiently_is_tried_again_with_the_same_batch() {
    let flaky = Flaky::new([ErrorKind::Interrupted, ErrorKind::Interrupted]);
    let told = std::sync::Mutex::new(Vec::new());
    let ingest = retrying(2).on_batch_committed(|done| told.lock().unwrap().push((done.batch, done.retries)));
    let report = ingest.run(numbers(15), row, async |batch: &Batch<u64>| flaky.commit(batch)).await.unwrap();
    assert_eq!(flaky.sink.all(), (0..15).collect::<Vec<_>>());
    let tries = [(0, 0, false), (1, 0, false), (1, 1, false), (1, 2, false), (2, 0, false)];
    assert_eq!(*flaky.tries.borrow(), tries);
    assert_eq!((report.batches, report.items, report.retries), (3, 15, 2));
    assert_eq!(*told.lock().unwrap(), [(0, 0), (1, 2), (2, 0)]);
}

#[tokio::test]
async fn a_commit_is_tried_no_more_often_than_asked_and_not_where_it_cannot_help() {
    use ErrorKind::{Interrupted, InvalidData};
    for (errors, retries, said) in [
        (vec![Interrupted; 9], 2, "batch 1 could not be committed, tried 3 times: said so; items 5 to "),
        (vec![Interrupted; 9], 0, "batch 1 could not be committed: said so; items 5 to "),
        (vec![InvalidData; 9], 2, "batch 1 could not be committed: said so; items 5 to "),
        (vec![Interrupted, InvalidData, Interrupted], 5, "batch 1 could not be committed, tried 2 times: said so; "),
    ] {
        let flaky = Flaky::new(errors);
        let error =
            retrying(retries).run(numbers(15), row, async |batch: &Batch<u64>| flaky.commit(batch)).await.unwrap_err();
        assert!(error.to_string().starts_with(said), "{error}");
        assert_eq!(flaky.sink.all(), (0..5).collect::<Vec<_>>());
        assert_eq!(error.report.retries as usize + 2, flaky.tries.borrow().len());
    }
}

#[tokio::test]
async fn a_batch_with_marks_asks_whether_it_has_landed_and_a_failure_behind_a_lost_try_is_looked_into_once() {
    use ErrorKind::{AlreadyExists, Interrupted};
    let run = async |errors: &[ErrorKind], retries: u32| {
        let flaky = Flaky::new(errors.iter().copied());
        let ingest = retrying(retries).marks(Marks::new("s"), u64::to_string);
        let result = ingest.run(numbers(10), row, async |batch: &Batch<u64>| flaky.commit(batch)).await;
        (result.map(|report| report.retries).map_err(|error| error.to_string()), flaky.tries.into_inner())
    };
    let (result, tries) = run(&[Interrupted, AlreadyExists], 1).await;
    assert_eq!(result, Ok(2));
    assert_eq!(tries, [(0, 0, false), (1, 0, false), (1, 1, true), (1, 2, true)]);

    let (result, tries) = run(&[Interrupted, AlreadyExists, AlreadyExists], 9).await;
    assert!(result.unwrap_err().starts_with("batch 1 could not be committed, tried 3 times: said so"));
    assert_eq!(tries.len(), 4);
}

#[tokio::test]
async fn the_next_batch_is_extracted_while_a_commit_waits_to_be_tried_again() {
    let extracted = Cell::new(0);
    let seen = Cell::new(0);
    let stage = async |n: u64| {
        extracted.set(extracted.get() + 1);
        row(n).await
    };
    let commit = async |batch: &Batch<u64>| match (batch.number, batch.attempt) {
        (0, 0) => Err(Error::from(ErrorKind::Interrupted)),
        (0, _) => {
            seen.set(extracted.get());
            Ok(())
        }
        _ => Ok(()),
    };
    let ingest = retrying(1).retry_pauses(Duration::from_millis(20), Duration::from_secs(1));
    ingest.run(numbers(20), stage, commit).await.unwrap();
    assert_eq!(seen.get(), 10);
}

#[tokio::test]
async fn nothing_of_the_stage_is_left_when_a_commit_has_failed() {
    struct Counted<'a>(&'a Cell<i32>);
    impl<'a> Counted<'a> {
        fn new(now: &'a Cell<i32>) -> Self {
            now.set(now.get() + 1);
            Self(now)
        }
    }
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    let (now, at_failure) = (Cell::new(0), Cell::new(0));
    let stage = async |n: u64| {
        let _counted = Counted::new(&now);
        if n >= 5 {
            std::future::pending::<()>().await;
        }
        row(n).await
    };
    let commit = async |_: &Batch<u64>| {
        while now.get() < 3 {
            tokio::task::yield_now().await;
        }
        at_failure.set(now.get());
        Err(failure("no space left"))
    };
    let error = Ingest::new().concurrency(3).max_rows(5).run(numbers(100), stage, commit).await.unwrap_err();
    assert_eq!((at_failure.get(), now.get()), (3, 0));
    assert_eq!(error.uncommitted, 0..5);
}

#[tokio::test]
async fn an_ingestion_can_run_in_a_task_of_its_own() {
    let run = async {
        let ingest = Ingest::new().max_rows(3).retries(1, |_: &Error| true);
        let commit = async |batch: &Batch<u64>| {
            for _ in &batch.items {
                tokio::task::yield_now().await;
            }
            Ok::<(), Error>(())
        };
        ingest.run(numbers(10), row, commit).await.map(|report| report.items)
    };
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    assert_eq!(tokio::spawn(is_send(run)).await.unwrap().unwrap(), 10);
}
