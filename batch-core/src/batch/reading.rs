//! When a connection reads the catalog, what it goes on with where it does not, and which kind of session it is for.

use std::sync::Arc;

use super::{Batch, Offer, Running, Step};
use crate::catalog::Catalog;
use crate::error::Error;
use crate::failure::Failure;
use crate::readings::{self, Turn};
use crate::recognise::{Assigns, Effects};
use crate::statement::{Purpose, Query};

impl Batch {
    /// The kind of session that this one's catalog is for, as far as is known: which reading of it is whose.
    fn reading_key(&self) -> String {
        let of_login = || match self.session.was_unsettled {
            true => None,
            false => self.database.identity_of(&self.login),
        };
        of_login().or_else(|| self.session.identity.clone()).unwrap_or_else(|| format!("login {}", self.login))
    }

    /// The catalog that all sessions of this kind share, if it is fresh, or others see to that.
    pub(super) fn shared_catalog(&self, identity: &str) -> Option<Arc<Catalog>> {
        let max_age = self.site.options().catalog_max_age;
        self.database.catalog(identity, max_age).or_else(|| {
            let is_excused = self.site.readings.excuse_age(identity);
            is_excused.then(|| self.database.catalog(identity, readings::longest_age(max_age))).flatten()
        })
    }

    /// That of sessions as the login gives them.
    pub(super) fn catalog_of_login(&self) -> Option<Arc<Catalog>> {
        self.shared_catalog(&self.database.identity_of(&self.login)?)
    }

    /// The catalog for this session, if it is at hand and fresh.
    pub(super) fn catalog(&mut self) -> Option<Arc<Catalog>> {
        self.guess();
        let is_private = self.transaction.schema_changed;
        if let Some(catalog) = &self.session.catalog
            && (is_private || catalog.epoch >= self.database.epoch())
        {
            return Some(Arc::clone(catalog));
        }
        self.session.catalog = None;
        if !is_private && !self.session.was_unsettled {
            self.session.catalog = self.catalog_of_login();
        }
        self.session.catalog.clone()
    }

    /// Where no catalog is at hand, or a newer one is wanted than that: whether to read. If not, [`Batch::catalog`] says what
    /// there is to go on with.
    pub(super) fn is_to_read(&mut self, newer: bool) -> bool {
        if self.reading.is_some() {
            return true;
        }
        let key = self.reading_key();
        let max_age = self.site.options().catalog_max_age;
        let is_private = newer || self.transaction.schema_changed;
        let turn = self.site.readings.ask(&key, |may_be_old| {
            let max_age = if may_be_old { readings::longest_age(max_age) } else { max_age };
            if is_private { None } else { self.database.catalog(&key, max_age) }
        });
        match turn {
            Turn::Read(reading) => self.reading = Some(reading),
            Turn::GoOn(catalog) => self.session.catalog = Some(catalog),
            Turn::Without => {}
        }
        self.reading.is_some()
    }

    /// Reads it for whoever turns batching on, whatever came before.
    pub(super) fn read_catalog_anyway(&mut self) -> Step {
        self.reading = Some(self.site.readings.begin(&self.reading_key()));
        self.read_catalog()
    }

    pub(super) fn read_catalog(&mut self) -> Step {
        if self.guards_catalog() {
            self.running = Some(Running::Guard);
            return Step::Run(Query::new(Purpose::Control, "SAVEPOINT batched_writes"));
        }
        self.query_catalog()
    }

    /// Whether a catalog query that fails would abort a transaction of the program, which did not ask for it.
    pub(super) fn guards_catalog(&self) -> bool {
        self.is_on_server()
    }

    /// The query failed: the program goes on without batching, until it can be read.
    pub(super) fn catalog_failed(&mut self, failure: Failure) -> Step {
        self.catalog_was_not_read();
        if self.guards_catalog() {
            let undo = "ROLLBACK TO SAVEPOINT batched_writes; RELEASE SAVEPOINT batched_writes";
            return self.unguard(undo, Some(failure));
        }
        if matches!(self.offer, Some(Offer::Enable { .. })) {
            // Whoever turns batching on wants to know of a connection that is lost.
            self.running = Some(Running::SignOfLife(failure));
            return Step::Run(Query::new(Purpose::Control, "SELECT 1"));
        }
        self.advance()
    }

    fn catalog_was_not_read(&mut self) {
        if self.reading.take().is_some_and(|reading| reading.failed()) {
            tracing::warn!("the catalog could not be read; inserts are sent one by one until it can be");
        }
    }

    /// What came makes no sense.
    pub(super) fn catalog_is_strange(&mut self, error: Error) {
        if self.reading.take().is_some_and(|reading| reading.failed()) {
            tracing::warn!(%error, "inserts are sent one by one until the catalog can be read");
        }
        self.session.catalog = None;
        if let Some(Offer::Enable { refused, .. }) = &mut self.offer {
            *refused = Some(error);
        }
    }

    /// For INSERTs outside of transactions: no connection could be had to read the catalog. It is tried again later.
    pub fn catalog_is_unreadable(&mut self) {
        let key = self.reading_key();
        if !self.site.readings.is_paused(&key) {
            self.reading = Some(self.site.readings.begin(&key));
            self.catalog_was_not_read();
        }
    }

    /// Whether it could not be read lately, for a pool, which does not read by itself.
    pub(super) fn is_catalog_unreadable(&self) -> bool {
        self.site.readings.is_paused(&self.reading_key())
    }

    /// The server said which kind of session this one is.
    pub(super) fn is_known_as(&mut self, identity: String) {
        if let Some((from, statements)) = self.session.assigned.take() {
            self.database.note_outcome(from, statements, &identity);
        }
        self.session.identity = Some(identity);
    }

    /// Settings were given values outside of a transaction. What became of that on one connection becomes of it on each: a pool
    /// that does so on each new connection is asked about once.
    pub(super) fn assign(&mut self, effects: Effects, assigns: &Assigns, by_pool: bool) {
        const LONGEST: usize = 4_096;
        if !assigns.names {
            // All that is to be known stands in it.
            return self.apply(Effects { session: false, values: true, ..effects });
        }
        if by_pool {
            // On one connection of many.
            return self.apply(effects);
        }
        let statement = &assigns.text;
        let assigned = match self.session.unsettled {
            Some(_) => self.session.assigned.take().map(|(from, before)| (from, format!("{before};{statement}"))),
            None => self.catalog().map(|catalog| (catalog.identity.clone(), statement.to_string())),
        };
        self.apply(effects);
        let Some((from, statements)) = assigned.filter(|(_, statements)| statements.len() <= LONGEST) else { return };
        match self.database.outcome(&from, &statements, self.site.options().catalog_max_age) {
            Some(identity) => {
                self.session.unsettled = None;
                self.session.catalog = self.shared_catalog(&identity);
                self.session.identity = Some(identity);
            }
            None => self.session.assigned = Some((from, statements)),
        }
    }
}
