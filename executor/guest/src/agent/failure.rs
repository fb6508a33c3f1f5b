//! Why the agent could not do something: what it did, and the system's reason.

use std::fmt;
use std::io;

/// A failed action of the agent, for the console or for a refusal.
#[derive(Debug)]
pub(crate) struct Failure {
    doing: String,
    source: io::Error,
}

impl Failure {
    /// The failure of `doing`, given as in "mount /proc".
    pub(crate) fn new(doing: impl Into<String>, source: io::Error) -> Self {
        Self {
            doing: doing.into(),
            source,
        }
    }

    /// A failure that is not the system's.
    pub(crate) fn other(doing: impl Into<String>, why: &str) -> Self {
        Self::new(doing, io::Error::other(why.to_owned()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.source)
    }
}

/// Names what was done when a system call failed.
pub(crate) trait Doing<T> {
    /// Adds `doing`, as in "mount /proc".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|source| Failure::new(doing(), source))
    }
}
