//! INSERTs outside of transactions that may join a group (`group.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Batch, Offer, Step};
use crate::answer::{Answer, Field, Rows};
use crate::eligible::Reason;
use crate::failure::Failure;
use crate::group::plan::{Key, Plan};
use crate::group::{self, GivenId, Joined, Pass, Place, Request, Shutdown, Terms};
use crate::ids::{Losses, Position};
use crate::recognise::{Insert, Kind, Recognised};
use crate::statement::{Binds, FIRST_OWN_OID};

/// What an INSERT outside of transactions does, on a driver that hands out another connection for each statement.
#[derive(Debug)]
pub enum Asked {
    /// It asks to join a group ([`group::join`]); then [`Batch::gave`] is told.
    Join(Box<Request>),
    /// It is sent as it is. The pass is for [`Batch::ran_outside`].
    Send(Pass),
    /// The same, and the catalog is to be read for those that follow ([`Batch::explain`]).
    ReadCatalog(Pass),
}

/// Why an INSERT does not ask to join.
pub(super) enum Refusal {
    Send(Reason),
    ReadCatalog,
}

impl Batch {
    /// The adapter of this name can do [`Step::Join`]. What groups gain is measured for each adapter.
    #[must_use]
    pub fn joins_groups(mut self, adapter: &'static str) -> Self {
        self.joins_groups = true;
        self.pace = self.site.pace(adapter);
        self
    }

    /// Whether single-row INSERTs outside of transactions are committed in groups.
    pub fn groups_commits(&self) -> bool {
        self.is_on() && self.site.options().group_commit.is_some()
    }

    /// The pass of an INSERT on a connection of the pool, outside of transactions, that could join a group, where groups take
    /// longer: then its binds are not needed.
    pub fn goes_alone(&self, recognised: &Recognised) -> Option<Pass> {
        let counters = self.site.group_counters();
        let is_so = self.is_slower_in_groups(recognised) && !counters.is_closed();
        is_so.then(|| counters.pass_by(&self.pace))
    }

    pub(super) fn is_slower_in_groups(&self, recognised: &Recognised) -> bool {
        recognised.joined.load(Ordering::Relaxed) && self.pace.goes_alone()
    }

    pub(super) fn may_join(&self) -> bool {
        self.joins_groups && self.groups_commits()
    }

    /// What an INSERT does on a connection of the pool, outside of transactions. Binds are needed.
    pub fn ask_to_join(&mut self, recognised: &Arc<Recognised>, binds: &Binds) -> Asked {
        let send = |reason| Asked::Send(Pass::because(reason));
        let Kind::Insert(insert) = &recognised.kind else { return send(Reason::NotInTransaction) };
        if !self.groups_commits() {
            return send(Reason::NotInTransaction);
        }
        if self.session.stays_unsettled || self.session.values_differ || self.session.is_tangled {
            return send(Reason::Settings);
        }
        match self.request(recognised, insert, binds) {
            Ok(request) => Asked::Join(Box::new(request)),
            Err(Refusal::Send(reason)) => send(reason),
            Err(Refusal::ReadCatalog) if self.is_catalog_unreadable() => send(Reason::CatalogUnreadable),
            Err(Refusal::ReadCatalog) => Asked::ReadCatalog(Pass::because(Reason::CatalogUnreadable)),
        }
    }

    pub(super) fn request(
        &mut self,
        recognised: &Arc<Recognised>,
        insert: &Insert,
        binds: &Binds,
    ) -> Result<Request, Refusal> {
        let send = |reason| Err(Refusal::Send(reason));
        self.guess();
        let all_options = self.site.options();
        let Some(options) = all_options.group_commit else { return send(Reason::NotInTransaction) };
        if insert.rows != 1 {
            return send(Reason::NotInTransaction);
        }
        // The catalog that all connections share, so that their inserts meet; or the one that was read for this insert.
        let just_now = |read: &&Arc<crate::catalog::Catalog>| {
            read.epoch >= self.database.epoch() && read.read_at.elapsed() < Duration::from_secs(1)
        };
        let known = self.catalog_of_login();
        let Some(catalog) = known.or_else(|| self.session.catalog.as_ref().filter(just_now).cloned()) else {
            return Err(Refusal::ReadCatalog);
        };
        if catalog.fixes_snapshot {
            return send(Reason::Snapshot);
        }
        if catalog.read_only {
            return send(Reason::ReadOnly);
        }
        let Some(table) = catalog.table(&insert.table) else { return send(Reason::Unknown) };
        let make = || Plan::make(insert, table, &catalog, &binds.types, &all_options);
        let plan = match self.site.group_plan(recognised, &binds.types, &catalog, make) {
            Ok(plan) => plan,
            Err(reason) => return send(reason),
        };
        let row = plan.row(binds).map_err(Refusal::Send)?;
        if !options.always {
            recognised.joined.store(true, Ordering::Relaxed);
        }
        let (position, losses) = match &plan.key {
            Some(Key::Id { sequence, .. }) => (self.positions.get(*sequence), self.positions.losses(*sequence)),
            _ => (Position::Start, Losses::default()),
        };
        let place =
            Place { login: Arc::clone(&self.login), catalog: Arc::as_ptr(&catalog) as usize, table: plan.table.oid };
        let (site, database) = (Arc::clone(&self.site), Arc::clone(&self.database));
        let (pace, prepared) = (Arc::clone(&self.pace), Arc::clone(&self.prepared));
        let is_known = |field: &Field| !self.built_in_types_only || field.type_oid < FIRST_OWN_OID;
        let brings_ids = plan.table.can_select && plan.fields.iter().all(is_known);
        Ok(Request {
            row,
            terms: Terms {
                site,
                database,
                place,
                plan,
                position,
                losses,
                pace,
                prepared,
                brings_ids,
                all_options,
                options,
            },
        })
    }

    /// What became of the INSERT of the last [`Step::Join`]. `keep` makes a failure of the adapter's error.
    pub fn joined<E>(&mut self, joined: Joined<Rows, E>, keep: impl FnOnce(E) -> Failure) -> Step {
        match joined {
            Joined::Row { row, id } => {
                self.offer = None;
                self.note_given(id);
                Step::Answer(Answer { count: 1, rows: row.unwrap_or_default() })
            }
            Joined::Alone(pass) => {
                if let Some(Offer::Statement { recognised, send, .. }) = &mut self.offer {
                    *send = true;
                    let recognised = Arc::clone(recognised);
                    self.note_alone(&recognised, &pass);
                }
                self.pass = Some(pass);
                self.advance()
            }
            Joined::Refused(error) => {
                self.offer = None;
                Step::Refuse(error)
            }
            Joined::Failed(error) => {
                self.offer = None;
                Step::Raise(keep(error))
            }
        }
    }

    /// A row of a pool's was committed in a group, with this id if it was reserved.
    pub fn gave(&mut self, id: Option<GivenId>) {
        self.stats.inserts_seen += 1;
        self.note_given(id);
    }

    fn note_given(&mut self, id: Option<GivenId>) {
        self.stats.inserts_grouped += 1;
        if let Some(GivenId { sequence, id, descending, losses_before }) = id {
            self.used_reserved_ids = true;
            self.positions.reach(sequence, id, descending, losses_before);
        }
    }

    pub(super) fn note_alone(&mut self, recognised: &Recognised, pass: &Pass) {
        let Kind::Insert(insert) = &recognised.kind else { return };
        self.note_sent(&insert.table.to_string(), pass.reason);
    }

    /// Takes no more inserts into groups on any connection to the database, and waits until those that are there are done or
    /// `time_is_up`: from then on INSERTs that could join a group are refused. Turning batching on again opens it again.
    pub fn shut_down_groups<R, E, T>(&self, time_is_up: T) -> impl Future<Output = Shutdown> + use<R, E, T>
    where
        R: Send + 'static,
        E: Send + 'static,
        T: Future<Output = ()>,
    {
        let groups = self.site.groups::<R, E>();
        async move { group::shutdown(&groups, time_is_up).await }
    }
}
