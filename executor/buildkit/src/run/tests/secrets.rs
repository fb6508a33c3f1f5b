//! Where secrets are, and where they are not.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::process::{Command as Program, Stdio};

use rustix::process::{Signal, kill_process};
use secrecy::SecretSlice;

use super::*;
use crate::limits::BuildkitLimits;
use crate::testkit::{Bench, IsolatedDaemon, Watched, is_empty, shared_daemon, unique, watch};

/// Says which part of a test this process plays, if it was started for one.
const ROLE: &str = "NULLSPACE_TEST_ROLE";

fn secret(id: &str, value: &[u8]) -> (String, SecretSlice<u8>) {
    (id.to_owned(), value.to_vec().into())
}

/// An endless build with a secret, and that secret's value.
fn endless(bench: &Bench) -> (Invocation, String) {
    let value = unique("value-of-a-secret");
    let mut invocation = bench.invocation(&format!(
        "FROM debian:bookworm\nRUN --mount=type=secret,id=token : {}; \
         test -s /run/secrets/token && echo rea''dy; sleep 10000\n",
        unique("endless")
    ));
    invocation.secrets = vec![secret("token", value.as_bytes())];
    (invocation, value)
}

/// The last part of a path: what of it is on a command line as it is.
fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Whether this process finds `value` in a file below `folder`.
fn finds(folder: &Path, value: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return finds(&path, value);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).contains(value)
    })
}

/// The private folder of a build that runs.
fn private_folder(bench: &Bench) -> PathBuf {
    let folders = std::fs::read_dir(bench.scratch()).unwrap();
    let folders: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path()).collect();
    let [folder] = folders.as_slice() else {
        panic!("one private folder: {folders:?}");
    };
    folder.clone()
}

/// The folder of the bench, as `buildctl` sees it.
fn seen_by(client: &Watched, folder: &Path) -> PathBuf {
    let pid = client.pids().next().unwrap();
    let inside = folder.strip_prefix("/").unwrap();
    Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(inside)
}

#[tokio::test]
async fn a_step_gets_exactly_the_bytes_of_each_secret() {
    let bench = Bench::new();
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![b'x'; 500 * 1024];
    let values: [(&str, &[u8]); 5] = [
        ("lines", b"first\nsecond\r\n\n"),
        ("binary", &every_byte),
        ("empty", b""),
        ("large", &large),
        ("odd id=1", b"odd"),
    ];
    let mut dockerfile = "FROM debian:bookworm\nCOPY expected /expected\n".to_owned();
    std::fs::create_dir(bench.context().join("expected")).unwrap();
    for (index, (id, value)) in values.iter().enumerate() {
        std::fs::write(
            bench.context().join("expected").join(index.to_string()),
            value,
        )
        .unwrap();
        writeln!(
            dockerfile,
            "RUN --mount=type=secret,\"id={id}\",target=/secret,required=true \
             cmp /secret /expected/{index} && test \"$(stat -c %a /secret)\" = 400"
        )
        .unwrap();
    }
    let mut invocation = bench.invocation(&dockerfile);
    invocation.secrets = values.map(|(id, value)| secret(id, value)).into();
    let (outcome, said) = bench.build(invocation).await;
    outcome.unwrap_or_else(|error| panic!("{error:?}\n{said}"));
}

#[tokio::test]
async fn a_secret_is_where_buildctl_sees_it_and_nowhere_else() {
    let bench = Bench::new();
    let (invocation, value) = endless(&bench);
    let output = invocation.output.clone();
    let (mut heard, ended) = bench.start(invocation);
    let look = async {
        heard.output("ready").await;
        let folder = private_folder(&bench);
        let client = watch(&name(&output));
        let inside = seen_by(&client, &folder);
        assert_eq!(std::fs::read_to_string(inside.join("0")).unwrap(), value);
        assert!(finds(&inside, &value));

        assert!(is_empty(&folder));
        assert!(!finds(&bench.scratch(), &value));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&name(&folder)), "{mounts}");
        let pid = client.pids().next().unwrap();
        for told in ["cmdline", "environ"] {
            let told = std::fs::read(format!("/proc/{pid}/{told}")).unwrap();
            let told = String::from_utf8_lossy(&told);
            assert!(!told.contains(&value), "{told}");
        }
        bench.stop.cancel();
        client
    };
    let (outcome, client) = tokio::join!(ended, look);
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
    client.gone();
    assert!(is_empty(&bench.scratch()));
}

#[tokio::test]
async fn the_environment_and_the_private_folder_of_buildctl_are_as_they_should_be() {
    let bench = Bench::new();
    let (mut invocation, _) = endless(&bench);
    invocation.registries = vec![crate::invocation::RegistryLogin {
        host: "registry.example.com".to_owned(),
        user: "user".to_owned(),
        password: "password".into(),
    }];
    let output = invocation.output.clone();
    let (mut heard, ended) = bench.start(invocation);
    let look = async {
        heard.output("ready").await;
        let folder = private_folder(&bench);
        let client = watch(&name(&output));
        let pid = client.pids().next().unwrap();
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        let folder_text = folder.to_string_lossy();
        let expected =
            ["PATH", "HOME", "DOCKER_CONFIG"].map(|name| format!("{name}={folder_text}"));
        let mut variables: Vec<&str> = environment.split_terminator('\0').collect();
        variables.sort_unstable();
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(variables, expected);

        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.contains("buildctl-"))
            .unwrap();
        for word in [
            "tmpfs", "nosuid", "nodev", "noexec", "mode=700", "size=", "noswap",
        ] {
            assert!(mount.contains(word), "{word}: {mount}");
        }
        for file in ["0", "config.json", "policy.json"] {
            use std::os::unix::fs::PermissionsExt as _;
            let metadata = std::fs::metadata(seen_by(&client, &folder).join(file)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o600, "{file}");
        }
        bench.stop.cancel();
    };
    let (outcome, ()) = tokio::join!(ended, look);
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
}

#[tokio::test]
async fn nothing_is_left_of_a_secret_when_buildctl_is_killed() {
    let bench = Bench::new();
    let (invocation, value) = endless(&bench);
    let output = invocation.output.clone();
    let (mut heard, ended) = bench.start(invocation);
    let kill = async {
        heard.output("ready").await;
        let client = watch(&name(&output));
        for pid in client.pids() {
            kill_process(pid, Signal::KILL).unwrap();
        }
        client
    };
    let (outcome, client) = tokio::join!(ended, kill);
    failure(outcome);
    client.gone();
    assert!(!output.exists());
    assert!(is_empty(&bench.scratch()) && !finds(&bench.scratch(), &value));
}

/// The part of a service: builds without end, and says when the build runs.
fn build_until_killed() {
    let bench = Bench::new();
    let (invocation, value) = endless(&bench);
    println!("value {value}\noutput {}", invocation.output.display());
    println!("scratch {}", bench.scratch().display());
    let (mut heard, ended) = bench.start(invocation);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ready = async {
        heard.output("ready").await;
        println!("ready");
    };
    drop(runtime.block_on(async { tokio::join!(ended, ready) }));
}

#[test]
fn the_death_of_the_service_takes_buildctl_and_its_secrets_along() {
    if std::env::var_os(ROLE).is_some() {
        return build_until_killed();
    }
    let test = "run::tests::secrets::the_death_of_the_service_takes_buildctl_and_its_secrets_along";
    let mut service = Program::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, "service")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [("value ", None), ("output ", None), ("scratch ", None)];
    for line in BufReader::new(service.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        for (name, value) in &mut said {
            if let Some((_, rest)) = line.split_once(*name) {
                *value = Some(rest.to_owned());
            }
        }
        if line == "ready" {
            break;
        }
    }
    let [value, output, scratch] = said.map(|(name, value)| value.expect(name));
    let client = watch(&name(Path::new(&output)));
    service.kill().unwrap();
    service.wait().unwrap();
    client.gone();
    let scratch = Path::new(&scratch);
    assert!(scratch.is_dir() && !finds(scratch, &value));
    std::fs::remove_dir_all(scratch.parent().unwrap()).unwrap();
}

fn records(daemon: &IsolatedDaemon) -> String {
    daemon.ask(&["debug", "histories", "--format", "{{json .}}"])
}

#[tokio::test]
async fn a_daemon_that_records_builds_forgets_those_with_secrets() {
    let daemon = IsolatedDaemon::start();
    let bench = Bench::at([daemon.address()], BuildkitLimits::default());
    let dockerfile = "FROM scratch\nCOPY Dockerfile /\n";
    bench.outcome(dockerfile).await.unwrap();
    assert_eq!(records(&daemon).lines().count(), 1);

    let mut with_secret = bench.invocation(dockerfile);
    with_secret.secrets = vec![secret("token", b"value")];
    bench.build(with_secret).await.0.unwrap();
    assert_eq!(records(&daemon), "");
}

#[tokio::test]
async fn a_daemon_that_records_builds_forgets_one_that_was_stopped_too() {
    let daemon = IsolatedDaemon::start();
    let bench = Bench::at([daemon.address()], BuildkitLimits::default());
    let token = unique("endless");
    let mut invocation = bench.endless_without_image(&token);
    invocation.secrets = vec![secret("token", b"value")];
    let (mut heard, ended) = bench.start(invocation);
    let stop = async {
        heard.output("ready").await;
        let seen = watch(&token);
        bench.stop.cancel();
        seen
    };
    let (outcome, seen) = tokio::join!(ended, stop);
    assert!(matches!(outcome, Err(RunError::Stopped)), "{outcome:?}");
    seen.gone();
    assert_eq!(records(&daemon), "");
}

#[tokio::test]
async fn a_secret_that_is_too_large_is_refused_before_anything_starts() {
    let limits = BuildkitLimits {
        secret_bytes_max: 3,
        ..BuildkitLimits::default()
    };
    let bench = Bench::at([shared_daemon()], limits);
    let mut invocation = bench.invocation("FROM scratch\nCOPY Dockerfile /\n");
    invocation.secrets = vec![secret("token", b"four")];
    let (outcome, said) = bench.build(invocation).await;
    let Err(RunError::Invalid(InvalidInvocation::SecretTooLarge { id, bytes_max: 3 })) = outcome
    else {
        panic!("{outcome:?}");
    };
    assert_eq!((id.as_str(), said.as_str()), ("token", ""));
}
