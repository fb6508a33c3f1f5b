//! The phases of a build: how to be in each for long enough, and what its end leaves to be seen.

use serde_json::{Value, json};
use tests::service::Service;

use super::slow_registry::SlowRegistry;
use crate::crash::host;

/// What the programs are called that make a root filesystem and run a machine, as the kernel cuts it.
const MKFS: &str = "mkfs.ext4";
const QEMU: &str = "qemu-system-x86";

/// A phase to cancel a build in.
pub(super) struct Phase {
    pub(super) name: &'static str,
    /// What is asked for.
    pub(super) body: Value,
    /// Whether the build is there yet.
    pub(super) reached: fn(&Seen<'_>) -> bool,
    /// What the log says that was stopped, one of these.
    pub(super) stopped: &'static [&'static str],
    /// What the log says that is gone, among others.
    pub(super) gone: &'static [&'static str],
}

/// What a build shows while it runs.
pub(super) struct Seen<'a> {
    pub(super) service: &'a Service,
    pub(super) marker: &'a str,
    pub(super) messages: &'a [String],
}

impl Seen<'_> {
    pub(super) fn says(&self, text: &str) -> bool {
        self.messages.iter().any(|message| message.contains(text))
    }

    fn runs(&self, program: &str) -> bool {
        let below = host::below(self.service.pid());
        below.iter().any(|process| process.name() == program)
    }

    fn marked(&self) -> bool {
        !host::with_argument(self.marker).is_empty()
    }

    fn has_folder(&self, parent: &str, prefix: &str) -> bool {
        let folder = self.service.data_dir().join(parent);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name())
            .any(|name| name.to_string_lossy().starts_with(prefix))
    }
}

pub(super) fn pull(registry: &SlowRegistry) -> Phase {
    Phase {
        name: "pull",
        body: json!({
            "base_image": format!("{}/library/python:3.11-slim", registry.host()),
            "name": "pulls",
        }),
        reached: |seen| {
            seen.says("Bringing in the layers of") && seen.has_folder("layers", ".tmp-")
        },
        stopped: &["the pull of the base image"],
        gone: &["folder layers/.tmp-"],
    }
}

pub(super) fn step(name: &str, marker: &str) -> Phase {
    let run = format!("sleep {marker} & sleep {marker}");
    Phase {
        name: "step",
        body: json!({
            "base_image": "debian:bookworm",
            "name": name,
            "steps": [{"action": "run", "command": run}],
        }),
        reached: |seen| seen.marked(),
        stopped: &["the container of step 1"],
        gone: &[
            "(the supervisor of a step)",
            "control groups nullspace-",
            "mount namespace ",
            "(slirp4netns)",
            "network namespace ",
            "folder bundles/",
            "folder runtime/",
            "folder layers/.tmp-",
        ],
    }
}

/// A request for a small machine, with `more` in it.
fn machine(name: &str, more: &Value) -> Value {
    let mut body = json!({
        "base_image": "debian:bookworm",
        "name": name,
        "build_config": {"vcpus": 1, "memory_mib": 256},
    });
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

/// The phases behind the pull that need no machine.
pub(super) fn of_images(marker: &str) -> Vec<Phase> {
    vec![
        step("step", marker),
        // The log refuses its lines, which may stop it before the worker does.
        Phase {
            name: "step that writes",
            body: json!({
                "base_image": "debian:bookworm",
                "name": "writes",
                "steps": [{
                    "action": "run",
                    "command": format!("sleep {marker} & while :; do echo line; sleep 0.001; done"),
                }],
            }),
            stopped: &["the container of step 1", "process "],
            ..step("", marker)
        },
        Phase {
            name: "BuildKit",
            body: json!({
                "name": "buildkit",
                "dockerfile": format!("FROM debian:bookworm\nRUN sleep {marker}\n"),
            }),
            reached: |seen| seen.marked() && seen.runs("buildctl"),
            stopped: &["the BuildKit build"],
            gone: &[
                "(buildctl)",
                "the build at the BuildKit daemon ",
                "folder work/dockerfile-",
            ],
        },
        Phase {
            name: "ext4",
            body: machine(
                "ext4",
                &json!({"steps": [{"action": "run", "command": "head -c 600M /dev/urandom > /large"}]}),
            ),
            reached: |seen| seen.runs(MKFS),
            stopped: &["the filesystem tools"],
            gone: &[
                "(mkfs.ext4)",
                "mount work/view-",
                "folder work/view-",
                "folder artifacts/.tmp-",
            ],
        },
    ]
}

/// The phases of a machine, in the order in which a build comes to them.
pub(super) fn of_machines() -> Vec<Phase> {
    let sleeping = "sleep 1700";
    let never = json!({"kind": "tcp", "port": 9, "timeout_secs": 600, "startup_grace_secs": 0});
    let slow = json!({"kind": "tcp", "port": 9, "timeout_secs": 600, "startup_grace_secs": 600});
    // Passes once: what it writes is in the snapshot, so that it never passes after a restore.
    let once = json!({
        "kind": "command",
        "command": "test ! -e /once && touch /once",
        "timeout_secs": 600,
        "startup_grace_secs": 0,
    });
    let probed = |name: &str, probe: &Value| {
        let more = json!({"start_cmd": sleeping, "runtime_config": {"readiness": probe}});
        machine(name, &more)
    };
    let in_machine: &[&str] = &[
        "(QEMU)",
        "(slirp4netns)",
        "network namespace ",
        "folder work/machine-",
    ];
    vec![
        Phase {
            name: "boot",
            body: machine("boot", &json!({})),
            reached: |seen| seen.runs(QEMU),
            stopped: &["the machine"],
            gone: in_machine,
        },
        Phase {
            name: "start command",
            body: probed("startup", &slow),
            reached: |seen| seen.says("Running the start command"),
            stopped: &["the machine"],
            gone: in_machine,
        },
        Phase {
            name: "readiness",
            body: probed("readiness", &never),
            reached: |seen| seen.says("Waiting until the start command is ready"),
            stopped: &["the machine"],
            gone: in_machine,
        },
        Phase {
            name: "snapshot",
            body: machine("snapshot", &json!({})),
            reached: |seen| seen.says("Capturing the machine"),
            stopped: &["the machine", "the restored machine"],
            gone: &["(QEMU)", "folder work/machine-"],
        },
        Phase {
            name: "restore check",
            body: machine("restore", &json!({"runtime_config": {"readiness": once}})),
            reached: |seen| seen.has_folder("work", "restore-") && seen.runs(QEMU),
            stopped: &["the restored machine"],
            gone: &["(QEMU)", "folder work/restore-"],
        },
    ]
}
