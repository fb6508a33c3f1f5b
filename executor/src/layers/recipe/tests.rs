use std::collections::BTreeSet;

use super::*;

fn run(text: &str) -> Recipe {
    Recipe::new("run")
        .with(Role::Base, "base image", Value::Digest(Digest::of(b"base")))
        .with(Role::Text, "step", Value::text(text))
        .setting("user", Value::text("root"))
        .variables([("A", "1"), ("C", "3")])
}

fn file(path: &str, mode: u32, content: &str) -> Listed {
    Listed {
        path: path.to_owned(),
        mode,
        content: Some(Digest::of(content.as_bytes())),
    }
}

fn copy(files: Vec<Listed>) -> Recipe {
    Recipe::new("copy").files(Listing {
        source: "src".to_owned(),
        files,
    })
}

fn told(old: &Recipe, new: &Recipe) -> String {
    difference(old, new).unwrap()
}

#[test]
fn every_part_of_an_input_is_in_the_key() {
    let with = |role, name: &str, value| Recipe::new("k").with(role, name, value);
    let digest = Digest::of(b"x");
    let recipes = [
        Recipe::new("k"),
        Recipe::new("l"),
        with(Role::Setting, "a", Value::Absent),
        with(Role::Setting, "a", Value::Plain(String::new())),
        with(Role::Setting, "a", Value::Plain("absent".to_owned())),
        with(Role::Setting, "a", Value::Digest(digest)),
        with(Role::Setting, "a", Value::Plain(digest.to_string())),
        with(Role::Setting, "a", Value::text("x")),
        with(Role::Setting, "a", Value::text("y")),
        with(Role::Setting, "b", Value::Absent),
        with(Role::Text, "a", Value::Absent),
        with(Role::Setting, "a", Value::Absent).setting("a", Value::Absent),
    ];
    let keys: BTreeSet<Digest> = recipes.iter().map(Recipe::key).collect();
    assert_eq!(keys.len(), recipes.len());
}

#[test]
fn a_recipe_that_was_kept_has_the_key_that_it_had() {
    let recipe = run("x").and(&copy(vec![file("a", 0o644, "1")]));
    let kept: Recipe = serde_json::from_slice(&serde_json::to_vec(&recipe).unwrap()).unwrap();
    assert_eq!(kept.key(), recipe.key());
    assert_eq!(kept.listings(), []);
    let forged = Listing {
        source: "src".to_owned(),
        files: Vec::new(),
    };
    assert_eq!(kept.clone().with_listings(vec![forged]).listings(), []);
    assert_eq!(kept.with_listings(recipe.listings().to_vec()), recipe);
}

#[test]
fn the_first_input_that_differs_is_told() {
    let old = run("echo a");
    assert_eq!(difference(&old, &old), None);
    assert_eq!(
        told(&old, &run("echo b")),
        "step text changed (was `echo a`)"
    );
    let long = format!("echo a\n{}", "x".repeat(300));
    assert_eq!(
        told(&run(&long), &run(&format!("{long}y"))),
        "step text changed"
    );
    let variables = |pairs: &[(&str, &str)]| Recipe::new("run").variables(pairs.iter().copied());
    let two = variables(&[("A", "1"), ("C", "3")]);
    for (pairs, words) in [
        (
            &[("A", "2"), ("C", "4")][..],
            "environment variable A changed",
        ),
        (
            &[("A", "1"), ("B", "2"), ("C", "3")][..],
            "environment variable B added",
        ),
        (
            &[("A", "1"), ("C", "3"), ("D", "4")][..],
            "environment variable D added",
        ),
        (&[("C", "3")][..], "environment variable A removed"),
        (&[("A", "1")][..], "environment variable C removed"),
    ] {
        assert_eq!(told(&two, &variables(pairs)), words);
    }
}

#[test]
fn bases_commits_and_boundaries_have_words_of_their_own() {
    let base = |content: &[u8]| {
        Recipe::new("run").with(Role::Base, "base image", Value::Digest(Digest::of(content)))
    };
    let (one, two) = (Digest::of(b"1").hex(), Digest::of(b"2").hex());
    let words = format!(
        "base image changed (sha256 {}… → {}…)",
        &one[..8],
        &two[..8]
    );
    assert_eq!(told(&base(b"1"), &base(b"2")), words);
    let commit = |digit: &str| {
        Recipe::new("git_clone").with(Role::Commit, "commit", Value::Plain(digit.repeat(40)))
    };
    assert_eq!(
        told(&commit("a"), &commit("b")),
        "commit aaaaaaaa… → bbbbbbbb…"
    );
    let nonce =
        |recipe: Recipe| recipe.with(Role::Boundary, "boundary", Value::Digest(Digest::ZERO));
    let text = |recipe: Recipe| recipe.with(Role::Text, "step", Value::text("a"));
    assert_eq!(
        told(&text(nonce(base(b"1"))), &text(base(b"1"))),
        "the cache boundary before it was removed"
    );
    assert_eq!(
        told(&text(base(b"1")), &text(nonce(base(b"1")))),
        "a cache boundary was added before it"
    );
}

#[test]
fn files_are_told_by_path_with_their_digests() {
    let old = copy(vec![file("a", 0o644, "1"), file("b/c", 0o644, "2")]);
    let brief = |content: &str| format!("{}…", &Digest::of(content.as_bytes()).hex()[..8]);
    let cases = [
        (
            vec![file("a", 0o644, "1"), file("b/c", 0o644, "3")],
            format!("src/b/c changed (sha256 {} → {})", brief("2"), brief("3")),
        ),
        (
            vec![file("a", 0o755, "1"), file("b/c", 0o644, "2")],
            "mode of src/a changed (0644 → 0755)".to_owned(),
        ),
        (
            vec![file("a", 0o644, "1")],
            format!("src/b/c removed (sha256 {})", brief("2")),
        ),
        (
            vec![
                file("a", 0o644, "1"),
                file("a2", 0o644, "9"),
                file("b/c", 0o600, "2"),
            ],
            format!("src/a2 added (sha256 {}) and 1 more", brief("9")),
        ),
    ];
    for (files, words) in cases {
        assert_eq!(told(&old, &copy(files)), words);
    }
    let mut unlisted = old;
    unlisted.listings.clear();
    let new = copy(vec![file("a", 0o644, "x")]);
    assert_eq!(told(&unlisted, &new), "files of src changed");
}

#[test]
fn sources_of_one_name_are_told_apart() {
    let two = |first: &str, second: &str| {
        copy(vec![file("a", 0o644, first)]).and(&copy(vec![file("a", 0o644, second)]))
    };
    let brief = |content: &str| format!("{}…", &Digest::of(content.as_bytes()).hex()[..8]);
    assert_eq!(
        told(&two("1", "2"), &two("1", "3")),
        format!("src/a changed (sha256 {} → {})", brief("2"), brief("3"))
    );
}

#[test]
fn what_is_shown_is_one_line_without_control_characters() {
    assert_eq!(clipped("  one  ", 10), "one");
    assert_eq!(clipped("one\ntwo", 10), "one…");
    assert_eq!(clipped("0123456789", 4), "0123…");
    assert_eq!(clipped("\u{1b}[31mred", 10), "[31mred…");
    assert_eq!(clipped("ßßßß", 4), "ßßßß");
}
