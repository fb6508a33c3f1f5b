//! `nullspaced serve`

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Place, say, settings};
use crate::telemetry;
use crate::wiring::Service;
use domain::causes::chain;

pub(super) const HELP: &str = "\
Examples:
  nullspaced serve --data-dir ./data
      Start with everything below ./data. The first start prints a key of the owner `default` and
      keeps it in ./data/admin.key.

  nullspaced serve --config /etc/nullspaced.toml --listen 127.0.0.1:8080
  NULLSPACED_LOG=debug nullspaced serve --set logging.format=json

Point a client at it:
  export NULLSPACE_API_URL=http://127.0.0.1:3000 NULLSPACE_API_KEY=$(cat ./data/admin.key)
  nullspace template build --from-image debian:bookworm --run-cmd 'echo hi' --name hello";

/// Run the service.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen [default: 127.0.0.1:3000]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

impl Serve {
    pub(super) async fn run(self, place: &Place) -> Result<ExitCode, Failure> {
        let flags = self
            .listen
            .map(|address| ("http.listen", address.to_string()));
        let loaded = settings::load(place, flags.as_slice())?;
        telemetry::start(&loaded.config.logging)?;
        keep_out_of_core_files()?;
        for name in loaded.unknown_variables {
            tracing::warn!(name, "nobody knows this variable");
        }
        // Before anything can need an orderly end.
        let mut stop = Stop::new()?;
        let mut service = tokio::select! {
            started = Service::start(loaded.config) => started?,
            () = stop.wait() => return Ok(ExitCode::SUCCESS),
        };
        if let Some(key) = &service.first_key {
            say(format!(
                "API key of the owner `default`, shown once and kept in {}:\n{}",
                service.app.config.data_dir.admin_key().display(),
                key.reveal()
            ))?;
        }
        say(format!("listening on http://{}", service.address))?;
        tracing::info!(address = %service.address, "listening");
        let failure = tokio::select! {
            () = stop.wait() => None,
            failure = service.failed() => Some(failure),
        };
        if let Some(failure) = &failure {
            tracing::error!(error = chain(failure), "the service cannot go on");
        }
        tokio::select! {
            stopped = service.stop() => stopped?,
            () = stop.wait() => {
                tracing::warn!("told twice to stop: what is open is dropped");
                return Ok(ExitCode::FAILURE);
            }
        }
        match failure {
            None => Ok(ExitCode::SUCCESS),
            Some(failure) => Err(failure.into()),
        }
    }
}

/// The memory of this process, and of those that it starts, holds secret values: it belongs into no
/// core file. A single byte, for nothing fits into it, and the kernel reads it as "none" for crash
/// handlers behind a pipe too, which zero does not stop.
fn keep_out_of_core_files() -> std::io::Result<()> {
    let none = Rlimit {
        current: Some(1),
        maximum: Some(1),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

/// Ctrl-C and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_process_goes_into_a_core_file() {
        keep_out_of_core_files().unwrap();
        let limit = rustix::process::getrlimit(Resource::Core);
        assert_eq!((limit.current, limit.maximum), (Some(1), Some(1)));
    }
}
