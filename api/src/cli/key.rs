//! `nullspaced key create|list|revoke`

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::door::Door;
use super::{Failure, Place, say, settings};
use crate::wire::admin::{KeyLine, NewKey};

pub(super) const HELP: &str = "\
Examples:
  nullspaced key create --owner my-team --label laptop
  nullspaced key list
  nullspaced key revoke key_01k5…

The commands go through the service if it runs on the data folder; if none runs, they open the
folder themselves. Only hashes of keys are kept: a key that is lost is revoked and made anew.";

/// Make, list and revoke API keys.
#[derive(Debug, Args)]
pub(super) struct KeyCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key, and print it: the only time that it is shown
    Create {
        /// Whom it is for. Builds and private templates are seen by their owner alone
        #[arg(long, default_value = "default")]
        owner: String,
        /// What you call it
        #[arg(long, default_value = "")]
        label: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the keys that open something; the keys themselves are not shown
    List {
        /// Print one JSON list
        #[arg(long)]
        json: bool,
    },
    /// Make a key worthless, at once
    Revoke {
        /// The id of the key, as `key list` shows it
        id: String,
    },
}

impl KeyCommand {
    pub(super) async fn run(self, place: &Place) -> Result<ExitCode, Failure> {
        let config = settings::load(place, &[])?.config;
        let door = Door::open(&config).await?;
        let done = act(&door, self.action).await;
        door.close().await?;
        done.map(|()| ExitCode::SUCCESS)
    }
}

async fn act(door: &Door, action: Action) -> Result<(), Failure> {
    match action {
        Action::Create { owner, label, json } => {
            let created = door.create_key(NewKey { owner, label }).await?;
            if json {
                say(serde_json::to_string_pretty(&created)?)?;
            } else {
                say(format!("{}\n{}", line(&created.line), created.key))?;
            }
        }
        Action::List { json } => {
            let keys = door.list_keys().await?;
            if json {
                say(serde_json::to_string_pretty(&keys)?)?;
            }
            for key in keys.iter().filter(|_| !json) {
                say(line(key))?;
            }
        }
        Action::Revoke { id } => {
            door.revoke_key(&id).await?;
            say(format!("revoked {id}"))?;
        }
    }
    Ok(())
}

fn line(key: &KeyLine) -> String {
    format!("{}  {}  {}", key.id, key.owner, key.label)
}
