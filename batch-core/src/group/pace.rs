//! Whether groups pay: INSERTs go in groups for a while and as they are for a while, and the way in which they took less time
//! is kept until the other is tried again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::database::lock;

/// How INSERTs go that could join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Together,
    Alone,
}

/// INSERTs in groups before anything is compared: what is short has ended by then.
const FIRST: u32 = 512;
/// A window ends with so many INSERTs, but is no shorter than this, and than so many of them one after the other.
const INSERTS: u32 = 256;
const SHORTEST: Duration = Duration::from_millis(15);
const IN_TURN: u32 = 8;
/// Windows of both ways in turn, before one is chosen by the best of each: in the others statements are prepared, on each connection,
/// or something else disturbs.
const CONTEST: u32 = 8;
/// Windows of the way that was chosen, before the other is tried in one: at first, and at most.
const GAP: u32 = 32;
const MAX_GAP: u32 = 128;
/// It is tried at once where INSERTs take so much longer or shorter than before: the load is another.
const CHANGE: f64 = 2.0;
/// Groups have to take so much less: what is sent as it is needs no other reason.
const GAIN: f64 = 0.97;

/// What was measured, and what follows from it.
#[derive(Debug)]
pub(crate) struct Pace {
    /// What `state` says, for those that only want to know that.
    goes_alone: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    way: Way,
    best: Way,
    /// How long an INSERT takes, lately, in the way that is best.
    time: f64,
    next: Next,
    gap: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// The first window.
    Begin,
    /// So many windows are left of a contest, and the best times of both ways.
    Contest { left: u32, together: f64, alone: f64 },
    /// So many windows of the best way are left.
    Trial(u32),
    /// This window is the trial.
    Verdict,
}

#[derive(Debug)]
struct Window {
    /// INSERTs that began earlier are those of the window before, or beside them.
    from: Instant,
    inserts: u32,
    time: Duration,
}

/// Notes how long an INSERT took that is sent as it is, once it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    pace: Arc<Pace>,
    began: Instant,
}

impl Watch {
    pub(crate) fn since(pace: &Arc<Pace>, began: Instant) -> Self {
        Self { pace: Arc::clone(pace), began }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let now = Instant::now();
        self.pace.note([now.saturating_duration_since(self.began)], now);
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { goes_alone: AtomicBool::new(false), state: Mutex::new(State::begin()) }
    }
}

impl Pace {
    /// Nothing is known.
    pub(crate) fn begin(&self) {
        *lock(&self.state) = State::begin();
        self.goes_alone.store(false, Ordering::Release);
    }

    /// Whether an INSERT that begins now had better be sent as it is.
    pub(crate) fn goes_alone(&self) -> bool {
        self.goes_alone.load(Ordering::Acquire)
    }

    /// INSERTs have ended that took so long.
    pub(crate) fn note(&self, took: impl IntoIterator<Item = Duration>, now: Instant) {
        let mut state = lock(&self.state);
        for took in took {
            state.window.note(took, now);
        }
        if state.is_over(now) {
            state.turn(now);
            self.goes_alone.store(state.way == Way::Alone, Ordering::Release);
        }
    }
}

impl Window {
    fn note(&mut self, took: Duration, now: Instant) {
        if now.checked_sub(took).is_some_and(|began| began >= self.from) {
            self.inserts += 1;
            self.time += took;
        }
    }

    fn mean(&self) -> f64 {
        self.time.as_secs_f64() / f64::from(self.inserts.max(1))
    }
}

impl State {
    fn begin() -> Self {
        let window = Window { from: Instant::now(), inserts: 0, time: Duration::ZERO };
        let (way, best) = (Way::Together, Way::Together);
        Self { way, best, time: 0.0, next: Next::Begin, gap: GAP, window }
    }

    fn is_over(&self, now: Instant) -> bool {
        let Window { from, inserts, .. } = self.window;
        let least = if matches!(self.next, Next::Begin) { FIRST } else { INSERTS };
        let long = now.saturating_duration_since(from);
        inserts >= least && long >= SHORTEST && long.as_secs_f64() >= self.window.mean() * f64::from(IN_TURN)
    }

    /// A window is over: how the INSERTs of the next go.
    fn turn(&mut self, now: Instant) {
        let time = self.window.mean();
        self.way = match self.next {
            Next::Begin => {
                self.contest();
                Way::Together
            }
            Next::Contest { left, mut together, mut alone } => {
                match self.way {
                    Way::Together => together = time.min(together),
                    Way::Alone => alone = time.min(alone),
                }
                self.next = Next::Contest { left: left - 1, together, alone };
                if left > 1 { self.way.other() } else { self.choose(together, alone) }
            }
            Next::Trial(left) => {
                let is_other = time > self.time * CHANGE || time * CHANGE < self.time;
                self.time = if is_other { time } else { (3.0 * self.time + time) / 4.0 };
                self.next = if left > 1 && !is_other { Next::Trial(left - 1) } else { Next::Verdict };
                if is_other {
                    self.gap = GAP / 2;
                }
                if matches!(self.next, Next::Verdict) { self.best.other() } else { self.best }
            }
            Next::Verdict => {
                let pays = match self.way {
                    Way::Together => time < self.time * GAIN,
                    Way::Alone => self.time > time * GAIN,
                };
                if pays {
                    self.contest()
                } else {
                    self.rest(self.gap * 2)
                }
                self.best
            }
        };
        // What is under way in the other way slows those that begin beside it.
        let from = now + Duration::from_secs_f64(time);
        self.window = Window { from, inserts: 0, time: Duration::ZERO };
    }

    fn contest(&mut self) {
        self.next = Next::Contest { left: CONTEST, together: f64::INFINITY, alone: f64::INFINITY };
    }

    fn choose(&mut self, together: f64, alone: f64) -> Way {
        let (best, time) = if together < alone * GAIN { (Way::Together, together) } else { (Way::Alone, alone) };
        self.time = time;
        tracing::debug!(?best, together, alone, "group commit: seconds that an INSERT takes");
        let gap = if best == self.best { self.gap * 2 } else { GAP };
        self.best = best;
        self.rest(gap);
        best
    }

    fn rest(&mut self, gap: u32) {
        self.gap = gap.min(MAX_GAP);
        self.next = Next::Trial(self.gap);
    }
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Together => Self::Alone,
            Self::Alone => Self::Together,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight clients that insert one row after the other for so long; how many rows went in which way, in all.
    fn run(pace: &Pace, now: &mut Instant, length: Duration, took: impl Fn(Way) -> Duration) -> (u32, u32) {
        let (mut together, mut alone) = (0, 0);
        let end = *now + length;
        while *now < end {
            let way = if pace.goes_alone() { Way::Alone } else { Way::Together };
            let took = took(way);
            *now += took;
            pace.note([took; 8], *now);
            *if way == Way::Alone { &mut alone } else { &mut together } += 8;
        }
        (together, alone)
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn micros(way: Way, together: u64, alone: u64) -> Duration {
        Duration::from_micros(match way {
            Way::Together => together,
            Way::Alone => alone,
        })
    }

    #[test]
    fn inserts_go_in_the_way_in_which_they_take_less_time() {
        let (pace, mut now) = (Pace::default(), Instant::now());
        run(&pace, &mut now, SECOND, |way| micros(way, 500, 1_000));
        let (together, alone) = run(&pace, &mut now, 3 * SECOND, |way| micros(way, 500, 1_000));
        assert!(together > 16 * alone && alone > 0, "{together} {alone}");
        // What was true is found out to be so no more, at once where the load is another.
        run(&pace, &mut now, SECOND, |way| micros(way, 1_500, 1_000));
        let (together, alone) = run(&pace, &mut now, 3 * SECOND, |way| micros(way, 1_500, 1_000));
        assert!(alone > 16 * together && together > 0, "{together} {alone}");
        run(&pace, &mut now, 15 * SECOND, |way| micros(way, 900, 1_000));
        let (together, alone) = run(&pace, &mut now, 3 * SECOND, |way| micros(way, 900, 1_000));
        assert!(together > 16 * alone, "{together} {alone}");
    }

    #[test]
    fn where_groups_gain_nothing_inserts_are_sent_as_they_are() {
        let (pace, mut now) = (Pace::default(), Instant::now());
        run(&pace, &mut now, SECOND, |_| micros(Way::Alone, 0, 1_000));
        let (together, alone) = run(&pace, &mut now, SECOND, |_| micros(Way::Alone, 0, 1_000));
        assert!(alone > 12 * together, "{together} {alone}");
    }

    #[test]
    fn the_first_go_in_groups() {
        let (pace, mut now) = (Pace::default(), Instant::now());
        let (together, alone) = run(&pace, &mut now, 60 * Duration::from_millis(1), |way| micros(way, 1_000, 1));
        assert_eq!((together, alone), (480, 0));
    }
}
