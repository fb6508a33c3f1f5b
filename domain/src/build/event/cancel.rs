//! The end of a build that somebody stopped, and the proof of it.

use serde::{Deserialize, Serialize};

/// Somebody wants the build stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// Who, as the wire shows it.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The build was stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// What was running and was killed; empty if nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub killed: Vec<String>,
    /// What was seen afterwards of what the attempt had held; nothing if it had held nothing, and in
    /// events from before anybody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aftermath: Option<Aftermath>,
}

/// What a worker saw when it looked for what a stopped attempt had held of the host.
///
/// Of each thing the kind and what an auditor finds it by: the number of a process, the name of a
/// control group, the name of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aftermath {
    /// What was looked for and is not there any more.
    pub gone: Vec<String>,
    /// What was still there when the time to go was over; empty if all is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// How long that took, in milliseconds: from when the attempt was told to stop, or the start of the service
    /// after the one that its worker was part of, to the last look.
    pub took_ms: u64,
}
