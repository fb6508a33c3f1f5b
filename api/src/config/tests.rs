use super::*;
use std::error::Error as _;

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nullspaced.toml");
    std::fs::write(&path, text).unwrap();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&path), variables)
}

#[test]
fn without_a_file_and_variables_the_defaults_hold() {
    let loaded = Config::load(None, []).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.http.listen.to_string(), "127.0.0.1:3000");
}

#[test]
fn a_variable_beats_the_file() {
    let text = "[http]\nlisten = \"127.0.0.1:4000\"\nworkers = 3\n";
    let config = load(text, &[("NULLSPACED_HTTP_LISTEN", "127.0.0.1:5000")])
        .unwrap()
        .config;
    assert_eq!(config.http.listen.port(), 5000);
    assert_eq!(config.http.workers, 3);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    for (text, key) in [
        ("[http]\nlisen = \"127.0.0.1:1\"\n", "lisen"),
        ("datadir = \"/x\"\n", "datadir"),
        (
            "[[registry.mirror]]\nregistry=\"a\"\nhost=\"b\"\nplain=true\n",
            "plain",
        ),
        ("[limits]\njson_bytes = 1\n", "json_bytes"),
    ] {
        let error = load(text, &[]).unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains(&format!("`{key}`")), "{cause}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_an_error() {
    let error = load("[http]\nworkers = \"two\"\n", &[]).unwrap_err();
    assert!(error.source().unwrap().to_string().contains("workers"));
    let error = load("", &[("NULLSPACED_HTTP_WORKERS", "two")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the variable NULLSPACED_HTTP_WORKERS is wrong: a whole number is expected"
    );
}

#[test]
fn networks_are_read_and_wrong_ones_are_refused() {
    let text = "[build_network]\nallowed_networks = [\"10.1.2.3/16\"]\n";
    let config = load(text, &[]).unwrap().config;
    assert_eq!(
        config.build_network.allowed_networks[0].to_string(),
        "10.1.0.0/16"
    );
    let error = load(
        "[build_network]\nblocked_networks = [\"10.0.0.0/33\"]\n",
        &[],
    )
    .unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(
        cause.contains("blocked_networks") && cause.contains("0 to 32"),
        "{cause}"
    );
}

#[test]
fn values_out_of_their_range_are_errors_that_name_the_setting() {
    for (text, setting) in [
        ("[limits]\nkeepalive_ms = 10001\n", "limits.keepalive_ms"),
        ("[http]\nworkers = 0\n", "http.workers"),
        ("[executor]\nmax_attempts = 0\n", "executor.max_attempts"),
        (
            "[executor]\nmemory_mib_max = 64\n",
            "executor.memory_mib_min",
        ),
        ("[buildkit]\nprobe_ms_max = 0\n", "buildkit.probe_ms_max"),
        (
            "[[buildkit.daemon]]\naddress = \"/run/b.sock\"\n",
            "buildkit.daemon",
        ),
    ] {
        let error = load(text, &[]).unwrap_err().to_string();
        assert!(error.starts_with(setting), "{error}");
    }
}

#[test]
fn tables_and_lists_have_variables_too() {
    let config = load(
        "",
        &[
            (
                "NULLSPACED_REGISTRY_MIRROR",
                "[{ registry = \"docker.io\", host = \"127.0.0.1:5000\", plain_http = true }]",
            ),
            (
                "NULLSPACED_BUILD_NETWORK_ENV",
                "{ http_proxy = \"http://127.0.0.1:1\" }",
            ),
            (
                "NULLSPACED_BUILDKIT_DAEMON",
                "[{ address = \"unix:///run/a.sock\" }, { address = \"unix:///run/b.sock\" }]",
            ),
            ("NULLSPACED_REGISTRY_MIRRORS_ONLY", "true"),
            ("NULLSPACED_LOG", "debug"),
        ],
    )
    .unwrap()
    .config;
    assert_eq!(config.registry.mirror[0].host, "127.0.0.1:5000");
    assert!(config.registry.mirrors_only);
    assert_eq!(config.buildkit.daemon[1].address, "unix:///run/b.sock");
    assert_eq!(config.build_network.env["http_proxy"], "http://127.0.0.1:1");
    assert_eq!(config.logging.filter, "debug");
}

#[test]
fn an_unknown_variable_is_told_and_others_are_left_alone() {
    let loaded = load(
        "",
        &[
            ("NULLSPACED_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/root"),
            ("NULLSPACED_CONFIG", "x"),
        ],
    )
    .unwrap();
    assert_eq!(loaded.unknown_variables, ["NULLSPACED_SERVICE_HOST"]);
}

#[test]
fn every_setting_of_the_file_has_a_variable() {
    fn paths(prefix: &str, table: &toml::Table, found: &mut Vec<String>) {
        for (key, value) in table {
            let path = format!("{prefix}{key}");
            match value {
                toml::Value::Table(inner) if !SETTINGS.iter().any(|known| known.path == path) => {
                    paths(&format!("{path}."), inner, found);
                }
                toml::Value::String(_)
                | toml::Value::Integer(_)
                | toml::Value::Float(_)
                | toml::Value::Boolean(_)
                | toml::Value::Datetime(_)
                | toml::Value::Array(_)
                | toml::Value::Table(_) => found.push(path),
            }
        }
    }
    let mut config = Config::default();
    config.vmm.kernel = Some("/boot/vmlinuz".into());
    config.vmm.guest_agent = Some("/agent".into());
    let mut found = Vec::new();
    paths("", &toml::Table::try_from(config).unwrap(), &mut found);
    found.sort();
    let mut known: Vec<_> = SETTINGS
        .iter()
        .map(|setting| setting.path.to_owned())
        .collect();
    known.sort();
    assert_eq!(found, known);
}

#[test]
fn the_data_folder_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::new(dir.path().join("a/b"));
    data_dir.create().unwrap();
    let mode = std::fs::metadata(data_dir.path())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    data_dir.create().unwrap();
}
