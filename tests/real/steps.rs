//! What steps made, seen from inside a machine that was resumed from their template.

use serde_json::Value;
use tests::runner::Scenario;
use tests::service::Service;

use crate::operator::{restore, text};

/// The script that builds what is restored here.
const STEPS: &str = "steps.py";

/// Scenarios that need no service of their own.
pub(crate) fn shared(service: &Service) -> Vec<Scenario<'_>> {
    vec![Scenario::new(
        "steps::a_machine_of_all_fifteen_kinds_shows_what_they_made",
        move || all_kinds(service),
    )]
}

/// Each line of the command's output is one thing that a step made.
const LOOK: &str = r#"set -u
id -un; pwd; echo "$HOME"
echo "${AT_RUN_TIME-unset}"; echo "${BUILD_ONLY-unset}"
git --version | cut -d' ' -f1,2
python3 -c 'import six; print(six.__name__)'
echo '{a:1}' | json5; echo
node -p 'require("ms")("1m")'
node -p 'require("json5").parse("{b:2}").b'
node -p 'require("/usr/local/lib/node_modules/ms")("2m")'
git -c safe.directory=/cloned -C /cloned log --format=%s
stat -c '%U %a' /copied/one.txt; cat '/items/sub folder/naïve ü.txt'
stat -c '%U %a' /www; readlink /www/link.txt; ls -A /www/skel | tr '\n' ' '; echo
test -e /etc/issue.net || echo removed
python3 -c 'import urllib.request as r; print(r.urlopen("http://127.0.0.1:8000/link.txt").read().decode().strip())'
"#;

const SEEN: [&str; 20] = [
    "app",
    "/www",
    "/home/app",
    "here it is",
    "unset",
    "git version",
    "six",
    r#"{"a":1}"#,
    "60000",
    "2",
    "120000",
    "c",
    "app 640",
    "odd",
    "app 755",
    "/copied/one.txt",
    ".bash_logout .bashrc .profile ",
    "removed",
    "one",
    "",
];

fn all_kinds(service: &Service) {
    service.client(STEPS, "every_kind_of_step_in_one_template");
    let restored = restore(service, "steps-every", LOOK);
    let seen: Vec<&str> = text(&restored, "stdout").split('\n').collect();
    assert_eq!(seen, SEEN, "{restored}");
    assert_eq!(
        restored.get("exit_code"),
        Some(&Value::from(0)),
        "{restored}"
    );
}
