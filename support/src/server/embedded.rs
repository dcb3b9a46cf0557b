//! Postgres as a program that is part of this repository.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use super::Lifeline;
use crate::Error;

/// A running one, for one database.
#[derive(Debug)]
pub(crate) struct Embedded {
    url: String,
    _lifeline: Lifeline,
}

impl Embedded {
    /// Starts it; compiles it first where that has not been done, which takes minutes.
    pub(crate) fn start() -> Result<Embedded, Error> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../embedded/Cargo.toml");
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .args(["run", "--quiet", "--release", "--locked", "--manifest-path"])
            .arg(manifest)
            // Cargo's own errors are worth seeing.
            .stderr(Stdio::inherit());

        let (lifeline, url) = Lifeline::start(command, "postgres")?;
        Ok(Embedded { url, _lifeline: lifeline })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}
