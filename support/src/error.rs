use std::error::Error as StdError;
use std::fmt;

/// Why there is no Postgres to work with, in words for whoever runs the tests.
#[derive(Clone, Debug)]
pub struct Error {
    message: String,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Error { message: message.into() }
    }

    /// `what`, then the cause and the cause's causes.
    pub(crate) fn because(what: impl fmt::Display, cause: &dyn StdError) -> Self {
        let mut message = format!("{what}: {cause}");
        let mut next = cause.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Some errors print their cause themselves.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            next = cause.source();
        }
        Error { message }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}
