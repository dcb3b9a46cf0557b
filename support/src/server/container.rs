//! A container, through testcontainers.

use std::process::{self, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, mem};

use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::core::Mount;
use testcontainers_modules::testcontainers::core::client::docker_client_instance;
use testcontainers_modules::testcontainers::runners::AsyncRunner as _;
use testcontainers_modules::testcontainers::{ContainerAsync, ImageExt as _, TestcontainersError};
use tokio::runtime;
use tokio::time::timeout;

use super::settings::Settings;
use super::{Found, Lifeline};
use crate::Error;

/// Where the image keeps its cluster.
const DATA: &str = "/var/lib/postgresql/data";
/// Every container of ours carries this label.
const LABEL: &str = "batch-test-postgres";
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);
/// Long enough to pull an image.
const START_PATIENCE: Duration = Duration::from_secs(180);

pub(super) fn start(settings: &Settings) -> Result<Found, Error> {
    let tag = &settings.tag;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::because("cannot start an async runtime", &error))?;
    runtime.block_on(async {
        find_engine().await?;

        let name = fresh_name();
        // First, so that there is no moment in which the container could stay behind.
        let lifeline = removed_with_us(&name)?;
        let started = timeout(START_PATIENCE, run(&name, settings));
        let (container, url) = match started.await {
            Ok(Ok(started)) => started,
            Ok(Err(error)) => return Err(Error::because(format_args!("postgres:{tag} did not start"), &error)),
            Err(_) => {
                let seconds = START_PATIENCE.as_secs();
                return Err(Error::new(format!("postgres:{tag} was not there after {seconds} s")));
            }
        };

        // Its drop would remove the container; that is the lifeline's work, which nothing escapes.
        mem::forget(container);
        Ok(Found { what: format!("a container {name} of postgres:{tag}"), url, lifeline: Some(lifeline) })
    })
}

async fn find_engine() -> Result<(), Error> {
    let ping = async { docker_client_instance().await.map(|docker| async move { docker.ping().await }) };
    let answer = timeout(ENGINE_PATIENCE, async {
        match ping.await {
            Ok(ping) => ping.await.map(drop).map_err(|error| Error::because("no Docker engine answers", &error)),
            Err(error) => Err(Error::because("no Docker engine answers", &error)),
        }
    });
    answer.await.unwrap_or_else(|_| Err(Error::new("no Docker engine answers in time")))
}

async fn run(name: &str, wanted: &Settings) -> Result<(ContainerAsync<Postgres>, String), TestcontainersError> {
    let fsync = wanted.fsync();
    let settings = [format!("fsync={fsync}"), format!("full_page_writes={fsync}"), "max_connections=300".to_owned()];
    let image = Postgres::default().with_tag(&wanted.tag);
    let image = if wanted.memory { image.with_mount(Mount::tmpfs_mount(DATA)) } else { image };
    let container = image
        .with_container_name(name)
        .with_label(LABEL, "1")
        .with_cmd(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]))
        .start()
        .await?;
    let host = container.get_host().await?;
    let port = container.get_host_port_ipv4(5432).await?;
    Ok((container, format!("postgres://postgres:postgres@{host}:{port}/postgres")))
}

fn removed_with_us(name: &str) -> Result<Lifeline, Error> {
    let socket = env::var_os("DOCKER_HOST").unwrap_or_else(|| "/var/run/docker.sock".into());
    let mut command = Command::new("sh");
    command.args(["-c", include_str!("container.sh")]).env("NAME", name).env("SOCKET", socket).stderr(Stdio::null());
    Ok(Lifeline::start(command, "ready")?.0)
}

fn fresh_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{LABEL}-{}-{}", process::id(), now.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_cannot_be_had_is_an_error_that_says_so() {
        let settings = Settings { tag: "does-not-exist".to_owned(), ..Settings::default() };
        let error = start(&settings).expect_err("there is no such image").to_string();
        assert!(error.starts_with("no Docker engine answers") || error.contains("postgres:does-not-exist"), "{error}");
    }
}
