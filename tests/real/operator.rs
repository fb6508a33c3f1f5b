//! What an operator does beside the API: restore, doctor, keys, stopping and starting again.

use serde_json::Value;
use tests::runner::Scenario;
use tests::service::{Place, Service};

/// The script that builds what is restored here.
const TARGETS: &str = "restore_targets.py";

/// Scenarios that need no service of their own.
pub(crate) fn shared(service: &Service) -> Vec<Scenario<'_>> {
    let scenario = |name: &str, run: fn(&Service)| {
        Scenario::new(format!("operator::{name}"), move || run(service))
    };
    vec![
        scenario(
            "a_restored_machine_runs_its_start_command",
            start_command_runs,
        ),
        scenario(
            "two_clones_differ_in_randomness_and_agree_with_the_clock",
            clones,
        ),
        scenario("a_disk_grows_to_4096_mb", large_disk),
        scenario("a_template_on_a_template_has_what_it_inherits", family),
        scenario("an_unknown_template_is_named", unknown_template),
        scenario("the_doctor_finds_every_part", doctor),
        scenario("a_key_opens_the_service_until_it_is_revoked", keys),
    ]
}

/// Scenarios with services of their own.
pub(crate) fn own() -> Vec<Scenario<'static>> {
    vec![
        Scenario::new(
            "operator::a_second_start_finds_every_finished_build",
            second_start,
        ),
        Scenario::new("operator::a_killed_service_goes_on_with_its_builds", killed),
    ]
}

/// Restores a template, runs a command in it, and gives what the operator command printed.
pub(crate) fn restore(service: &Service, reference: &str, command: &str) -> Value {
    let output = service.operate(&["restore", reference, "--exec", command, "--json"]);
    assert!(
        output.status.success(),
        "restore {reference} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    serde_json::from_slice(&output.stdout).expect("--json prints one JSON value")
}

/// The text at `key` of what an operator command printed.
pub(crate) fn text<'a>(restored: &'a Value, key: &str) -> &'a str {
    restored
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no {key} in {restored}"))
}

fn number(restored: &Value, key: &str) -> u64 {
    restored
        .get(key)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("no {key} in {restored}"))
}

fn start_command_runs(service: &Service) {
    service.client(TARGETS, "web");
    let fetch = "python3 -c 'import urllib.request as r; \
                 print(r.urlopen(\"http://127.0.0.1:8000/hello.txt\").read().decode())'";
    let restored = restore(service, "restored-web", fetch);
    assert_eq!(
        text(&restored, "stdout").trim(),
        "hello from the context",
        "{restored}"
    );
    assert_eq!(number(&restored, "exit_code"), 0, "{restored}");
    assert!(number(&restored, "boot_to_agent_ms") > 0, "{restored}");

    let failing = restore(service, "restored-web", "echo out; echo err >&2; exit 7");
    assert_eq!(number(&failing, "exit_code"), 7, "{failing}");
    assert_eq!(
        (text(&failing, "stdout"), text(&failing, "stderr")),
        ("out\n", "err\n")
    );
}

fn family(service: &Service) {
    service.client(TARGETS, "family");
    let look = "id -un; pwd; echo $GREETING, $KEPT, [$BUILD_ONLY]; cat all; ls";
    let restored = restore(service, "family-grandchild", look);
    // `booted` is missing: what the parent's machine did is no part of the parent's layers.
    let expected = "daemon\n/place\nof the child, kept, []\n\
                    parent parent\nchild daemon /place of the parent kept []\n\
                    all\nchild\nparent\n";
    assert_eq!(text(&restored, "stdout"), expected, "{restored}");

    let stranger = new_key(service, "stranger", "with no templates");
    let envs = [("NULLSPACE_TEST_OTHER_KEY", stranger.as_str())];
    service.client_with(TARGETS, "somebody_elses", &envs);
}

fn clones(service: &Service) {
    service.client(TARGETS, "web");
    let draw = "head -c 16 /dev/urandom | od -An -tx1; date +%s";
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| restore(service, "restored-web", draw));
        let other = scope.spawn(|| restore(service, "restored-web", draw));
        (
            one.join().expect("restored"),
            other.join().expect("restored"),
        )
    });
    let parts = |restored: &Value| {
        let mut lines = text(restored, "stdout")
            .lines()
            .map(str::trim)
            .map(str::to_owned);
        (
            lines.next().expect("random bytes"),
            lines.next().expect("the time"),
        )
    };
    let ((random, time), (other_random, _)) = (parts(&one), parts(&other));
    assert_ne!(
        random, other_random,
        "two clones drew the same random bytes"
    );
    // The guest's clock was set from ours a moment ago; a snapshot's would be older by far.
    let host = std::process::Command::new("date")
        .arg("+%s")
        .output()
        .expect("date runs");
    let host: i64 = String::from_utf8_lossy(&host.stdout)
        .trim()
        .parse()
        .expect("seconds");
    let guest: i64 = time.parse().expect("seconds");
    assert!(
        (host - guest).abs() < 60,
        "the guest's clock says {guest}, ours {host}"
    );
}

fn large_disk(service: &Service) {
    service.client(TARGETS, "large_disk");
    let restored = restore(
        service,
        "restored-large",
        "cat /sys/block/vda/size; df -B1 --output=size / | tail -1",
    );
    let mut sizes = text(&restored, "stdout")
        .lines()
        .map(|line| line.trim().parse::<u64>().expect("a size"));
    let (sectors, filesystem) = (
        sizes.next().expect("the device"),
        sizes.next().expect("the filesystem"),
    );
    assert!(
        sectors * 512 >= 4096 * 1024 * 1024,
        "the device has {sectors} sectors"
    );
    // ext4 keeps some of the device for its own tables and journal.
    assert!(
        filesystem >= 3900 * 1024 * 1024,
        "the filesystem has {filesystem} bytes"
    );
    assert!(
        number(&restored, "disk_bytes") >= 4096 * 1024 * 1024,
        "{restored}"
    );
}

fn unknown_template(service: &Service) {
    let output = service.operate(&["restore", "no-such-template"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("no-such-template"), "{stderr}");
}

fn doctor(service: &Service) {
    let output = service.operate(&["doctor", "--json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).expect("--json prints one JSON value");
    assert!(output.status.success(), "{report}");
}

/// Makes a key and gives its text.
fn new_key(service: &Service, owner: &str, label: &str) -> String {
    let output = service.operate(&["key", "create", "--owner", owner, "--label", label]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = printed
        .split_whitespace()
        .find(|word| word.starts_with("ns_live_"));
    key.unwrap_or_else(|| panic!("no key in {printed}"))
        .to_owned()
}

fn keys(service: &Service) {
    let key = new_key(service, "guest", "for a while");
    assert_eq!(status_with(service, &key), "200");
    let list = service.operate(&["key", "list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(!list.contains(&key), "the list shows a key");
    let line = list
        .lines()
        .find(|line| line.contains("for a while"))
        .expect("the new key is listed");
    let id = line
        .split_whitespace()
        .find(|word| word.starts_with("key_"))
        .expect("an id");
    assert!(service.operate(&["key", "revoke", id]).status.success());
    assert_eq!(status_with(service, &key), "401");
}

/// The status of a request with `key`.
fn status_with(service: &Service, key: &str) -> String {
    let output = std::process::Command::new("curl")
        .args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--noproxy",
            "*",
        ])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .arg(format!("{}/v1/templates", service.url()))
        .output()
        .expect("curl is installed by make setup");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn second_start() {
    let place = Place::new();
    let service = place.start();
    service.client(TARGETS, "plain");
    let ended = service.terminate();
    assert!(ended.success(), "{ended}");
    let service = place.start();
    service.client(TARGETS, "plain_is_there");
    let restored = restore(&service, "restored-plain", "cat /made");
    assert_eq!(text(&restored, "stdout"), "made\n");
    assert!(service.terminate().success());
}

fn killed() {
    let place = Place::new();
    let service = place.start();
    let build = service.client(TARGETS, "begun");
    service.kill();
    let service = place.start();
    let envs = [("NULLSPACE_TEST_BUILD", build.trim())];
    service.client_with(TARGETS, "begun_ends_ready", &envs);
    assert!(service.terminate().success());
}
