//! From the command line and the environment to settings.

use crate::config::{Config, ConfigError, Loaded, SETTINGS};

use super::Place;

/// Why a `--set` is wrong.
#[derive(Debug, thiserror::Error)]
enum SetError {
    /// There is no `=`.
    #[error("--set {0}: SETTING=VALUE is expected")]
    NoValue(String),
    /// Nobody knows the setting.
    #[error("--set {0}: there is no such setting; `nullspaced serve --help` lists all")]
    Unknown(String),
}

/// The settings of `place`, overlaid with `flags`: pairs of a setting and its value.
pub(super) fn load(place: &Place, flags: &[(&str, String)]) -> Result<Loaded, super::Failure> {
    let mut variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    for text in &place.set {
        let (path, value) = text
            .split_once('=')
            .ok_or_else(|| SetError::NoValue(text.clone()))?;
        variables.push((variable(path)?, value.to_owned()));
    }
    if let Some(folder) = &place.data_dir {
        variables.push((variable("data_dir")?, folder.display().to_string()));
    }
    for (path, value) in flags {
        variables.push((variable(path)?, value.clone()));
    }
    let mut loaded: Loaded = Config::load(place.config.as_deref(), variables)?;
    absolute(&mut loaded.config)?;
    Ok(loaded)
}

fn variable(path: &str) -> Result<String, SetError> {
    let setting = SETTINGS.iter().find(|setting| setting.path == path);
    setting
        .map(crate::config::Setting::variable)
        .ok_or_else(|| SetError::Unknown(path.to_owned()))
}

/// Tools that run elsewhere must find the same folder.
fn absolute(config: &mut Config) -> Result<(), ConfigError> {
    let path = config.data_dir.path();
    let path = std::path::absolute(path).map_err(|source| ConfigError::DataDir {
        path: path.to_owned(),
        source,
    })?;
    config.data_dir = crate::config::DataDir::new(path);
    Ok(())
}

/// All settings, as a part of the help.
pub(super) fn table() -> String {
    let mut text = String::from(
        "Settings:\n  Each can stand in the file of --config, in a variable, or behind --set; \
         the later wins.\n  Lists and tables are written in TOML.\n\n",
    );
    let width = SETTINGS.iter().map(|known| known.path.len()).max();
    let width = width.unwrap_or(0);
    for setting in SETTINGS {
        let line = format!("  {:width$}  {}\n", setting.path, setting.variable());
        text.push_str(&line);
    }
    text.push('\n');
    text.push_str(super::serve::HELP);
    text
}
