//! What a build says while it runs, and how it fails.

use std::time::Duration;

/// A numbered instruction of a Dockerfile that is being built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place among all steps of the build, from 1: stages in the order of the Dockerfile, and in
    /// each its instructions in order.
    pub index: u32,
    /// How many steps the build has.
    pub total: u32,
    /// What it is, for people: the stage, its place in it, the instruction. It may hold the values of
    /// build arguments.
    pub title: String,
}

/// Where a step wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something that happened, in order. Each step starts once and, unless the build fails or is stopped,
/// ends once. Steps of several stages may be under way at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A step began.
    StepStarted(Step),
    /// A step wrote bytes, cut anywhere. No byte comes twice. They come while the step is under way, but
    /// for one case: BuildKit may call a step cached for one that builds on it, and do it after all for
    /// another.
    StepOutput {
        /// The step's index.
        step: u32,
        /// Where to.
        stream: OutputStream,
        /// What.
        bytes: Vec<u8>,
    },
    /// A step ended well.
    StepFinished {
        /// The step.
        step: Step,
        /// How long it took; zero if it was cached.
        duration: Duration,
        /// Whether its result was there.
        cached: bool,
        /// What BuildKit knows it by: the digest (`sha256:…`) of what it does and of all that it takes;
        /// of its last part, if it has several.
        vertex: String,
    },
    /// Something worth a line that belongs to no step: a base image is resolved, the context is
    /// transferred, the result is exported.
    Note(String),
    /// Something that deserves attention: a warning about the Dockerfile, with its line.
    Warning(String),
}

/// Why a build failed, as far as BuildKit tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What BuildKit says, in one sentence or a few lines, without its prefixes (`error: `,
    /// `failed to solve: `).
    pub message: String,
    /// The step that failed, if one did.
    pub step: Option<Step>,
    /// The exit code of the process that failed, if one did.
    pub exit_code: Option<i32>,
    /// The part of the Dockerfile that BuildKit shows beside the message.
    pub excerpt: Option<Excerpt>,
    /// The last lines that the failed step wrote to its standard error, or to its standard output if
    /// it wrote none there; bounded.
    pub output_tail: Vec<String>,
}

/// A part of a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The file's name.
    pub file: String,
    /// The line at fault, from 1.
    pub line: u32,
    /// The lines around it, as BuildKit prints them.
    pub text: String,
}

/// Kinds of failures that call for different answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// The Dockerfile cannot be understood, names a stage that is not there, copies what is not there.
    Dockerfile,
    /// A step's process ended with a failure.
    Step,
    /// A step's process was killed for want of memory.
    OutOfMemory,
    /// Nothing has the name of a base image.
    ImageNotFound,
    /// A registry wants other credentials.
    ImageUnauthorized,
    /// An image has no variant for this platform.
    ImagePlatform,
    /// A registry failed: 5xx, 429, a time-out, a reset.
    ImagePull,
    /// The source policy refuses what the Dockerfile asks for: a URL, a repository, an image.
    SourceDenied,
    /// A step asks for a secret that was not brought.
    SecretMissing,
    /// The Dockerfile asks for a privilege that builds do not have (`RUN --network=host`,
    /// `RUN --security=insecure`).
    PrivilegeDenied,
    /// The daemon has no room.
    DiskFull,
    /// The daemon cannot be reached, or was lost.
    DaemonUnavailable,
    /// The build was cancelled.
    Cancelled,
    /// Something else.
    Other,
}
