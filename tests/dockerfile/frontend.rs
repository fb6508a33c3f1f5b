//! The frontend of a real daemon, asked by buildctl.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::service::setting;

use crate::corpus::Case;

/// How long an answer may take, in seconds.
const ANSWER_SECONDS_MAX: &str = "60";

/// Stands every image of a registry that does not exist in for one that does, and lets the daemon ask for
/// no other.
const POLICY: &str = r#"{"rules": [
  {
    "action": "DENY",
    "selector": {"identifier": "docker-image://*", "match_type": "WILDCARD"}
  },
  {
    "action": "ALLOW",
    "selector": {"identifier": "docker-image://docker.io/library/debian:bookworm*", "match_type": "WILDCARD"}
  },
  {
    "action": "CONVERT",
    "selector": {"identifier": "docker-image://registry.test/*", "match_type": "WILDCARD"},
    "updates": {"identifier": "docker-image://docker.io/library/debian:bookworm"}
  }
]}"#;

/// A daemon, and a folder to ask it about.
pub(crate) struct Frontend {
    buildctl: String,
    address: String,
    folder: TempDir,
}

/// A secret that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Secret {
    pub(crate) id: String,
    pub(crate) required: bool,
}

/// What would be done.
#[derive(Debug, Default)]
pub(crate) struct Converted {
    /// The images that were asked for, by their complete names.
    pub(crate) images: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<Secret>,
    /// URLs and repositories that are fetched.
    pub(crate) remote: BTreeSet<String>,
    /// By the label of a stage, how many steps it has.
    pub(crate) steps: BTreeMap<String, usize>,
}

struct Answer {
    stdout: String,
    stderr: String,
}

impl Frontend {
    /// The daemon of `make test`.
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("nullspace-test-").expect("the disk has room");
        std::fs::write(folder.path().join("policy.json"), POLICY).expect("the disk has room");
        Self {
            buildctl: setting("NULLSPACE_BUILDCTL"),
            address: setting("NULLSPACE_TEST_BUILDKIT"),
            folder,
        }
    }

    /// What would be done, or why not.
    pub(crate) fn convert(&self, case: &Case) -> Result<Converted, String> {
        let answer = self.ask("frontend.convertllb", case)?;
        let json = answer
            .stdout
            .split_once("result.json\n")
            .expect("an answer")
            .1;
        let answered: Value = serde_json::from_str(json).expect("JSON");
        let mut converted = Converted {
            images: images(&answer.stderr),
            ..Converted::default()
        };
        for op in members(&answered, "/def") {
            converted.take(op);
        }
        for about in members(&answered, "/metadata") {
            converted.take_name(text(about, "/description/llb.customname").unwrap_or_default());
        }
        Ok(converted)
    }

    /// The build arguments that the file takes, with their values.
    pub(crate) fn outline(&self, case: &Case) -> Vec<(String, String)> {
        let answer = self.ask("frontend.outline", case);
        let answer = answer.expect("what can be converted can be told of");
        let mut lines = answer.stdout.lines();
        let Some(head) = lines.find(|line| line.starts_with("BUILD ARG")) else {
            return Vec::new();
        };
        let column = |name| head.find(name).expect("the table has this column");
        let (value, description) = (column("VALUE"), column("DESCRIPTION"));
        let rows = lines.take_while(|line| !line.is_empty());
        let cut = |line: &str, from: usize, to: usize| {
            let text: String = line.chars().skip(from).take(to - from).collect();
            text.trim_end().to_owned()
        };
        rows.map(|row| (cut(row, 0, value), cut(row, value, description)))
            .collect()
    }

    fn ask(&self, request: &str, case: &Case) -> Result<Answer, String> {
        let folder = self.folder.path();
        std::fs::write(folder.join("Dockerfile"), &case.text).expect("the disk has room");
        let local = |name: &str| format!("--local={name}={}", folder.display());
        let mut command = Command::new("timeout");
        command
            .args([ANSWER_SECONDS_MAX, &self.buildctl, "--addr", &self.address])
            .args(["build", "--progress=rawjson", "--frontend=dockerfile.v0"])
            .args([local("context"), local("dockerfile")])
            .arg(format!("--opt=requestid={request}"))
            // This daemon's own frontend, whatever the file asks for.
            .arg("--opt=cmdline=dockerfile.v0")
            .arg(format!(
                "--source-policy-file={}/policy.json",
                folder.display()
            ))
            .stdin(Stdio::null());
        for (name, value) in &case.build_args {
            command.arg(format!("--opt=build-arg:{name}={value}"));
        }
        if let Some(target) = case.target {
            command.arg(format!("--opt=target={target}"));
        }
        let output = command.output().expect("buildctl is installed");
        let [stdout, stderr] = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if output.status.success() {
            return Ok(Answer { stdout, stderr });
        }
        // It came as far as the file: so it is the frontend that refuses.
        let reached = stderr.contains("[internal] load build definition from Dockerfile");
        assert!(reached, "buildctl failed otherwise: {stderr}");
        let (_, refusal) = stderr.rsplit_once("\nerror: ").expect("an error");
        Err(refusal.trim_end().to_owned())
    }
}

/// The text at a place of an answer.
fn text<'a>(answer: &'a Value, place: &str) -> Option<&'a str> {
    answer.pointer(place)?.as_str()
}

/// What is in the list or object at a place of an answer.
fn members<'a>(answer: &'a Value, place: &str) -> Vec<&'a Value> {
    match answer.pointer(place) {
        Some(Value::Array(items)) => items.iter().collect(),
        Some(Value::Object(items)) => items.values().collect(),
        _ => Vec::new(),
    }
}

/// The images whose metadata were asked for, in raw progress.
fn images(progress: &str) -> BTreeSet<String> {
    let lines = progress
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut images = BTreeSet::new();
    for line in lines {
        for vertex in members(&line, "/vertexes") {
            let name = text(vertex, "/name").unwrap_or_default();
            let image = name.strip_prefix("[internal] load metadata for ");
            images.extend(image.map(str::to_owned));
        }
    }
    images
}

impl Converted {
    /// Takes note of an operation.
    fn take(&mut self, op: &Value) {
        if let Some(source) = text(op, "/source/identifier") {
            let is_url = source.starts_with("http://") || source.starts_with("https://");
            // A repository's own notation is beside, without what is asked of it.
            let repository = text(op, "/source/attrs/git.fullurl").map(|url| {
                let asked = source.split_once('#').map(|(_, asked)| format!("#{asked}"));
                url.to_owned() + &asked.unwrap_or_default()
            });
            self.remote
                .extend(repository.or_else(|| is_url.then(|| source.to_owned())));
        }
        let mounts = members(op, "/exec/mounts").into_iter();
        let files = mounts.filter_map(|mount| mount.pointer("/secretOpt"));
        for secret in files.chain(members(op, "/exec/secretenv")) {
            self.secrets.insert(Secret {
                id: text(secret, "/ID").expect("a secret has an id").to_owned(),
                required: secret.pointer("/optional") != Some(&Value::Bool(true)),
            });
        }
    }

    /// Takes note of a step's name: `[stage 2/3] RUN …`.
    fn take_name(&mut self, name: &str) {
        let Some((head, _)) = name.strip_prefix('[').and_then(|name| name.split_once(']')) else {
            return;
        };
        let (label, place) = head.rsplit_once(' ').unwrap_or(("", head));
        let total = place
            .split_once('/')
            .and_then(|(_, total)| total.parse().ok());
        if let Some(total) = total {
            self.steps.insert(label.trim_end().to_owned(), total);
        }
    }
}
