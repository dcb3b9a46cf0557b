//! Who the server is, as it says itself. What is kept of a database belongs to one life of one server: a copy has other
//! sequences, and a server that crashed may give ids again that it gave before.

/// An SQL expression for the database that a session is in and for the server's life, as [`Identity::read`] takes it. NULL
/// where there is no telling.
///
/// A function that the role may not execute would fail the statement even if it is never called. So the cluster's identifier
/// is asked for by `ts_stat`, which runs a query that is given as text, and gives back words.
pub(crate) const SERVER_SQL: &str = "(SELECT COALESCE(
    CASE WHEN pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE') THEN (
        SELECT word FROM pg_catalog.ts_stat(
            'SELECT pg_catalog.array_to_tsvector(ARRAY[system_identifier::text]) FROM pg_catalog.pg_control_system()')) END,
    pg_catalog.host(pg_catalog.inet_server_addr()) || ':' || pg_catalog.inet_server_port(), '?')
    || ' ' || oid || ' ' || pg_catalog.encode(pg_catalog.timestamptz_send(pg_catalog.pg_postmaster_start_time()), 'hex')
    || ' ' || pg_catalog.pg_is_in_recovery() || ' ' || COALESCE(pg_catalog.encode(pg_catalog.timestamptz_send(
        pg_catalog.pg_stat_get_bgwriter_stat_reset_time()), 'hex'), '?')
    FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster's identifier, or the server's own address for a role that may not ask for it. Copies have the same.
    cluster: String,
    /// The database's oid, when the server started, and whether it is a standby: what no connection outlives but that of a
    /// standby which is promoted.
    life: String,
    /// Changes with a crash of the server that its first process outlives, but may change with a connection there.
    pub crash: String,
}

impl Identity {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (cluster, rest) = text.split_once(' ')?;
        let (life, crash) = rest.rsplit_once(' ')?;
        Some(Self { cluster: cluster.to_owned(), life: life.to_owned(), crash: crash.to_owned() })
    }

    /// One life of one database.
    pub(crate) fn key(&self) -> String {
        format!("{} {}", self.cluster, self.life)
    }

    /// The database, whatever becomes of its server.
    pub(crate) fn database(&self) -> String {
        let oid = self.life.split(' ').next().unwrap_or_default();
        format!("{} {oid}", self.cluster)
    }

    /// Whether a connection that led to this one has not been led elsewhere. Which role asks does not matter.
    pub(crate) fn is_same_life(&self, other: &Self) -> bool {
        self.life == other.life
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_read() {
        let read = |text| Identity::read(text).unwrap();
        let identity = read("7713638538974422487 5 0003046bf3da0b6c false 0003046bf3a80122");
        assert_eq!(identity.key(), "7713638538974422487 5 0003046bf3da0b6c false");
        assert_eq!(identity.database(), "7713638538974422487 5");
        assert_eq!(identity.crash, "0003046bf3a80122");
        // By a role that may not ask for the cluster's identifier.
        assert!(identity.is_same_life(&read("127.0.0.1:5432 5 0003046bf3da0b6c false 0003046bf3a80122")));
        assert!(!identity.is_same_life(&read("7713638538974422487 5 0003046bf3da0b6c true 0003046bf3a80122")));
        assert!(Identity::read("").is_none());
    }
}
