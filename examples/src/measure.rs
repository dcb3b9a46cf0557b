//! What a piece of work cost.

use std::time::{Duration, Instant};

use batch_support::{Proxy, Wire};

/// Time passed and what went over the wire meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// By the wall clock.
    pub time: Duration,
    /// By the proxy's count.
    pub wire: Wire,
}

/// Runs `work`, which talks to Postgres through `proxy` and nobody else does.
///
/// # Errors
///
/// Those of `work`.
pub fn measure<T, E>(proxy: &Proxy, work: impl FnOnce() -> Result<T, E>) -> Result<(T, Cost), E> {
    proxy.reset();
    let start = Instant::now();
    let done = work()?;
    let time = start.elapsed();
    Ok((done, Cost { time, wire: proxy.wire() }))
}
