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
    fn take(&self, batch: Batch<u64>) {
        self.0.borrow_mut().push(batch.items);
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
        let commit = async |batch| {
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
    let commit = async |batch: Batch<u64>| {
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
    let commit = async |_| {
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
    let commit = async |batch: Batch<u64>| {
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
    let commit = async |batch| {
        sink.take(batch);
        Ok::<(), Error>(())
    };
    let error = Ingest::new().max_rows(5).run(source, row, commit).await.unwrap_err();
    assert_eq!(sink.all(), (0..7).collect::<Vec<_>>());
    assert_eq!(error.to_string(), "item 7 of the source failed: cut off; all items before it are committed");

    let sink = Sink::default();
    let commit = async |batch| {
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
    let commit = async |batch| {
        sink.take(batch);
        Ok::<(), Error>(())
    };
    let report = Ingest::new().max_bad(4).run(numbers(10), stage, commit).await.unwrap();
    assert_eq!(sink.all(), [1, 2, 4, 5, 7, 8]);
    let bad: Vec<_> = report.bad.iter().map(|bad| (bad.position, bad.reason.as_str())).collect();
    assert_eq!(bad, [(0, "0 is a multiple"), (3, "3 is a multiple"), (6, "6 is a multiple"), (9, "9 is a multiple")]);

    let sink = Sink::default();
    let commit = async |batch| {
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
    let commit = async |batch: Batch<u64>| {
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
    let commit = async |batch: Batch<u64>| {
        told.borrow_mut().push((batch.first, batch.last));
        Ok::<(), Error>(())
    };
    ingest.run(numbers(10), row, commit).await.unwrap();
    assert_eq!(*told.borrow(), [(0, 3), (4, 7), (8, 9)]);
    assert_eq!(*events.lock().unwrap(), [(0, 4, 3), (1, 4, 7), (2, 2, 9)]);
}

#[tokio::test]
async fn an_ingestion_can_run_in_a_task_of_its_own() {
    let run = async {
        let ingest = Ingest::new().max_rows(3);
        ingest.run(numbers(10), row, async |_| Ok::<(), Error>(())).await.map(|report| report.items)
    };
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    assert_eq!(tokio::spawn(is_send(run)).await.unwrap().unwrap(), 10);
}
