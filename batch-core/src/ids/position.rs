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
    /// this connection inserted, another's reservation was on its way. It is behind this id, if one was told before or since.
    Lost(Option<i64>),
}

impl Position {
    pub(super) fn is_lost(self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// The last id that it is known to have.
    pub(super) fn told(self) -> Option<i64> {
        match self {
            Self::Start => None,
            Self::At(id) => Some(id),
            Self::Lost(told) => told,
        }
    }

    /// The same, where nothing else is known to have been given.
    pub(crate) fn known(self) -> Self {
        self.told().map_or(Self::Start, Self::At)
    }

    /// With this id as well, which does not tell where a lost one is.
    fn with(self, id: Option<i64>, descending: bool) -> Self {
        let later = |one: i64, other: i64| if descending { one.min(other) } else { one.max(other) };
        let told = match (self.told(), id) {
            (Some(one), Some(other)) => Some(later(one, other)),
            (one, other) => one.or(other),
        };
        match self {
            Self::Lost(_) => Self::Lost(told),
            Self::Start | Self::At(_) => told.map_or(Self::Start, Self::At),
        }
    }

    /// Where one is that has turned out to be behind this id.
    pub(super) fn found(self, id: i64, descending: bool) -> Self {
        self.known().with(Some(id), descending)
    }

    /// Where nobody stands who stands at one of these: later than all.
    pub(crate) fn behind(all: impl Iterator<Item = Self>, descending: bool) -> Self {
        all.fold(Self::Start, |last, next| match next {
            Self::Lost(told) => Self::Lost(last.told()).with(told, descending),
            next => last.with(next.told(), descending),
        })
    }
}

impl Known {
    fn new(sequence: u32, position: Position) -> Self {
        Self { sequence, position, losses: Losses::default() }
    }

    fn lose(&mut self) {
        self.position = Position::Lost(self.position.told());
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
        known.position = match losses_before == Some(known.losses.count()) {
            true => known.position.found(id, descending),
            false => known.position.with(Some(id), descending),
        };
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
        self.others = Position::Lost(None);
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
