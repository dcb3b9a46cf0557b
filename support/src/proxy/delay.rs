//! A line that hands on bytes some time after they came, however many are on the way.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// A sleep ends late by about this much; the rest is waited for awake.
const SLEEP_ERROR: Duration = Duration::from_micros(300);
/// Chunks on the way before the sender has to wait: enough never to slow down a large message.
const CAPACITY: usize = 4096;

pub(super) struct Inlet {
    delay: Duration,
    chunks: SyncSender<(Instant, Vec<u8>)>,
}

pub(super) struct Outlet {
    chunks: Receiver<(Instant, Vec<u8>)>,
}

pub(super) fn line(delay: Duration) -> (Inlet, Outlet) {
    let (sender, receiver) = mpsc::sync_channel(CAPACITY);
    (Inlet { delay, chunks: sender }, Outlet { chunks: receiver })
}

impl Inlet {
    /// False if nobody takes bytes out any more.
    pub(super) fn send(&self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.chunks.send((Instant::now() + self.delay, bytes.to_vec())).is_ok()
    }
}

impl Outlet {
    /// Hands on the bytes as they become due, until the inlet is gone or `take` fails.
    pub(super) fn pour(self, mut take: impl FnMut(&[u8]) -> io::Result<()>) {
        for (due, bytes) in self.chunks {
            wait_until(due);
            if take(&bytes).is_err() {
                return;
            }
        }
    }
}

fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > SLEEP_ERROR {
            thread::sleep(left - SLEEP_ERROR);
        } else {
            thread::yield_now();
        }
    }
}
