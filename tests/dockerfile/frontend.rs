//! The frontend of a real daemon, asked by buildctl.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tests::service::setting;

use crate::corpus::Case;

/// How long an answer may take, in seconds.
const ANSWER_SECONDS_MAX: &str = "60";

/// Stands every image of a registry that does not exist in for one that does.
const POLICY: &str = r#"{"rules": [{
  "action": "CONVERT",
  "selector": {"identifier": "docker-image://registry.test/*", "matchType": "WILDCARD"},
  "updates": {"identifier": "docker-image://docker.io/library/debian:bookworm"}
}]}"#;

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
        for op in answered["def"].as_object().expect("operations").values() {
            converted.take(op);
        }
        for about in answered["metadata"]
            .as_object()
            .expect("descriptions")
            .values()
        {
            if let Some(name) = about["description"]["llb.customname"].as_str() {
                converted.take_name(name);
            }
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
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        if output.status.success() {
            return Ok(Answer { stdout, stderr });
        }
        // It came as far as the file: so it is the frontend that refuses.
        let reached = stderr.contains("[internal] load build definition from Dockerfile");
        match stderr.rsplit_once("\nerror: ") {
            Some((_, refusal)) if reached => Err(refusal.trim_end().to_owned()),
            _ => panic!("buildctl failed otherwise: {stderr}"),
        }
    }
}

/// The images whose metadata were asked for, in raw progress.
fn images(progress: &str) -> BTreeSet<String> {
    let lines = progress
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut images = BTreeSet::new();
    for line in lines {
        for vertex in line["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().unwrap_or_default();
            images.extend(
                name.strip_prefix("[internal] load metadata for ")
                    .map(str::to_owned),
            );
        }
    }
    images
}

impl Converted {
    /// Takes note of an operation.
    fn take(&mut self, op: &Value) {
        if let Some(source) = op["source"]["identifier"].as_str() {
            let url = op["source"]["attrs"]["git.fullurl"].as_str();
            let is_url = source.starts_with("http://") || source.starts_with("https://");
            let with_ref = source.split_once('#').map(|(_, name)| format!("#{name}"));
            self.remote.extend(match url {
                Some(url) => Some(url.to_owned() + &with_ref.unwrap_or_default()),
                None if is_url => Some(source.to_owned()),
                None => None,
            });
        }
        let mounts = op["exec"]["mounts"].as_array().into_iter().flatten();
        let files = mounts
            .map(|mount| &mount["secretOpt"])
            .filter(|secret| !secret.is_null());
        let variables = op["exec"]["secretenv"].as_array().into_iter().flatten();
        for secret in files.chain(variables) {
            self.secrets.insert(Secret {
                id: secret["ID"]
                    .as_str()
                    .expect("a secret has an id")
                    .to_owned(),
                required: secret["optional"].as_bool() != Some(true),
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
