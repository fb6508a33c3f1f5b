//! The command line of `nullspaced`.

mod cache;
mod doctor;
mod door;
mod events;
mod key;
mod restore;
mod serve;
mod settings;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use domain::causes::chain;

/// A failure that ends the program: printed with all its causes.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

const EXAMPLES: &str = "\
Examples:
  nullspaced serve --data-dir /var/lib/nullspaced
      Start the service on 127.0.0.1:3000. The first start prints an API key.

  nullspaced key create --owner my-team --label laptop
      Make a key for the owner `my-team`, and print it once.

  nullspaced restore my-app:v1 --exec 'uname -a'
      Resume a machine from a finished template and run a command in it.

  nullspaced cache gc --dry-run
      See what the cache would let go of.

  nullspaced events verify
      See whether the event log is what was written.

  nullspaced doctor
      See which parts are missing on this machine, and how to get them.";

/// Turns template definitions into root filesystems and snapshots of machines that booted them.
///
/// The service keeps everything in one folder, the data folder, and speaks plain HTTP. Clients are
/// the published Python package `nullspace-sdk` and its command line `nullspace`.
#[derive(Debug, Parser)]
#[command(name = "nullspaced", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where the settings and the data are.
#[derive(Debug, Args)]
struct Place {
    /// The folder of everything that the service keeps [default: /var/lib/nullspaced]
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// A file with settings, in TOML
    #[arg(long, global = true, value_name = "FILE", env = "NULLSPACED_CONFIG")]
    config: Option<PathBuf>,
    /// One setting, for example `--set executor.concurrent_builds=4`; may be repeated.
    /// `nullspaced serve --help` lists all settings
    #[arg(long, global = true, value_name = "SETTING=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until it is told to stop (Ctrl-C or SIGTERM)
    #[command(after_long_help = settings::table(), after_help = serve::HELP)]
    Serve(serve::Serve),
    /// Make, list and revoke API keys; works while the service runs
    #[command(after_help = key::HELP)]
    Key(key::KeyCommand),
    /// See what is kept to be used again, and remove what nobody needs; works while the service runs
    #[command(after_help = cache::HELP)]
    Cache(cache::CacheCommand),
    /// Check the event log, look into it, and prove the views by it; works while the service runs
    #[command(after_help = events::HELP)]
    Events(events::EventsCommand),
    /// Resume a machine from a finished template on this host
    #[command(after_help = restore::HELP)]
    Restore(restore::Restore),
    /// Show which needed parts are there, and how to get the others
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::Doctor),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(err) => return fail(&err),
    };
    let ran = runtime.block_on(async {
        match cli.command {
            Command::Serve(command) => command.run(&cli.place).await,
            Command::Key(command) => command.run(&cli.place).await,
            Command::Cache(command) => command.run(&cli.place).await,
            Command::Events(command) => command.run(&cli.place).await,
            Command::Restore(command) => command.run(&cli.place).await,
            Command::Doctor(command) => command.run(&cli.place).await,
        }
    });
    // What still blocks a thread is not waited for.
    runtime.shutdown_background();
    match ran {
        Ok(code) => code,
        Err(err) => fail(err.as_ref()),
    }
}

fn fail(err: &dyn std::error::Error) -> ExitCode {
    // Standard error may be closed; then there is nobody to tell.
    writeln!(io::stderr(), "error: {}", chain(err)).ok();
    ExitCode::FAILURE
}

/// Prints a line to standard error, for whoever reads standard output is a program.
fn complain(line: &str) -> io::Result<()> {
    writeln!(io::stderr(), "{line}")
}

/// Prints a line to standard output.
fn say(line: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", line.as_ref())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent_and_helps() {
        Cli::command().debug_assert();
        let mut serve = Cli::command();
        let serve = serve.find_subcommand_mut("serve").unwrap();
        let help = serve.render_long_help().to_string();
        assert!(help.contains("NULLSPACED_HTTP_LISTEN") && help.contains("vmm.kernel"));
    }
}
