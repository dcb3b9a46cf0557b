//! A server that `DATABASE_URL` names.

use super::Found;
use super::settings::Settings;
use crate::{Error, admin};

pub(super) fn find(settings: &Settings) -> Result<Found, Error> {
    let url = settings.database_url.clone().ok_or_else(|| Error::new("DATABASE_URL is not set"))?;
    Ok(Found { what: format!("DATABASE_URL ({})", admin::shown(&url)), url, lifeline: None })
}
