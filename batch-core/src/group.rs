//! Group commit: concurrent single-row INSERTs outside of transactions as one statement (the options are
//! [`GroupCommit`]).
//!
//! ```text
//! caller A   INSERT …                     → alone, sent as it is
//! caller B      INSERT …  waits for A
//! caller C        INSERT …  waits for A
//!            A is done: B leads            → INSERT … SELECT unnest($1) … RETURNING …   (B's and C's rows)
//! ```
//!
//! Whoever waits is a leader as soon as there is room on the way for a group: no task and no timer of the engine's own is
//! needed. An adapter brings two things: a [`Member`], which is the caller, and a [`Leader`], which is a connection. It asks
//! the engine by [`Batch::offer`](crate::Batch::offer) or [`Batch::ask_to_join`](crate::Batch::ask_to_join), and then calls
//! [`join`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

mod pace;
pub(crate) mod plan;
mod queue;
#[cfg(test)]
mod tests;

pub(crate) use self::pace::Pace;
use self::pace::Watch;
use self::plan::{Key, Plan, Row, Sending, push_key, take_key};
use self::queue::{Again, Entry, Release, Told, Turn};
pub(crate) use self::queue::{Groups, Place};
use crate::answer::Field;
use crate::batch::{Prepared, Seat};
use crate::database::{Database, lock};
use crate::eligible::Reason;
use crate::error::Error;
use crate::ids::{Losses, Need, Position, Positions, Request as IdRequest};
use crate::options::{BatchOptions, GroupCommit};
use crate::reserve::{self, Block};
use crate::site::Site;
use crate::statement::{Query, TextRow};
use crate::stats::{Fallback, GroupStats};

/// An INSERT that may join a group.
#[derive(Debug)]
pub struct Request {
    pub(crate) row: Row,
    pub(crate) terms: Terms,
}

/// What an INSERT asks of a group, beside that it takes its row.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) site: Arc<Site>,
    pub(crate) database: Arc<Database>,
    pub(crate) place: Place,
    pub(crate) plan: Arc<Plan>,
    /// Where its connection stands in the sequence of its ids.
    pub(crate) position: Position,
    /// How often that is lost.
    pub(crate) losses: Losses,
    /// How INSERTs go with its adapter.
    pub(crate) pace: Arc<Pace>,
    /// Which statements are prepared on its connection, or on those of its pool.
    pub(crate) prepared: Arc<Mutex<Prepared>>,
    /// Ids for others may come with its row: its key may be read, and its rows be made anew without them.
    pub(crate) brings_ids: bool,
    pub(crate) all_options: Arc<BatchOptions>,
    pub(crate) options: GroupCommit,
}

/// What became of an INSERT that wanted to join a group. `R` is the adapter's row, `E` its error.
#[derive(Debug)]
pub enum Joined<R, E> {
    /// It is committed.
    Row {
        /// What `RETURNING` asked for; `None` where it asked for nothing.
        row: Option<R>,
        /// The id that it got, for [`Batch::joined`](crate::Batch::joined).
        id: Option<GivenId>,
    },
    /// It is to be sent as it is. The pass is kept until that is done.
    Alone(Pass),
    /// Nothing is sent: the engine refuses.
    Refused(Error),
    /// It failed, by its own error or by that of the connection.
    Failed(E),
}

/// An id that was reserved for a row.
#[derive(Clone, Copy, Debug)]
pub struct GivenId {
    pub(crate) sequence: u32,
    pub(crate) id: i64,
    pub(crate) descending: bool,
    /// How often the caller had lost its position before, if it was reserved for this group; one that was in stock may be
    /// older than any loss.
    pub(crate) losses_before: Option<u64>,
}

/// An INSERT that is sent alone. Others of its table may wait for it, for a while.
#[derive(Debug)]
pub struct Pass {
    flight: Option<(Arc<dyn Release>, Place, u64)>,
    since: Instant,
    /// How long it takes is told to others.
    _watch: Option<Watch>,
    /// Why it is sent alone.
    pub(crate) reason: Reason,
}

impl Pass {
    fn new(groups: Arc<dyn Release>, place: Place, flight: u64) -> Self {
        let mut pass = Self::because(Reason::Alone);
        pass.flight = Some((groups, place, flight));
        pass
    }

    /// One that nobody waits for.
    pub fn free() -> Self {
        Self::because(Reason::Alone)
    }

    /// One that nobody waits for, of an INSERT that does not join.
    pub(crate) fn because(reason: Reason) -> Self {
        Self { flight: None, since: Instant::now(), _watch: None, reason }
    }

    /// One of an INSERT that began then, which tells how long it took.
    fn watched(mut self, pace: &Arc<Pace>, began: Instant) -> Self {
        self._watch = Some(Watch::since(pace, began));
        self
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((groups, place, flight)) = self.flight.take() {
            groups.release(&place, flight, self.since.elapsed());
        }
    }
}

/// Why a group, or a statement of it, failed, as far as group commit tells failures apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection was lost: nobody knows what the server made of the statement. SQLSTATE class 08, 57P01 to 57P03, or no
    /// answer at all.
    Lost,
    /// 40001
    Serialization,
    /// 40P01
    Deadlock,
    /// 55P03
    LockTimeout,
    /// 23505
    Unique,
    /// Any other.
    Other,
}

impl Failure {
    /// By Postgres' code (Appendix A of its manual).
    pub fn of_sqlstate(code: &str) -> Self {
        match code {
            "57P01" | "57P02" | "57P03" => Self::Lost,
            _ if code.starts_with("08") => Self::Lost,
            "40001" => Self::Serialization,
            "40P01" => Self::Deadlock,
            "55P03" => Self::LockTimeout,
            "23505" => Self::Unique,
            _ => Self::Other,
        }
    }
}

/// A caller that may join a group.
pub trait Member: Send {
    /// The adapter's row.
    type Row: Send + 'static;
    /// The ORM's or driver's error.
    type Error: Send + 'static;

    /// Waits for so long.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send;

    /// Has the group sent ([`Group::send`]) on the caller's connection, or on one of its pool, and waits for it: on a runtime of
    /// one thread nobody else may see to it. By a task, where there are any, so that it goes on if the caller is dropped.
    fn lead(&mut self, group: Group<Self::Row, Self::Error>) -> impl Future<Output = ()> + Send;
}

/// Rows, and the text that came with them.
pub type RowsAndIds<R> = (Vec<R>, Option<String>);

/// A connection on which a group is sent, outside of a transaction.
pub trait Leader: Send {
    /// The adapter's row.
    type Row: Send + 'static;
    /// The ORM's or driver's error.
    type Error: Send + 'static;

    /// Whether it can go on after its connection was lost, on another: a pool.
    const RECONNECTS: bool;

    /// Whether it may send another group, for others, when one is done: only where it runs without anybody who waits for it,
    /// and where nobody waits for the connection.
    fn goes_on(&self) -> bool {
        false
    }

    /// Whether its connection leads to this database. Only one that [reconnects](Leader::RECONNECTS) may not know.
    ///
    /// # Errors
    ///
    /// Where the server could not be asked.
    fn is_at(&mut self, seat: &Seat) -> impl Future<Output = Result<bool, Self::Error>> + Send {
        let _ = seat;
        async { Ok(true) }
    }

    /// Runs a question of the engine.
    fn ask(&mut self, query: &Query) -> impl Future<Output = Result<Vec<TextRow>, Self::Error>> + Send;

    /// Runs a statement whose rows, of these columns in binary format, are the callers'.
    fn rows(
        &mut self,
        query: &Query,
        fields: &Arc<[Field]>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Self::Error>> + Send;

    /// The same for a statement whose rows have one column more, of text: the rows without it, and its value in the one row that
    /// has one.
    fn rows_and_ids(
        &mut self,
        query: &Query,
        fields: &Arc<[Field]>,
    ) -> impl Future<Output = Result<RowsAndIds<Self::Row>, Self::Error>> + Send;

    /// A value of a row in Postgres' binary format; `None` is NULL.
    fn value(row: &Self::Row, column: usize) -> Option<&[u8]>;

    /// What kind of error it is.
    fn failure(error: &Self::Error) -> Failure;

    /// An error that says that the connection was lost, for callers beside the one whose error that was.
    fn lost(error: Error) -> Self::Error;

    /// Waits for so long.
    fn sleep(time: Duration) -> impl Future<Output = ()> + Send;
}

/// Joins the INSERT with others of its table that are made at the same time, or says that it is to be sent alone.
///
/// If the future is dropped while the INSERT waits, it is not sent; if it is on its way by then, it may be in.
pub async fn join<M: Member>(member: &mut M, request: Request) -> Joined<M::Row, M::Error> {
    let groups = request.terms.site.groups::<M::Row, M::Error>();
    groups.counters.note(|stats| stats.inserts += 1);
    let pause = {
        let mut line = Line { groups: &groups, ticket: None };
        match poll_fn(|cx| groups.ask_for_room(&request, &mut line.ticket, cx)).await {
            Ok(pause) => pause,
            Err(error) => return Joined::Refused(error),
        }
    };
    let patience = request.terms.options.lock_timeout;
    let waiting = Waiting { entry: groups.enter(request), groups: &groups };
    if !pause.is_zero() {
        groups.counters.note(|stats| stats.slowed += 1);
        M::sleep(pause).await;
    }
    loop {
        let turn = {
            let mut timer = pin!(M::sleep(patience));
            let poll = poll_fn(|cx| match groups.poll(&waiting.entry, cx) {
                Poll::Ready(turn) => Poll::Ready(Some(turn)),
                Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
            });
            poll.await
        };
        match turn {
            Some(Turn::Done(Joined::Alone(pass))) => {
                return Joined::Alone(pass.watched(&waiting.entry.terms.pace, waiting.entry.since()));
            }
            Some(Turn::Done(joined)) => return joined,
            Some(Turn::Lead(group)) => member.lead(group).await,
            // Whatever was waited for may have taken too long to wait for it any longer.
            None => {}
        }
    }
}

/// A caller in the line for room.
struct Line<'a, R, E> {
    groups: &'a Groups<R, E>,
    ticket: Option<u64>,
}

impl<R, E> Drop for Line<'_, R, E> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.groups.leave_line(&mut self.ticket);
        }
    }
}

/// A caller whose INSERT is in the queue.
struct Waiting<'a, R, E> {
    groups: &'a Groups<R, E>,
    entry: Arc<Entry<R, E>>,
}

impl<R, E> Drop for Waiting<'_, R, E> {
    fn drop(&mut self) {
        self.groups.abandon(&self.entry);
    }
}

impl Terms {
    /// Whether an id is in stock: then it has to be used, as what Postgres assigns would be higher, and the stock be lost. Where the
    /// caller's position is not known, that costs a question, once.
    fn has_id_at_hand(&self) -> bool {
        let Some(Key::Id { sequence, descending, .. }) = &self.plan.key else { return false };
        let need = need(*sequence, *descending, 1);
        lock(&self.database.stock).has_any(&need, &Positions::at(*sequence, self.position.known()))
    }
}

fn need(sequence: u32, descending: bool, count: usize) -> Need {
    Need { must_know: true, ..Need::likely(sequence, descending, count) }
}

/// INSERTs that are sent as one statement.
#[derive(Debug)]
pub struct Group<R, E>
where
    R: Send + 'static,
    E: Send + 'static,
{
    groups: Arc<Groups<R, E>>,
    flight: u64,
    since: Instant,
    leader: Arc<Entry<R, E>>,
    members: Vec<queue::Member<R, E>>,
    /// How often it was sent again.
    tries: u32,
    /// The statement may be under way, or was when the connection was lost.
    is_uncertain: bool,
    /// Rows of which a key is taken are left out, and sent on their own.
    leaves_out: bool,
    /// Parts of a group that failed, which are sent after what is in `members`.
    later: Vec<Vec<queue::Member<R, E>>>,
    /// Members who have their result. They are woken after whoever sends the next group, or a group would wait until the last
    /// of them is back with its next INSERT.
    told: Told,
}

/// How long a group waits that is sent again, doubled each time up to [`MAX_PAUSE`]: a server may be starting, and of a
/// deadlock's two parties the other one has to be first.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

impl<R: Send + 'static, E: Send + 'static> Group<R, E> {
    fn new(groups: &Arc<Groups<R, E>>, leader: &Arc<Entry<R, E>>, flight: u64, entries: Vec<Arc<Entry<R, E>>>) -> Self {
        let members = entries.into_iter().map(member).collect();
        Self::again(groups, leader, flight, Again { members, tries: 0, is_uncertain: false })
    }

    fn again(groups: &Arc<Groups<R, E>>, leader: &Arc<Entry<R, E>>, flight: u64, again: Again<R, E>) -> Self {
        let Again { members, tries, is_uncertain } = again;
        let (groups, leader) = (Arc::clone(groups), Arc::clone(leader));
        Self {
            groups,
            flight,
            since: Instant::now(),
            leader,
            members,
            tries,
            is_uncertain,
            leaves_out: false,
            later: Vec::new(),
            told: Told::default(),
        }
    }

    fn len(&self) -> usize {
        self.members.len()
    }

    /// What is alone may wait for a lock as it would have.
    fn is_single(&self) -> bool {
        self.len() == 1 && !self.options().always
    }

    fn plan(&self) -> &Arc<Plan> {
        // All members have the same one; a group that has none is done.
        self.members.first().map_or(&self.leader.terms.plan, |member| &member.entry.terms.plan)
    }

    fn options(&self) -> &GroupCommit {
        &self.leader.terms.options
    }

    /// Sends the group and gives every member its result; then what waits by then, if the leader goes on.
    pub async fn send<L: Leader<Row = R, Error = E>>(mut self, leader: &mut L) {
        loop {
            self.send_once(leader).await;
            while let Some(part) = self.later.pop() {
                drop(std::mem::take(&mut self.told));
                self.members = part;
                self.tries = 0;
                self.is_uncertain = false;
                self.send_once(leader).await;
            }
            if !leader.goes_on() || !self.follow() {
                return;
            }
        }
    }

    /// Takes those that wait into another group, in the place of this one, which is done.
    fn follow(&mut self) -> bool {
        let place = &self.leader.terms.place;
        let Some(entries) = self.groups.take_next(place, self.flight, self.since.elapsed()) else { return false };
        self.since = Instant::now();
        self.leader = Arc::clone(&entries[0]);
        self.members = entries.into_iter().map(member).collect();
        self.tries = 0;
        self.is_uncertain = false;
        self.leaves_out = false;
        self.told = Told::default();
        true
    }

    async fn send_once<L: Leader<Row = R, Error = E>>(&mut self, leader: &mut L) {
        let plan = Arc::clone(self.plan());
        let span = tracing::debug_span!("group", table = %plan.table.full_name(), rows = self.len());
        loop {
            match leader.is_at(&Seat(Arc::clone(&self.leader.terms.database))).await {
                Ok(true) => {}
                // A group is for one database, and goes to no other.
                Ok(false) if self.is_uncertain => {
                    let error = L::lost(Error::outcome_unknown(&plan.table.full_name()));
                    return self.fail_all::<L>(error);
                }
                Ok(false) => return self.fall_back(Fallback::Lost),
                Err(error) if L::failure(&error) == Failure::Lost => match self.after_loss::<L>(error).await {
                    true => continue,
                    false => return,
                },
                Err(_) => return self.fall_back(Fallback::Error),
            }
            let refill = match self.reserve(leader).await {
                Ok(refill) => refill,
                // Nothing of the group was sent.
                Err(Some(error)) if L::failure(&error) == Failure::Lost => match self.after_loss::<L>(error).await {
                    true => continue,
                    false => return,
                },
                Err(Some(_)) => return self.fall_back(Fallback::Ids),
                Err(None) => {
                    self.leave_out_those_without_ids();
                    if self.members.is_empty() {
                        return;
                    }
                    None
                }
            };
            // What may be in already has its own keys taken.
            self.leaves_out = (self.leaves_out || plan.is_careful()) && plan.can_leave_out() && !self.is_uncertain;
            let was_uncertain = std::mem::replace(&mut self.is_uncertain, true);
            self.groups.counters.note(|stats| stats.statements += 1);
            let error = match self.run(leader, &plan, refill).await {
                Ok(rows) => return span.in_scope(|| self.deliver::<L>(&plan, rows)),
                Err(error) => error,
            };
            let failure = L::failure(&error);
            if failure == Failure::Lost {
                match self.after_loss::<L>(error).await {
                    true => continue,
                    false => return,
                }
            }
            self.is_uncertain = was_uncertain;
            let passes = matches!(failure, Failure::Serialization | Failure::Deadlock);
            if passes && self.tries < self.options().retries {
                self.pause::<L>().await;
                continue;
            }
            if !was_uncertain {
                if failure == Failure::Unique && plan.can_leave_out() && !self.leaves_out {
                    plan.met_taken_key();
                    self.leaves_out = true;
                    continue;
                }
                // Each part would wait as long for the same lock.
                let waited = matches!(failure, Failure::LockTimeout) || passes;
                if waited || !self.halve() {
                    return self.fall_back(failure.into());
                }
                continue;
            }
            // It may be in already: with the same keys, nothing gets in twice.
            if !self.one_by_one(leader, &plan).await {
                return;
            }
        }
    }

    /// Runs the statement, and lays in the ids that come with its rows.
    async fn run<L: Leader<Row = R, Error = E>>(
        &mut self,
        leader: &mut L,
        plan: &Plan,
        refill: Option<IdRequest>,
    ) -> Result<Vec<R>, E> {
        let query = self.query(plan, refill.as_ref());
        let fields = plan.fields(self.leaves_out && !self.is_single());
        let Some(request) = refill else { return leader.rows(&query, fields).await };
        let (rows, ids) = leader.rows_and_ids(&query, fields).await?;
        self.arrived(&request, reserve::block(request.sequence, &ids.unwrap_or_default()));
        Ok(rows)
    }

    fn arrived(&self, request: &IdRequest, block: Option<Block>) {
        let Some(block) = block else { return };
        self.groups.counters.note(|stats| stats.ids_reserved += block.ids.len() as u64);
        let database = &self.leader.terms.database;
        lock(&database.stock).arrived(request, &block, &mut Positions::at(request.sequence, Position::Start));
    }

    /// Reserves ids for the rows that have none yet, and says which are to come with them for later groups. The error is that of
    /// the question, or none where some are left without, as the sequence has few left.
    async fn reserve<L: Leader<Row = R, Error = E>>(&mut self, leader: &mut L) -> Result<Option<IdRequest>, Option<E>> {
        let plan = Arc::clone(self.plan());
        let Some(Key::Id { sequence, descending, .. }) = &plan.key else { return Ok(None) };
        let without = self.members.iter().filter(|member| member.id.is_none());
        let losses: Vec<u64> = without.map(|member| member.entry.terms.losses.count()).collect();
        let count = losses.len();
        if count == 0 {
            return Ok(None);
        }
        let database = Arc::clone(&self.leader.terms.database);
        let bounds = self.leader.terms.all_options.id_bounds();
        let need = need(*sequence, *descending, count);
        let position = Position::behind(self.members.iter().map(|m| m.entry.terms.position), *descending);
        let mut positions = Positions::at(*sequence, position);
        let mut ids = Vec::with_capacity(count);
        let request = {
            let mut stock = lock(&database.stock);
            stock.wants(&need, &positions, bounds);
            let has_them = stock.take(&[need], &mut positions, &mut ids);
            (!has_them).then(|| stock.request_for_group(&need, &positions, bounds))
        };
        // Ids behind this one nobody can have been given before now.
        let mut new_after = None;
        if let Some(request) = request {
            self.groups.counters.note(|stats| stats.reservations += 1);
            let rows = leader.ask(&reserve::query(std::slice::from_ref(&request))).await.map_err(Some)?;
            let blocks = reserve::read(&rows).blocks;
            let reserved = blocks.iter().map(|block| block.ids.len() as u64).sum::<u64>();
            self.groups.counters.note(|stats| stats.ids_reserved += reserved);
            // Under one lock, or another group takes what this one has asked for.
            let mut stock = lock(&database.stock);
            for block in &blocks {
                stock.arrived(&request, block, &mut positions);
                new_after = match (position, positions.get(*sequence)) {
                    (Position::Lost(_), Position::At(after)) => Some(after),
                    _ => block.ids.first().map(|first| first.saturating_sub(block.step)),
                };
            }
            stock.take_some(&need, &mut positions, &mut ids);
        }
        let brings_ids = self.leader.terms.brings_ids;
        let refill = brings_ids.then(|| lock(&database.stock).refill_for_group(&need, &positions, bounds));
        self.groups.counters.note(|stats| stats.ids_used += ids.len() as u64);
        let is_new = |id: i64| new_after.is_some_and(|after| if *descending { id < after } else { id > after });
        let without = self.members.iter_mut().filter(|member| member.id.is_none());
        for ((member, id), losses) in without.zip(ids).zip(losses) {
            if plan.set_id(&mut member.row, id) {
                let losses_before = is_new(id).then_some(losses);
                member.id = Some(GivenId { sequence: *sequence, id, descending: *descending, losses_before });
            }
        }
        if self.members.iter().all(|member| member.id.is_some()) { Ok(refill.flatten()) } else { Err(None) }
    }

    fn query(&self, plan: &Plan, refill: Option<&IdRequest>) -> Query {
        let mut query = match self.members.as_slice() {
            [only] if self.is_single() => plan.one(&only.row, refill),
            members => {
                let rows: Vec<&Row> = members.iter().map(|member| &member.row).collect();
                let lock_timeout = self.options().lock_timeout.as_millis();
                plan.many(&rows, Sending { lock_timeout, leaves_out: self.leaves_out, refill })
            }
        };
        lock(&self.leader.terms.prepared).note(&mut query);
        query
    }

    /// Gives every member its row. Those that were left out are sent on their own.
    fn deliver<L: Leader<Row = R, Error = E>>(&mut self, plan: &Plan, rows: Vec<R>) {
        let leaves_out = self.leaves_out && !self.is_single();
        let asks_nothing = plan.fields.is_empty();
        let mut answer = Answered::<L>::new(plan, rows);
        let members = std::mem::take(&mut self.members);
        let mut missing = 0;
        let told: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(at, member)| {
                let mut row = |asked: bool| {
                    if asked { answer.take(at, member.row.key.as_deref().unwrap_or_default()) } else { None }
                };
                let joined = match row(leaves_out || !asks_nothing) {
                    row if asks_nothing && (!leaves_out || row.is_some()) => Joined::Row { row: None, id: member.id },
                    Some(row) => Joined::Row { row: Some(row), id: member.id },
                    None if leaves_out => {
                        missing += 1;
                        Joined::Alone(Pass::because(Reason::GroupFailed))
                    }
                    None => Joined::Refused(Error::lost()),
                };
                (&*member.entry, joined)
            })
            .collect();
        if missing > 0 {
            plan.met_taken_key();
        }
        let count = members.len() as u64;
        self.groups.counters.note(|stats| {
            stats.groups += 1;
            stats.rows += count - missing;
            stats.rows_fallen_back += missing;
            stats.largest_group = stats.largest_group.max(count);
        });
        self.told = self.groups.settle_all(told);
    }

    /// Two halves of the group are sent instead of it, one after the other; `false` where each would be a row or two.
    fn halve(&mut self) -> bool {
        const FEW: usize = 3;
        if self.len() <= FEW {
            return false;
        }
        let half = self.members.split_off(self.members.len() / 2);
        self.later.push(half);
        self.tries = 0;
        self.groups.counters.note(|stats| stats.halved += 1);
        true
    }

    /// Those for whom there is no id are sent on their own, and the others together.
    fn leave_out_those_without_ids(&mut self) {
        let (with, without) = std::mem::take(&mut self.members).into_iter().partition(|member| member.id.is_some());
        self.members = without;
        self.fall_back(Fallback::Ids);
        self.members = with;
    }

    /// The group is undone: each of its inserts is sent on its own.
    fn fall_back(&mut self, cause: Fallback) {
        if self.members.is_empty() {
            return;
        }
        let rows = self.len() as u64;
        self.groups.counters.note(|stats| {
            *stats.fallbacks.entry(cause).or_default() += 1;
            stats.rows_fallen_back += rows;
        });
        tracing::debug!(rows, %cause, "a group failed; its inserts are sent one by one");
        let members = std::mem::take(&mut self.members);
        let alone = || Joined::Alone(Pass::because(Reason::GroupFailed));
        self.told = self.groups.settle_all(members.iter().map(|member| (&*member.entry, alone())));
    }

    /// The connection was lost. Whether the group is to be sent again here; if not, others do it, or all have an error.
    async fn after_loss<L: Leader<Row = R, Error = E>>(&mut self, error: E) -> bool {
        let may_repeat = !self.is_uncertain || self.plan().repeats();
        if may_repeat && self.tries < self.options().retries {
            if L::RECONNECTS {
                self.pause::<L>().await;
                return true;
            }
            self.count_try();
            let members = std::mem::take(&mut self.members);
            let again = Again { members, tries: self.tries, is_uncertain: self.is_uncertain };
            let place = self.leader.terms.place.clone();
            match self.groups.hand_over(&place, &self.leader, again) {
                Ok(()) => return false,
                Err(again) => self.members = again.members,
            }
        }
        match self.is_uncertain {
            true => self.fail_all::<L>(error),
            // Nothing was sent.
            false => self.fall_back(Fallback::Lost),
        }
        false
    }

    fn count_try(&mut self) {
        self.tries += 1;
        self.groups.counters.note(|stats| stats.retries += 1);
    }

    /// Before the group is sent again.
    async fn pause<L: Leader<Row = R, Error = E>>(&mut self) {
        L::sleep(PAUSE.saturating_mul(2_u32.saturating_pow(self.tries)).min(MAX_PAUSE)).await;
        self.count_try();
    }

    /// Whoever led has the error as it came, if it is still there.
    fn fail_all<L: Leader<Row = R, Error = E>>(&mut self, error: E) {
        let leader = self.members.iter().position(|member| Arc::ptr_eq(&member.entry, &self.leader));
        let mut error = Some(error);
        let members = self.members.drain(..).enumerate();
        for (at, member) in members {
            let own = if leader.unwrap_or(0) == at { error.take() } else { None };
            let table = member.entry.terms.plan.table.full_name();
            let error = own.unwrap_or_else(|| L::lost(Error::outcome_unknown(&table)));
            self.groups.settle(&member.entry, Joined::Failed(error));
        }
    }

    /// Sends the rows of a group that may be in already, each with the key that it had. Whether some are left to be sent
    /// again, after another loss.
    async fn one_by_one<L: Leader<Row = R, Error = E>>(&mut self, leader: &mut L, plan: &Plan) -> bool {
        while let Some(member) = self.members.first() {
            self.groups.counters.note(|stats| stats.statements += 1);
            let result = leader.rows(&plan.one(&member.row, None), &plan.fields).await;
            let result = match result {
                Err(error) if L::failure(&error) == Failure::Unique => {
                    match find(leader, plan, &member.row).await {
                        Ok(Some(row)) => Ok(row),
                        // Another unique key is taken.
                        Ok(None) => Err(error),
                        Err(error) => Err(error),
                    }
                }
                Ok(rows) => Ok(rows.into_iter().next()),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if L::failure(&error) == Failure::Lost => return self.after_loss::<L>(error).await,
                result => {
                    let member = self.members.remove(0);
                    // The others have not been tried in vain.
                    self.tries = 0;
                    let joined = match result {
                        Ok(row) => Joined::Row { row, id: member.id },
                        Err(error) => Joined::Failed(error),
                    };
                    if matches!(joined, Joined::Row { .. }) {
                        self.groups.counters.note(|stats| stats.rows += 1);
                    }
                    self.groups.settle(&member.entry, joined);
                }
            }
        }
        false
    }
}

/// Looks for a row by its key. The row, if it is in, is `None` inside where nothing is asked for.
async fn find<L: Leader>(leader: &mut L, plan: &Plan, row: &Row) -> Result<Option<Option<L::Row>>, L::Error> {
    let Some(query) = plan.found(&[row]) else { return Ok(None) };
    if plan.fields.is_empty() {
        let found = leader.ask(&query).await?;
        return Ok((!found.is_empty()).then_some(None));
    }
    let rows = leader.rows(&query, &plan.fields).await?;
    Ok(rows.into_iter().next().map(Some))
}

fn member<R, E>(entry: Arc<Entry<R, E>>) -> queue::Member<R, E> {
    queue::Member { row: entry.take_row(), entry, id: None }
}

/// The rows of an answer, which are found by their keys.
struct Answered<'a, L: Leader> {
    plan: &'a Plan,
    rows: Vec<Option<L::Row>>,
    /// Where the row of a key is, in the order of the keys; made if one of them is not where it was likely to be.
    by_key: Option<Vec<(Vec<u8>, usize)>>,
}

impl<'a, L: Leader> Answered<'a, L> {
    fn new(plan: &'a Plan, rows: Vec<L::Row>) -> Self {
        Self { plan, rows: rows.into_iter().map(Some).collect(), by_key: None }
    }

    /// The row that has this key. `likely` is where it is if the rows came in the order in which they were sent, which
    /// nobody promises.
    fn take(&mut self, likely: usize, key: &[u8]) -> Option<L::Row> {
        let plan = self.plan;
        let likely = self.rows.get_mut(likely);
        if let Some(row) = likely.and_then(|row| row.take_if(|row| has_key::<L>(plan, row, key))) {
            return Some(row);
        }
        let by_key = self.by_key.get_or_insert_with(|| {
            let rows = self.rows.iter().enumerate();
            let mut by_key: Vec<_> =
                rows.filter_map(|(at, row)| Some((row_key::<L>(plan, row.as_ref()?), at))).collect();
            by_key.sort();
            by_key
        });
        let found = by_key.binary_search_by(|(other, _)| other.as_slice().cmp(key)).ok()?;
        self.rows[by_key[found].1].take()
    }
}

fn row_key<L: Leader>(plan: &Plan, row: &L::Row) -> Vec<u8> {
    let mut key = Vec::new();
    for &at in &plan.key_output {
        push_key(&mut key, L::value(row, at).unwrap_or_default());
    }
    key
}

fn has_key<L: Leader>(plan: &Plan, row: &L::Row, key: &[u8]) -> bool {
    let rest = plan.key_output.iter().try_fold(key, |key, &at| take_key(key, L::value(row, at).unwrap_or_default()));
    rest.is_some_and(<[u8]>::is_empty)
}

impl<R: Send + 'static, E: Send + 'static> Drop for Group<R, E> {
    fn drop(&mut self) {
        // The task that sent it was stopped, or has panicked.
        if self.is_uncertain {
            for member in self.members.drain(..) {
                let table = member.entry.terms.plan.table.full_name();
                self.groups.settle(&member.entry, Joined::Refused(Error::outcome_unknown(&table)));
            }
        } else {
            self.fall_back(Fallback::Cancelled);
        }
        // Nothing of these was sent, or Postgres undid it.
        while let Some(part) = self.later.pop() {
            self.members = part;
            self.fall_back(Fallback::Cancelled);
        }
        Release::release(&*self.groups, &self.leader.terms.place, self.flight, self.since.elapsed());
        // And then those who are told are woken, as the group's parts are dropped after it.
    }
}

impl From<Failure> for Fallback {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Serialization => Self::Serialization,
            Failure::Deadlock => Self::Deadlock,
            Failure::LockTimeout => Self::LockTimeout,
            Failure::Lost | Failure::Unique | Failure::Other => Self::Error,
        }
    }
}

/// What all groups of a database count, and whether they take more.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    stats: Mutex<GroupStats>,
    closed: AtomicBool,
}

impl Counters {
    pub(crate) fn stats(&self) -> GroupStats {
        lock(&self.stats).clone()
    }

    fn note(&self, change: impl FnOnce(&mut GroupStats)) {
        let mut stats = lock(&self.stats);
        #[cfg(feature = "metrics")]
        let before = stats.clone();
        change(&mut stats);
        #[cfg(feature = "metrics")]
        crate::stats::emit(&before, &stats);
    }

    fn note_held(&self, depth: u64, times: &[Duration]) {
        self.note(|stats| {
            stats.depth = depth;
            stats.time_queued += times.iter().sum::<Duration>();
        });
        #[cfg(feature = "metrics")]
        times.iter().copied().for_each(crate::stats::emit_held);
    }

    /// The pass of an INSERT that could join a group and is sent as it is, as groups take longer.
    pub(crate) fn pass_by(&self, pace: &Arc<Pace>) -> Pass {
        self.note(|stats| {
            stats.inserts += 1;
            stats.alone += 1;
        });
        Pass::because(Reason::GroupsAreSlower).watched(pace, Instant::now())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn open(&self) {
        self.closed.store(false, Ordering::Release);
    }
}

/// What a shutdown of group commit left undone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Inserts by table that were still queued when the time was up: nothing of them was sent, and their callers have an
    /// error that says so.
    pub unsent: Vec<(String, usize)>,
    /// Inserts by table that were on their way when the time was up: their callers are told when it is known.
    pub under_way: Vec<(String, usize)>,
}

impl Shutdown {
    /// Whether everything was done.
    pub fn is_complete(&self) -> bool {
        self.unsent.is_empty() && self.under_way.is_empty()
    }
}

/// Takes no more inserts into groups and waits for those that are there until `time_is_up`. Opened again by turning batching
/// on again.
pub(crate) async fn shutdown<R, E>(groups: &Groups<R, E>, time_is_up: impl Future<Output = ()>) -> Shutdown {
    groups.counters.closed.store(true, Ordering::Release);
    let mut time_is_up = pin!(time_is_up);
    let is_done = poll_fn(|cx| match groups.poll_idle(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending => time_is_up.as_mut().poll(cx).map(|()| false),
    })
    .await;
    if is_done {
        return Shutdown::default();
    }
    groups.give_up()
}
