//! Secret values: used by steps, and nowhere afterwards.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::failure::FailureReason;

use super::kit::{Wish, World};

const TOKEN: &str = "c4n4ry-8fd1c07b6e2a4d95";
const KEY: &str = "first-line-5d3f9a71c2\nsecond-line-b8e60417fa\n";

/// Every way in which the values must not be seen again.
fn forms() -> Vec<String> {
    let hex = |text: &str| {
        text.bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat()
    };
    let mut forms = vec![
        TOKEN.to_owned(),
        STANDARD.encode(TOKEN),
        hex(TOKEN),
        hex(TOKEN).to_uppercase(),
    ];
    for line in KEY.lines() {
        forms.push(line.to_owned());
    }
    forms.push(STANDARD.encode(KEY).trim_end_matches('=').to_owned());
    forms
}

/// The files below a folder that hold one of the values.
fn holding(folder: &Path) -> Vec<String> {
    let files = walkdir::WalkDir::new(folder)
        .into_iter()
        .filter_map(Result::ok);
    files
        .filter(|entry| entry.file_type().is_file())
        .filter(|entry| {
            let content = std::fs::read(entry.path()).unwrap();
            forms().iter().any(|form| {
                content
                    .windows(form.len())
                    .any(|window| window == form.as_bytes())
            })
        })
        .map(|entry| entry.path().display().to_string())
        .collect()
}

const SECRETS: &[(&str, &str)] = &[("token", TOKEN), ("key.pem", KEY)];
const MOUNTS: &str = "--mount=type=secret,id=token,required=true --mount=type=secret,id=key.pem";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_used_and_seen_nowhere_afterwards() {
    let world = World::new().await;
    let mark = world.folder().display();
    let print = "t=/run/secrets/token; k=/run/secrets/key.pem; cat $t; echo; cat $k >&2; base64 $t; base64 -w0 $k; echo; \
                 printf 'c4n4ry-8fd1c'; sleep 0.3; printf '07b6e2a4d95\\n'; od -An -tx1 $t | tr -d ' \\n'; echo; \
                 printf 'c4n4ry-\\033[1m8fd1c07b6e2a4d95\\n'; sha256sum $t $k > /sum";
    for (dockerfile, reason) in [
        (
            format!("FROM debian:bookworm\nRUN {MOUNTS} {print} # {mark}\n"),
            None,
        ),
        (
            format!("FROM debian:bookworm\nRUN {MOUNTS} {print}; exit 3 # {mark}\n"),
            Some(FailureReason::StepFailed),
        ),
    ] {
        let built = world
            .build(Wish {
                dockerfile: &dockerfile,
                secrets: SECRETS,
                ..Wish::default()
            })
            .await;
        match reason {
            None => {
                let sums = built.read("sum").unwrap();
                let expected = domain::Digest::of(TOKEN.as_bytes()).hex();
                assert!(
                    sums.starts_with(&expected),
                    "the step saw another value: {sums}"
                );
            }
            Some(reason) => assert_eq!(built.failure().reason, reason),
        }
        let told = format!(
            "{}\n{}",
            serde_json::to_string(&built.events).unwrap(),
            built.log()
        );
        let told = match &built.base {
            Ok(_) => told,
            Err(error) => format!("{told}{error:?}"),
        };
        for form in forms() {
            assert!(!told.contains(&form), "{form} in {told}");
        }
        assert!(told.contains("[REDACTED]"), "{told}");
        assert_eq!(holding(world.folder()), Vec::<String>::new());
    }
    // The same look finds a value that was put there.
    std::fs::write(
        world.folder().join("planted"),
        format!("x{}", STANDARD.encode(TOKEN)),
    )
    .unwrap();
    assert_eq!(holding(world.folder()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_in_the_image_fails_the_build_and_its_layer_is_not_kept() {
    let world = World::new().await;
    let mark = world.folder().display();
    for (command, path) in [
        ("cp /run/secrets/token /app-token", "/app-token"),
        (
            "mkdir /a; echo \"key: $(base64 -w0 /run/secrets/token)\" > /a/b",
            "/a/b",
        ),
        ("head -1 /run/secrets/key.pem > /first", "/first"),
        ("ln -s $(cat /run/secrets/token) /link", "/link"),
        ("mkdir -p /x/$(cat /run/secrets/token)", "/x"),
        ("cp /run/secrets/token /gone && true", "/gone"),
    ] {
        let dockerfile = format!(
            "FROM debian:bookworm\nRUN {MOUNTS} {command} # {mark}\nRUN rm -rf /gone # {mark}\n"
        );
        let built = world
            .build(Wish {
                dockerfile: &dockerfile,
                secrets: SECRETS,
                ..Wish::default()
            })
            .await;
        let failure = built.failure();
        assert_eq!(failure.reason, FailureReason::SecretLeaked, "{command}");
        assert_eq!(failure.details["path"], path, "{command}");
        assert!(failure.message.contains(path), "{failure:?}");
        let told = format!("{failure:?}");
        assert!(forms().iter().all(|form| !told.contains(form)), "{told}");
        assert_eq!(holding(world.folder()), Vec::<String>::new(), "{command}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_is_there_is_searched_for_the_secrets_of_the_next_build() {
    let world = World::new().await;
    let wish = |secrets| Wish {
        dockerfile: "FROM scratch\nCOPY plain /plain\n",
        files: &[("plain", 0o644, TOKEN)],
        secrets,
        ..Wish::default()
    };
    world.build(wish(&[])).await.made();
    let built = world.build(wish(SECRETS)).await;
    assert_eq!(built.failure().details["path"], "/plain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_in_the_configuration_fails_the_build() {
    let world = World::new().await;
    let dockerfile = "FROM scratch\nARG T\nENV TOKEN=$T\nCOPY a /a\n";
    let built = world
        .build(Wish {
            dockerfile,
            files: &[("a", 0o644, "a")],
            build_args: &[("T", TOKEN)],
            secrets: SECRETS,
            ..Wish::default()
        })
        .await;
    let failure = built.failure();
    assert_eq!(failure.reason, FailureReason::SecretLeaked);
    assert_eq!(failure.details["path"], "config.Env");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_value_does_not_miss_the_cache() {
    let world = World::new().await;
    let dockerfile = format!(
        "FROM debian:bookworm\nRUN {MOUNTS} date +%N > /when # {}\n",
        world.folder().display()
    );
    let wish = |value| Wish {
        dockerfile: &dockerfile,
        secrets: value,
        ..Wish::default()
    };
    let first = world.build(wish(SECRETS)).await;
    let other = world
        .build(wish(&[("token", "an0ther-value-of-it"), ("key.pem", KEY)]))
        .await;
    assert_eq!(first.made().key, other.made().key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_value_is_told_to_be_unprotected() {
    let world = World::new().await;
    let built = world
        .build(Wish {
            dockerfile: "FROM scratch\nCOPY a /a\n",
            files: &[("a", 0o644, "a")],
            secrets: &[("pin", "1234")],
            ..Wish::default()
        })
        .await;
    built.made();
    assert!(
        built
            .log()
            .contains("the secret `pin` has fewer than 6 bytes"),
        "{}",
        built.log()
    );
}
