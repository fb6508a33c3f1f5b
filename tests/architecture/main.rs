//! Rules of the repository, as tests.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails them by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which of our crates each of our crates may depend on (ARCHITECTURE.md).
const ALLOWED: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("commands", &["domain"]),
    ("projections", &["domain"]),
    ("executor", &["buildkit", "commands", "domain", "guest"]),
    ("executor/buildkit", &[]),
    ("executor/guest", &[]),
    (
        "api",
        &["buildkit", "commands", "domain", "executor", "projections"],
    ),
    (
        "tests",
        &[
            "api",
            "buildkit",
            "commands",
            "domain",
            "executor",
            "guest",
            "projections",
        ],
    ),
];

/// The most lines of a source file before its tests.
const FILE_LINES_MAX: usize = 500;
/// The most lines of ARCHITECTURE.md.
const ARCHITECTURE_LINES_MAX: usize = 200;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().unwrap() != "target" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (folder, _) in ALLOWED {
        // Members below a member are found with it.
        if !folder.contains('/') {
            sources(&root().join(folder), &mut found);
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let ours: BTreeSet<&str> = ALLOWED
        .iter()
        .map(|(folder, _)| folder.rsplit('/').next().unwrap())
        .collect();
    for (folder, allowed) in ALLOWED {
        let manifest = manifest(folder);
        for section in ["dependencies", "build-dependencies"] {
            let Some(section) = manifest.get(section).and_then(toml::Value::as_table) else {
                continue;
            };
            for name in section.keys().filter(|name| ours.contains(name.as_str())) {
                assert!(
                    allowed.contains(&name.as_str()),
                    "{folder} may not depend on {name}"
                );
            }
        }
    }
}

#[test]
fn every_member_is_known_here_and_takes_the_lints() {
    let workspace = manifest("");
    let members: BTreeSet<&str> = workspace["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member.as_str().unwrap())
        .collect();
    assert_eq!(members, ALLOWED.iter().map(|(folder, _)| *folder).collect());
    for folder in members {
        let lints = manifest(folder)["lints"]["workspace"].as_bool();
        assert_eq!(
            lints,
            Some(true),
            "{folder} does not take the workspace's lints"
        );
    }
}

#[test]
fn every_dependency_is_pinned_and_has_its_reason() {
    let text = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = text.split("[workspace.dependencies]").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let mut reason = false;
    for line in section
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line.starts_with('#') {
            reason = true;
            continue;
        }
        let pinned = line.contains("\"=") || line.contains("path = ");
        assert!(pinned, "not pinned: {line}");
        assert!(reason, "no reason given: {line}");
        // A reason stands for what follows it directly: a family, or our own crates.
        reason = line.contains("path = ")
            || ["serde ", "tracing "]
                .iter()
                .any(|family| line.starts_with(family));
    }
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    for path in all_sources() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let folders = path.strip_prefix(root()).unwrap().components().skip(1);
        let in_tests = folders
            .into_iter()
            .any(|folder| folder.as_os_str() == "tests");
        if in_tests || name.ends_with("tests") || name == "properties" {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines before its tests",
            path.display()
        );
    }
    let architecture = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(architecture.lines().count() <= ARCHITECTURE_LINES_MAX);
}

#[test]
fn no_module_is_an_orphan() {
    let sources = all_sources();
    for path in &sources {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["lib", "main"].contains(&name) {
            continue;
        }
        let folder = path.parent().unwrap();
        let parents = [
            folder.with_extension("rs"),
            folder.join("lib.rs"),
            folder.join("main.rs"),
        ];
        let declared = parents
            .iter()
            .filter_map(|parent| std::fs::read_to_string(parent).ok())
            .any(|text| text.contains(&format!("mod {name};")));
        assert!(declared, "nothing declares {}", path.display());
    }
}

/// The scenarios that a script of the published client has, and runs.
fn scenarios(script: &str) -> BTreeSet<String> {
    let path = root().join("tests/real/client").join(script);
    let text = std::fs::read_to_string(path).unwrap();
    let (functions, listed) = text.rsplit_once("\nif __name__ ==").unwrap();
    let named = functions.lines().filter_map(|line| {
        let name = line.strip_prefix("def ")?.strip_suffix("() -> None:")?;
        listed.contains(name).then(|| name.to_owned())
    });
    named.collect()
}

#[test]
fn the_table_of_the_published_client_names_every_item_and_nothing_else() {
    let table = root().join("tests/real/client/README.md");
    let table = std::fs::read_to_string(table).unwrap();
    let (items, _) = table.split_once("## Command line").unwrap();
    for item in 1..=21 {
        assert!(items.contains(&format!("\n| {item} | ")), "item {item}");
    }
    let named: BTreeSet<(&str, &str)> = table
        .split('`')
        .filter_map(|word| word.split_once("::"))
        .collect();
    let mut of_items = BTreeSet::new();
    for (script, scenario) in &named {
        let known = scenarios(script);
        assert!(known.contains(*scenario), "{script} has no {scenario}");
        let own = known.iter().filter(|name| name.starts_with("item"));
        of_items.extend(own.map(|name| ((*script).to_owned(), name.clone())));
    }
    for (script, scenario) in &of_items {
        let is_named = named.contains(&(script.as_str(), scenario.as_str()));
        assert!(is_named, "{script}::{scenario} is in no row");
    }
}
