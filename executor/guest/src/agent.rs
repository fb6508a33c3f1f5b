//! The agent's parts: what it does once ([`init`]) and what it does for calls ([`serve`]).

mod disk;
mod failure;
mod freezer;
mod init;
mod jobs;
mod network;
mod port;
mod probe;
mod release;
mod serve;
mod spawn;
mod start;
pub(crate) mod sys;
mod users;

use failure::Failure;

/// Brings the machine up and serves the host; comes back only with the reason why it cannot.
pub(crate) fn run() -> Failure {
    match init::bring_up().and_then(serve::Agent::new) {
        Ok(mut agent) => agent.serve(),
        Err(failure) => failure,
    }
}
