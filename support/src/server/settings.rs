use std::{env, fmt};

use crate::Error;

/// What the environment asks for, and the program.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) database_url: Option<String>,
    /// `BATCH_TEST_POSTGRES`. Defaults to the first way that works.
    pub(super) forced: Option<Way>,
    /// `BATCH_TEST_POSTGRES_TAG`, the tag of the image `postgres`. Defaults to `17-alpine`.
    pub(super) tag: String,
    /// `BATCH_TEST_POSTGRES_MEMORY`: a server that is started here has its files in memory, but for one that has to keep them.
    pub(super) memory: bool,
    /// Whether a server that is started here has to keep its data if the machine fails.
    pub(super) durable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Url,
    Container,
    Cluster,
    Embedded,
}

impl Settings {
    pub(super) fn read(durable: bool) -> Result<Settings, Error> {
        let forced = match variable("BATCH_TEST_POSTGRES") {
            Some(name) => Some(Way::named(&name)?),
            None => None,
        };
        Ok(Settings {
            database_url: variable("DATABASE_URL"),
            forced,
            tag: variable("BATCH_TEST_POSTGRES_TAG").unwrap_or_else(|| "17-alpine".to_owned()),
            memory: in_memory() && !durable,
            durable,
        })
    }

    /// What `fsync` and `full_page_writes` are.
    pub(super) fn fsync(&self) -> &'static str {
        if self.durable { "on" } else { "off" }
    }
}

impl Way {
    /// In the order in which they are tried.
    pub(super) const ALL: [Way; 4] = [Way::Url, Way::Container, Way::Cluster, Way::Embedded];

    fn named(name: &str) -> Result<Way, Error> {
        Way::ALL.into_iter().find(|way| way.to_string() == name).ok_or_else(|| {
            Error::new(format!("BATCH_TEST_POSTGRES is url, container, cluster or embedded, not {name:?}"))
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Url => "url",
            Way::Container => "container",
            Way::Cluster => "cluster",
            Way::Embedded => "embedded",
        })
    }
}

pub(super) fn in_memory() -> bool {
    variable("BATCH_TEST_POSTGRES_MEMORY").is_some()
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_named_as_it_is_shown() {
        assert_eq!(Way::named("cluster").ok(), Some(Way::Cluster));
        let error = Way::named("docker").expect_err("there is no such way");
        assert_eq!(error.to_string(), "BATCH_TEST_POSTGRES is url, container, cluster or embedded, not \"docker\"");
    }
}
