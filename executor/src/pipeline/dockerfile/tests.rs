//! Builds of Dockerfiles on a real daemon, from the request to the layers.
#![expect(
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    reason = "a real build is costly and shows many things; a test looks for one kind of event"
)]

mod failing;
mod kit;
mod lost;
mod secrets;

use std::os::unix::fs::MetadataExt as _;

use domain::build::Event;
use kit::{Wish, World};

use super::super::settle;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dockerfile_becomes_layers_and_settings() {
    let world = World::new().await;
    let dockerfile = "\
ARG BASE=debian
FROM ${BASE}:bookworm AS tools
ARG GREETING
RUN echo \"$GREETING\" > /greeting

FROM debian:bookworm
ENV PORT=8080 LANG=de_DE
WORKDIR /srv/app
COPY --from=tools /greeting .
COPY --chmod=0750 run.sh sub/ ./
RUN <<EOF
set -e
mkfifo /fifo
echo one; echo two >&2
EOF
VOLUME /data /srv/app/state
EXPOSE 8080
LABEL org.example.kind=test
USER 1000
HEALTHCHECK --interval=2s CMD test -e /srv/app/greeting
CMD [\"./run.sh\", \"two words\"]
";
    let built = world
        .build(Wish {
            dockerfile,
            files: &[
                ("run.sh", 0o4755, "#!/bin/sh\n"),
                ("sub/deep/file", 0o640, "deep"),
                ("ignored.log", 0o644, "x"),
                (".dockerignore", 0o644, "*.log\n"),
            ],
            build_args: &[("GREETING", "hello, \"you\" $x")],
            ..Wish::default()
        })
        .await;
    let base = built.made();
    assert_eq!(
        built.read("srv/app/greeting").unwrap(),
        "hello, \"you\" $x\n"
    );
    assert_eq!(built.read("srv/app/deep/file").unwrap(), "deep");
    assert_eq!(built.read("srv/app/ignored.log"), None);
    built.look(|root| {
        assert_eq!(
            root.join("srv/app/run.sh").metadata().unwrap().mode() & 0o7777,
            0o750
        );
        assert!(root.join("data").is_dir() && root.join("srv/app/state").is_dir());
    });

    let resolved = base.resolved.as_ref().unwrap();
    assert_eq!(resolved.reference, "docker.io/library/debian:bookworm");
    assert_eq!(base.env_keys, ["LANG", "PORT"]);
    assert_eq!(base.oci.exposed_ports, ["8080/tcp"]);
    assert_eq!(base.oci.volumes, ["/data", "/srv/app/state"]);
    assert_eq!(base.oci.labels["org.example.kind"], "test");
    let definition = requested(&built.events);
    let runtime = settle::runtime(&definition, &base.defaults);
    assert_eq!(runtime.start_cmd.as_deref(), Some("./run.sh 'two words'"));
    assert_eq!((&*runtime.user, &*runtime.workdir), ("1000", "/srv/app"));
    assert_eq!(runtime.env["PORT"], "8080");
    let check = base.oci.healthcheck.as_ref().unwrap();
    assert_eq!(check.mapped_readiness, runtime.readiness);
    assert!(runtime.readiness.is_some());

    let log = built.log();
    assert!(
        log.contains("Stdout one\n") && log.contains("Stderr two\n"),
        "{log}"
    );
    assert!(
        log.contains("Making folders that the image has not: /data, /srv/app/state"),
        "{log}"
    );
    let left = std::fs::read_dir(world.services.work_dir.path())
        .unwrap()
        .count();
    assert_eq!(left, 0, "something of the build stayed");
}

fn requested(events: &[Event]) -> domain::definition::Definition {
    match events.first() {
        Some(Event::Requested(requested)) => requested.definition.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_built_before_is_hit_and_skip_cache_builds_it_again() {
    let world = World::new().await;
    // Unlike what any other test has built.
    let dockerfile = format!(
        "FROM debian:bookworm\nRUN echo {} > /made\n",
        world.folder().display()
    );
    let wish = |skip_cache| Wish {
        dockerfile: &dockerfile,
        skip_cache,
        ..Wish::default()
    };
    let names = |events: &[Event]| -> Vec<&'static str> {
        let cache = events
            .iter()
            .map(Event::name)
            .filter(|name| name.starts_with("Cache"));
        cache.collect()
    };
    let first = world.build(wish(false)).await;
    assert_eq!(names(&first.events), ["CacheMissed", "CacheStored"]);
    let second = world.build(wish(false)).await;
    assert_eq!(names(&second.events), ["CacheHit"]);
    assert_eq!(first.made().key, second.made().key);
    let steps = second.steps();
    assert!(steps.last().unwrap().1, "{steps:?}");
    let again = world.build(wish(true)).await;
    assert_eq!(names(&again.events)[0], "CacheBypassed");
    let key = |events: &[Event]| {
        events.iter().find_map(|event| match event {
            Event::CacheHit(entry) => Some(entry.key),
            Event::CacheMissed(missed) => Some(missed.entry.key),
            _ => None,
        })
    };
    assert_eq!(key(&first.events), key(&second.events));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_s_command_starts_no_service_and_one_of_the_dockerfile_does() {
    let world = World::new().await;
    for (dockerfile, expected) in [
        ("FROM debian:bookworm\nRUN true\n", None),
        ("FROM debian:bookworm\nCMD echo $HOME\n", Some("echo $HOME")),
    ] {
        let built = world
            .build(Wish {
                dockerfile,
                ..Wish::default()
            })
            .await;
        let runtime = settle::runtime(&requested(&built.events), &built.made().defaults);
        assert_eq!(runtime.start_cmd.as_deref(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_run_at_once_keep_their_lines_apart() {
    let world = World::new().await;
    let dockerfile = format!(
        "FROM debian:bookworm AS one\nRUN for i in 1 2 3 4; do echo one-$i; sleep 0.2; done # {0}\n\
         FROM debian:bookworm AS two\nRUN for i in 1 2 3 4; do echo two-$i; sleep 0.2; done # {0}\n\
         FROM debian:bookworm\nCOPY --from=one /etc/issue /one\nCOPY --from=two /etc/issue /two\n",
        world.folder().display()
    );
    let built = world
        .build(Wish {
            dockerfile: &dockerfile,
            ..Wish::default()
        })
        .await;
    built.made();
    let log = built.log();
    for word in ["one", "two"] {
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains(&format!(" {word}-")))
            .collect();
        let steps: std::collections::BTreeSet<&str> = lines
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!((lines.len(), steps.len()), (4, 1), "{log}");
        assert!(!steps.contains("0"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_and_an_endless_line_are_handled() {
    let world = World::new().await;
    let dockerfile = format!(
        "FROM debian:bookworm\nRUN head -c 1000000 /dev/zero | tr '\\0' x; echo; seq 1 20000000; echo the end # {}\n",
        world.folder().display()
    );
    let built = world
        .build(Wish {
            dockerfile: &dockerfile,
            ..Wish::default()
        })
        .await;
    built.made();
    let log = built.log();
    let whole: usize = log.lines().map(|line| line.matches('x').count()).sum();
    assert!(whole > 100_000, "{whole}");
    assert!(log.len() < 100 << 20);
}
