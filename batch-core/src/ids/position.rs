//! Where a connection stands in each sequence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A connection's own position in each sequence: it never gets a lower id after a higher one.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    known: Vec<Known>,
    /// Where the connection stands in a sequence that is not among those.
    others: Position,
}

#[derive(Debug)]
struct Known {
    sequence: u32,
    position: Position,
    losses: Losses,
}

/// How often a connection or a pool lost its position in a sequence: what it got meanwhile is unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Arc<AtomicU64>);

impl Losses {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Position {
    /// It has no id of the sequence yet: any may come.
    #[default]
    Start,
    /// The last id that it has.
    At(i64),
    /// Postgres gave it an id that was not told. What is at hand may come from before, even if it is added later: while
    /// this connection inserted, another's reservation was on its way.
    Lost,
}

impl Position {
    /// The later of both; an id that was told is later than one that was not, if it came after it.
    fn later(self, other: Self, descending: bool) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Self::At(if descending { one.min(other) } else { one.max(other) }),
            (Self::Start | Self::Lost, later) => later,
            (at @ Self::At(_), _) => at,
        }
    }

    /// Where nobody stands who stands at one of these: later than all.
    pub(crate) fn behind(all: impl Iterator<Item = Self>, descending: bool) -> Self {
        all.fold(Self::Start, |last, next| match (last, next) {
            (Self::Lost, _) | (_, Self::Lost) => Self::Lost,
            (last, next) => last.later(next, descending),
        })
    }
}

impl Known {
    fn new(sequence: u32, position: Position) -> Self {
        Self { sequence, position, losses: Losses::default() }
    }

    fn lose(&mut self) {
        self.position = Position::Lost;
        self.losses.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Positions {
    /// A connection that stands there in one sequence.
    pub(crate) fn at(sequence: u32, position: Position) -> Self {
        Self { known: vec![Known::new(sequence, position)], others: Position::Start }
    }

    /// The connection has got this id, and may have a later one. It tells where a lost one is if it was reserved after the last
    /// loss, that is, after `losses_before` of them: in a pool others insert meanwhile, and may have got later ids.
    pub(crate) fn reach(&mut self, sequence: u32, id: i64, descending: bool, losses_before: Option<u64>) {
        let known = self.known(sequence);
        if known.position != Position::Lost || losses_before == Some(known.losses.count()) {
            known.position = known.position.later(Position::At(id), descending);
        }
    }

    pub(crate) fn losses(&mut self, sequence: u32) -> Losses {
        self.known(sequence).losses.clone()
    }

    pub(crate) fn get(&self, sequence: u32) -> Position {
        self.known.iter().find(|known| known.sequence == sequence).map_or(self.others, |known| known.position)
    }

    /// Postgres itself gave the connection ids of the sequence.
    pub(crate) fn lose(&mut self, sequence: u32) {
        self.known(sequence).lose();
    }

    pub(crate) fn lose_all(&mut self) {
        self.known.iter_mut().for_each(Known::lose);
        self.others = Position::Lost;
    }

    pub(super) fn set(&mut self, sequence: u32, position: Position) {
        self.known(sequence).position = position;
    }

    fn known(&mut self, sequence: u32) -> &mut Known {
        let at = self.known.iter().position(|known| known.sequence == sequence).unwrap_or_else(|| {
            self.known.push(Known::new(sequence, self.others));
            self.known.len() - 1
        });
        &mut self.known[at]
    }
}
