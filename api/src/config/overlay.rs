//! Settings as environment variables: `http.listen` is `NULLSPACED_HTTP_LISTEN`.

use toml::{Table, Value};

use super::ConfigError;

/// What every variable of ours begins with.
const PREFIX: &str = "NULLSPACED_";

/// Variables that the command line reads itself.
const FLAG_VARIABLES: [&str; 2] = ["NULLSPACED_CONFIG", "NULLSPACED_OWNER"];

/// A setting that has a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Where it stands in the file, for example `http.listen`.
    pub path: &'static str,
    /// How the variable's text is read.
    pub kind: SettingKind,
}

/// How a variable's text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// As it is.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// A value in TOML, for example `["a", "b"]` or `{ http_proxy = "http://…" }`.
    Toml,
}

const fn text(path: &'static str) -> Setting {
    Setting {
        path,
        kind: SettingKind::Text,
    }
}

const fn number(path: &'static str) -> Setting {
    Setting {
        path,
        kind: SettingKind::Number,
    }
}

const fn switch(path: &'static str) -> Setting {
    Setting {
        path,
        kind: SettingKind::Switch,
    }
}

const fn toml(path: &'static str) -> Setting {
    Setting {
        path,
        kind: SettingKind::Toml,
    }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    text("data_dir"),
    text("http.listen"),
    number("http.workers"),
    number("limits.inspection_count_max"),
    number("limits.past_view_count_max"),
    number("limits.json_body_bytes_max"),
    number("limits.definition_bytes_max"),
    number("limits.blob_bytes_max"),
    number("limits.context_bytes_max"),
    number("limits.context_file_count_max"),
    number("limits.step_count_max"),
    number("limits.step_item_count_max"),
    number("limits.tag_count_max"),
    number("limits.template_tag_count_max"),
    number("limits.claim_count_max"),
    number("limits.claim_secs"),
    number("limits.waiting_build_count_max"),
    number("limits.env_count_max"),
    number("limits.command_bytes_max"),
    number("limits.text_bytes_max"),
    number("limits.dockerfile_bytes_max"),
    number("limits.secret_total_bytes_max"),
    number("limits.readiness_secs_max"),
    number("limits.problem_count_max"),
    number("limits.keepalive_ms"),
    number("limits.stream_entry_count_max"),
    number("limits.known_stream_count_max"),
    number("limits.event_page_count_max"),
    number("limits.event_page_bytes_max"),
    number("limits.kept_event_page_count_max"),
    number("limits.event_queue_count_max"),
    number("limits.slow_reader_ms_max"),
    number("limits.batch_scan_count_max"),
    number("limits.batch_bytes_max"),
    number("limits.unread_answer_ms_max"),
    number("limits.open_stream_count_max"),
    number("limits.read_your_write_ms_max"),
    number("limits.blocking_build_secs_max"),
    number("limits.body_idle_ms_max"),
    number("limits.refused_body_bytes_max"),
    number("limits.pending_upload_count_max"),
    number("limits.key_bytes_max"),
    number("limits.webhook_count_max"),
    number("limits.webhook_url_bytes_max"),
    number("limits.webhook_filter_count_max"),
    number("limits.webhook_timeout_ms"),
    number("limits.webhook_attempt_count_max"),
    number("limits.webhook_backoff_ms_min"),
    number("limits.webhook_backoff_ms_max"),
    number("limits.webhook_concurrent_count_max"),
    number("limits.webhook_lane_count_max"),
    number("limits.webhook_dead_letter_count_max"),
    number("limits.webhook_kept_delivery_count_max"),
    number("limits.idempotency_key_bytes_max"),
    number("limits.idempotency_secs"),
    number("limits.key_refresh_ms"),
    number("limits.connection_count_max"),
    number("limits.idle_connection_secs_max"),
    number("limits.drain_secs_max"),
    text("logging.format"),
    text("logging.filter"),
    switch("registry.mirrors_only"),
    toml("registry.plain_http_hosts"),
    toml("registry.private_hosts"),
    text("registry.ecr_endpoint"),
    text("registry.gcp_token_endpoint"),
    toml("registry.mirror"),
    text("builtins.base.image"),
    toml("build_network.env"),
    toml("build_network.files"),
    toml("build_network.allowed_networks"),
    toml("build_network.blocked_networks"),
    text("buildkit.buildctl"),
    number("buildkit.build_seconds_max"),
    number("buildkit.probe_ms_max"),
    number("buildkit.stop_ms_max"),
    toml("buildkit.daemon"),
    number("executor.concurrent_builds"),
    number("executor.owner_concurrent_builds"),
    number("executor.max_attempts"),
    number("executor.disk_mb_max"),
    number("executor.memory_mib_min"),
    number("executor.memory_mib_max"),
    number("executor.vcpus_max"),
    number("executor.step_timeout_secs"),
    switch("executor.step_user_namespace"),
    number("executor.step_first_user_id"),
    number("executor.step_disk_mb_max"),
    number("executor.step_processes_max"),
    number("executor.build_timeout_secs"),
    number("executor.layer_cache_mb_max"),
    number("executor.free_disk_mb_min"),
    number("retention.untagged_secs"),
    number("retention.context_secs"),
    number("retention.upload_secs"),
    switch("webhooks.enabled"),
    switch("webhooks.plain_http"),
    toml("webhooks.allowed_hosts"),
    toml("webhooks.allowed_networks"),
    text("vmm.accelerator"),
    text("vmm.qemu"),
    text("vmm.kernel"),
    text("vmm.guest_agent"),
];

impl Setting {
    /// The variable, for example `NULLSPACED_HTTP_LISTEN`.
    pub fn variable(&self) -> String {
        match self.path {
            // Customary short names.
            "logging.filter" => "NULLSPACED_LOG".to_owned(),
            "vmm.guest_agent" => "NULLSPACED_GUEST_AGENT".to_owned(),
            path => format!("{PREFIX}{}", path.replace('.', "_").to_uppercase()),
        }
    }

    fn read(self, text: String) -> Result<Value, ConfigError> {
        let wrong = |expected| ConfigError::Variable {
            name: self.variable(),
            expected,
        };
        match self.kind {
            SettingKind::Text => Ok(Value::String(text)),
            SettingKind::Number => text
                .trim()
                .parse()
                .map(Value::Integer)
                .map_err(|_| wrong("a whole number")),
            SettingKind::Switch => text
                .trim()
                .parse()
                .map(Value::Boolean)
                .map_err(|_| wrong("`true` or `false`")),
            SettingKind::Toml => toml::from_str::<Table>(&format!("value = {text}"))
                .ok()
                .and_then(|mut table| table.remove("value"))
                .ok_or_else(|| wrong("a value in TOML")),
        }
    }
}

/// Lays `variables` over `table` and gives those that begin like ours and are none of ours.
///
/// # Errors
/// [`ConfigError::Variable`] if a value is not of its setting's type.
pub(super) fn apply(
    table: &mut Table,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<String>, ConfigError> {
    let mut unknown = Vec::new();
    for (name, value) in variables {
        if !name.starts_with(PREFIX) || FLAG_VARIABLES.contains(&name.as_str()) {
            continue;
        }
        match SETTINGS.iter().find(|setting| setting.variable() == name) {
            None => unknown.push(name),
            Some(setting) => put(table, setting.path, setting.read(value)?),
        }
    }
    unknown.sort();
    Ok(unknown)
}

fn put(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = table
                .entry(section.to_owned())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
