//! A throw-away cluster, made with the server programs that are installed on the machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::settings::{self, Settings};
use super::{Found, Lifeline};
use crate::{Error, admin};

/// The cluster's programs refuse to run as root; this user runs them instead.
const USER: &str = "postgres";

/// Linux keeps the files there in memory.
const MEMORY: &str = "/dev/shm";

pub(super) fn start(settings: &Settings) -> Result<Found, Error> {
    let cluster = Cluster::make(settings.fsync(), "", settings.memory)?;
    let url = cluster.url("postgres");
    let Cluster { dir, bin, lifeline, .. } = cluster;
    Ok(Found {
        what: format!("a throw-away cluster in {} made by {}", dir.display(), bin.display()),
        url,
        lifeline: Some(lifeline),
    })
}

/// A Postgres of a test's own, made with the server programs that are installed on the machine: one that may be killed,
/// copied and promoted. It ends with this, also when the process is killed.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    /// What goes before a command to run it as the user who owns the folder.
    run_as: String,
    port: u16,
    lifeline: Lifeline,
}

impl Cluster {
    /// A new cluster.
    ///
    /// # Errors
    ///
    /// Where no server programs are installed, or they refuse: a test says so and ends.
    pub fn start() -> Result<Self, Error> {
        Self::make("off", "", settings::in_memory())
    }

    /// A standby that has what this cluster has now, and gets nothing of what comes later.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn standby(&self) -> Result<Self, Error> {
        Self::make("off", &self.url(""), settings::in_memory())
    }

    /// Where to connect, for this database.
    pub fn url(&self, database: &str) -> String {
        self.url_as(USER, database)
    }

    /// Where to connect, for this role and database; if that is empty, it is the one that is named like the role.
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs one statement or several, over a connection of its own.
    ///
    /// # Panics
    ///
    /// With the server's error.
    #[track_caller]
    pub fn execute(&self, database: &str, sql: &str) {
        admin::execute(&self.url(database), sql);
    }

    /// The rows of a query, each value as text, over a connection of its own.
    ///
    /// # Panics
    ///
    /// With the server's error.
    #[track_caller]
    pub fn query(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        admin::rows(&self.url(database), sql)
    }

    /// Stops it as a crash does, and starts it again.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[track_caller]
    pub fn crash(&self) {
        self.control(&["stop", "-m", "immediate"]);
        self.control(&["start", "-l", "log", "-t", "60"]);
    }

    /// Kills a backend, on which the server ends all others and recovers, while its first process lives on.
    ///
    /// # Panics
    ///
    /// If there is no such process.
    #[track_caller]
    pub fn kill(&self, pid: &str) {
        self.run("kill", &["-9", pid]);
    }

    /// Makes a standby a primary.
    ///
    /// # Panics
    ///
    /// If it is none.
    #[track_caller]
    pub fn promote(&self) {
        self.control(&["promote"]);
    }

    #[track_caller]
    fn control(&self, arguments: &[&str]) {
        let data = self.dir.join("data").display().to_string();
        let all: Vec<&str> = ["-w", "-D", &data].iter().chain(arguments).copied().collect();
        self.run(&self.bin.join("pg_ctl").display().to_string(), &all);
    }

    /// Runs a program as the cluster's user.
    #[track_caller]
    fn run(&self, program: &str, arguments: &[&str]) {
        let mut words = self.run_as.split(' ').filter(|word| !word.is_empty()).chain([program]);
        let mut command = Command::new(words.next().unwrap_or(program));
        command.args(words).args(arguments).current_dir(&self.dir);
        // A server that is started here keeps what it inherits.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }

    fn make(fsync: &str, from: &str, memory: bool) -> Result<Self, Error> {
        let bin = programs()?;

        // Another process may take the port between the choice and the start.
        let mut tries = 3;
        loop {
            tries -= 1;
            match try_start(&bin, fsync, from, memory) {
                Err(error) if tries > 0 && error.to_string().contains("Address already in use") => {}
                other => return other,
            }
        }
    }
}

fn try_start(bin: &Path, fsync: &str, from: &str, memory: bool) -> Result<Cluster, Error> {
    let place = if memory { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new()
        .prefix("batch-test-postgres-")
        .tempdir_in(place)
        .map_err(|error| Error::because("cannot make a folder for the cluster", &error))?;
    let port = free_port().map_err(|error| Error::because("no free port", &error))?;

    let run_as = if is_root() { give_away(dir.path())? } else { String::new() };
    let mut command = Command::new("sh");
    command
        .args(["-c", include_str!("cluster.sh")])
        .env("BIN", bin)
        .env("DIR", dir.path())
        .env("PORT", port.to_string())
        .env("AS", &run_as)
        .env("FSYNC", fsync)
        .env("FROM", from)
        .stderr(Stdio::null());
    let (lifeline, _) = Lifeline::start(command, "ready")?;

    // From here on the script removes it.
    let dir = dir.keep();
    Ok(Cluster { bin: bin.to_owned(), dir, run_as, port, lifeline })
}

/// The folder of the newest server installed: Debian's places, then `pg_config`, then `PATH`.
fn programs() -> Result<PathBuf, Error> {
    let mut debian: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort();
    let debian = debian.into_iter().rev().map(|(_, bin)| bin);

    let configured = output("pg_config", &["--bindir"]).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<PathBuf> = std::env::split_paths(&path)
        .filter_map(|folder| Some(folder.join("initdb").canonicalize().ok()?.parent()?.to_owned()))
        .collect();

    debian
        .chain(configured)
        .chain(on_path)
        .find(|bin| bin.join("initdb").exists() && bin.join("pg_ctl").exists())
        .ok_or_else(|| Error::new("no Postgres server is installed here (Debian's package is postgresql)"))
}

/// Gives the folder to the user who may run Postgres; returns what goes before a command to run it as that user.
fn give_away(dir: &Path) -> Result<String, Error> {
    let id = |option| output("id", &[option, USER]).and_then(|id| id.parse().ok());
    let (Some(uid), Some(gid)) = (id("-u"), id("-g")) else {
        return Err(Error::new(format!("this is root, whom Postgres refuses, and there is no user {USER}")));
    };
    chown(dir, Some(uid), Some(gid))
        .map_err(|error| Error::because(format_args!("cannot give {} to {USER}", dir.display()), &error))?;

    [
        format!("setpriv --reuid={USER} --regid={USER} --init-groups"),
        format!("runuser -u {USER} --"),
        format!("su-exec {USER}"),
    ]
    .into_iter()
    .find(|prefix| {
        let mut words = prefix.split(' ').chain(["true"]);
        words.next().is_some_and(|program| output(program, &words.collect::<Vec<_>>()).is_some())
    })
    .ok_or_else(|| Error::new("this is root, whom Postgres refuses, and there is no setpriv, runuser or su-exec"))
}

fn is_root() -> bool {
    output("id", &["-u"]).is_some_and(|id| id == "0")
}

/// What a command prints, if it can be run and succeeds.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::time::{Duration, Instant};
    use std::{env, io, thread};

    use super::*;
    use crate::server::runs;

    #[test]
    fn a_cluster_answers_and_its_folder_goes_with_it() {
        let Ok(found) = start(&settings(false)) else { return };
        let dir = folder(&found);
        assert!(runs::version(&found.url).is_ok());

        drop(found);
        assert!(!dir.exists());
    }

    #[test]
    fn a_cluster_does_not_outlive_a_killed_process() {
        const CHILD: &str = "BATCH_TEST_CHILD";
        if env::var_os(CHILD).is_some() {
            let found = start(&settings(false)).expect("starts");
            let mut stdout = io::stdout();
            writeln!(stdout, "\nfolder {}", folder(&found).display()).expect("is read");
            stdout.flush().expect("is read");
            thread::sleep(Duration::from_secs(60));
            return;
        }
        if programs().is_err() {
            return;
        }

        let mut child = Command::new(env::current_exe().expect("is a file"))
            .args(["--exact", "server::cluster::tests::a_cluster_does_not_outlive_a_killed_process"])
            .arg("--nocapture")
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let stdout = BufReader::new(child.stdout.take().expect("is piped"));
        let dir = stdout
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("folder ").map(PathBuf::from))
            .expect("the child starts a cluster");
        assert!(dir.join("data/postmaster.pid").exists());

        child.kill().expect("is running");
        child.wait().expect("was killed");
        let killed = Instant::now();
        while dir.exists() && killed.elapsed() < Duration::from_secs(30) {
            thread::sleep(Duration::from_millis(20));
        }
        assert!(!dir.exists(), "the cluster is stopped and removed");
    }

    #[test]
    fn a_cluster_is_durable_only_where_it_is_asked_to_be() {
        for (durable, fsync) in [(false, "off"), (true, "on")] {
            let Ok(found) = start(&settings(durable)) else { return };
            let asked = "SELECT current_setting('fsync'), current_setting('full_page_writes')";
            let row = admin::with_client(&found.url, |client| client.query_one(asked, &[])).expect("answers");
            assert_eq!((row.get(0), row.get(1)), (fsync, fsync));
        }
    }

    fn settings(durable: bool) -> Settings {
        Settings { database_url: None, forced: None, tag: String::new(), memory: false, durable }
    }

    fn folder(found: &Found) -> PathBuf {
        let words = found.what.split(' ');
        words.map(PathBuf::from).find(|word| word.is_absolute()).expect("names its folder")
    }
}
