//! Commits that are tried again.

use std::fmt;
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;

use super::Batch;

/// Which commits are tried again, and when.
pub(super) struct Retry<'a, C> {
    pub(super) retries: u32,
    pub(super) is_transient: Option<IsTransient<'a, C>>,
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
}

type IsTransient<'a, C> = Box<dyn Fn(&C) -> bool + Send + Sync + 'a>;

impl<C> fmt::Debug for Retry<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("retries", &self.retries)
            .field("first_pause", &self.first_pause)
            .field("longest_pause", &self.longest_pause)
            .finish_non_exhaustive()
    }
}

impl<C> Default for Retry<'_, C> {
    fn default() -> Self {
        Self {
            retries: 0,
            is_transient: None,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl<C> Retry<'_, C> {
    /// Commits the batch, as often as it takes; its `attempt` says how often it was tried again.
    pub(super) async fn commit<U>(
        &self,
        batch: &mut Batch<U>,
        commit: &mut impl AsyncFnMut(&Batch<U>) -> Result<(), C>,
    ) -> Result<(), C> {
        let mut retries = 0;
        let mut in_doubt = false;
        loop {
            let Err(error) = commit(batch).await else { return Ok(()) };
            let is_transient = self.is_transient.as_ref().is_some_and(|is_transient| is_transient(&error));
            if is_transient {
                if retries == self.retries {
                    return Err(error);
                }
                retries += 1;
            } else if !in_doubt {
                return Err(error);
            }
            // The try that was given up may land behind the question whether it has. The next one fails on its rows then, and
            // that they are there is certain.
            in_doubt = is_transient && !batch.keys.is_empty();
            batch.attempt += 1;
            let time = if is_transient { self.pause_before(retries) } else { Duration::ZERO };
            tracing::warn!(batch = batch.number, attempt = batch.attempt, pause = ?time, "a commit failed and is tried again");
            pause(time).await;
        }
    }

    /// `retry` is counted from 1.
    fn pause_before(&self, retry: u32) -> Duration {
        let doublings = 2_u32.saturating_pow(retry - 1);
        self.first_pause.saturating_mul(doublings).min(self.longest_pause)
    }
}

/// A thread of its own sleeps, as no runtime is known here; it is needed seldom.
async fn pause(time: Duration) {
    if time.is_zero() {
        return;
    }
    let (asleep, awake) = oneshot::channel::<()>();
    let sleep = move || {
        thread::sleep(time);
        drop(asleep);
    };
    // Where there can be no thread there is no pause: the channel is closed at once.
    let _ = thread::Builder::new().name("ingest-pause".to_owned()).spawn(sleep);
    let _ = awake.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let [first, longest] = [100, 700].map(Duration::from_millis);
        let retry = Retry::<()> { first_pause: first, longest_pause: longest, ..Retry::default() };
        let pauses = [1, 2, 3, 4, 100].map(|n| retry.pause_before(n).as_millis());
        assert_eq!(pauses, [100, 200, 400, 700, 700]);
    }
}
