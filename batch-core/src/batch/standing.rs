//! Which database the connection leads to. It begins with that of the last connection by the same string, which is a guess:
//! what the program does is taken into account there, but nothing is answered by what is known of it. The first question
//! tells, be it for the catalog or for ids; an INSERT that needs none of these asks on its own.

use std::sync::Arc;

use super::{Batch, Running, Step};
use crate::database::{Database, lock};
use crate::identity::Identity;
use crate::reserve;
use crate::site::Site;
use crate::statement::{Query, TextRow};

/// What a connection knows of its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is most likely this one.
    Guessed,
    /// The server said so, or did not say who it is: then nobody else has the same.
    Told,
}

/// Which database a connection of a pool leads to, as its server said: a pool keeps it for as long as it has the connection, for
/// [`Batch::seated`].
#[derive(Clone, Debug)]
pub struct Seat(pub(crate) Arc<Database>);

impl PartialEq for Seat {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Batch {
    /// The question that [`Batch::of_server`] and [`Batch::told`] want the rows of.
    pub fn who() -> Query {
        reserve::who()
    }

    /// The batching of a new connection whose string is not known, by what its server answered to [`Batch::who`]: connections to
    /// one database that are made in this way are told from those that are made by a string. Where it did not say who it is,
    /// batching is turned on for this connection alone.
    pub fn of_server(rows: &[TextRow]) -> Self {
        let said = reserve::read(rows);
        let identity = said.server.as_deref().and_then(Identity::read);
        let site = match &identity {
            Some(identity) => Site::named(format!("server {}", identity.database())),
            None => Arc::default(),
        };
        let mut batch = Self::of(site, said.identity.unwrap_or_default());
        batch.meet(identity);
        batch
    }

    /// What a server answered to [`Batch::who`] on one of the pool's connections.
    pub fn told(&mut self, rows: &[TextRow]) -> Seat {
        let identity = reserve::read(rows).server.as_deref().and_then(Identity::read);
        let database = identity.map(Database::of);
        if let Some(database) = &database {
            self.site.meet(database);
        }
        Seat(database.unwrap_or_default())
    }

    /// Which database the connection leads to, once that is known.
    pub fn seat(&self) -> Option<Seat> {
        (!self.is_guessing()).then(|| Seat(Arc::clone(&self.database)))
    }

    /// The connection leads to the database of this seat, if that is known by now.
    #[must_use]
    pub fn seated(mut self, seat: Option<Seat>) -> Self {
        if let Some(Seat(database)) = seat {
            self.database = database;
            self.standing = Standing::Told;
        }
        self
    }

    pub(super) fn is_guessing(&self) -> bool {
        self.standing == Standing::Guessed
    }

    /// Goes by the best guess there is.
    pub(super) fn guess(&mut self) {
        if self.is_guessing()
            && let Some(likely) = self.site.likely()
            && !Arc::ptr_eq(&likely, &self.database)
        {
            self.database = likely;
            self.session.catalog = None;
        }
    }

    /// Asks who the server is, and no more: ids of a sequence that it is only thought to have might be another's. A BEGIN that
    /// is held back stays so, and may travel with the question for ids.
    pub(super) fn ask_who(&mut self) -> Step {
        self.running = Some(Running::Reserve);
        let mut query = Self::who();
        lock(&self.prepared).note(&mut query);
        Step::Run(query)
    }

    /// What the server says of itself in an answer; nothing, if it does not say.
    pub(super) fn meet(&mut self, identity: Option<Identity>) {
        let is_told = !self.is_guessing();
        let database = match identity {
            Some(identity) if is_told && self.database.is(&identity) => return,
            Some(identity) => Database::of(identity),
            None if is_told => return,
            None => Arc::default(),
        };
        self.standing = Standing::Told;
        self.site.meet(&database);
        if Arc::ptr_eq(&database, &self.database) {
            return;
        }
        // A pooler may lead a connection elsewhere between two transactions. What waits has ids of the server before.
        if is_told && self.has_pending() {
            self.discard_pending();
            self.transaction.is_lost = self.transaction.open;
        }
        self.database = database;
        self.session.catalog = None;
        self.session.unknown.clear();
        // Where it stands in sequences of another database says nothing.
        if is_told || self.stats.inserts_seen > 0 {
            self.positions.lose_all();
        }
    }

    /// The schema changed, in the connection's database or in any that it may lead to.
    pub(super) fn invalidate(&self) {
        self.database.invalidate();
        if self.is_guessing() {
            self.site.met().iter().for_each(|database| database.invalidate());
        }
    }
}
