//! Which commit a step is to clone: asked of the repository by the image's own git, as the step's user.

use super::making::{Making, container_error, release};
use super::{BuildFailure, StepError, StepEvent, StepObserver};
use crate::layers::Staging;
use crate::native::container::{Exit, OutputStream, StepNetwork};
use crate::native::git::{Clone, Commit};
use crate::native::step::Action;
use crate::native::tail::Tail;

/// What a shell gives when there is no such program.
const NOT_FOUND: i32 = 127;

/// What git said.
struct Answer {
    stdout: Vec<u8>,
    stdout_bytes_max: usize,
    /// There was more than is read.
    cut: bool,
    stderr: Tail,
}

impl Answer {
    fn add(&mut self, stream: OutputStream, bytes: &[u8]) {
        if stream == OutputStream::Stderr {
            return self.stderr.add(bytes);
        }
        let room = self.stdout_bytes_max.saturating_sub(self.stdout.len());
        self.cut |= bytes.len() > room;
        self.stdout.extend(bytes.iter().take(room));
    }
}

impl Making<'_> {
    /// The commit that the step is to clone, if it clones. It is asked for anew in each build: that a
    /// branch has moved is the point of asking.
    pub(super) async fn known_commit<O: StepObserver>(
        &self,
        observer: &mut O,
    ) -> Result<Option<Commit>, BuildFailure<O::Error>> {
        let Action::Clone(clone) = &self.step.action else {
            return Ok(None);
        };
        self.go_on()?;
        let scratch = self.builder.layers.scratch().await;
        let scratch = scratch.map_err(|source| BuildFailure::Store {
            index: self.step.index,
            source,
        })?;
        let commit = self.ask(clone, scratch).await;
        let commit = commit.map_err(|source| self.failure(source))?;
        let event = StepEvent::CommitKnown {
            wanted: clone.wanted(),
            commit: commit.clone(),
        };
        let told = observer.event(self.step, event).await;
        told.map_err(BuildFailure::Observer)?;
        Ok(Some(commit))
    }

    /// Asks, on the files beneath; what the question leaves there is thrown away.
    async fn ask(&self, clone: &Clone, scratch: Staging) -> Result<Commit, StepError> {
        let limits = *self.builder.containers.limits();
        // Ours is the last clone: the folder goes away with it, so it must outlive the mount.
        let root = self.root(scratch.clone()).await?;
        let mut answer = Answer {
            stdout: Vec::new(),
            stdout_bytes_max: limits.commit_answer_bytes_max,
            cut: false,
            stderr: Tail::new(limits.stderr_tail_bytes),
        };
        let mut spec = self.spec(&clone.question(), root.clone());
        spec.deadline = spec.deadline.min(limits.commit_wait);
        let deadline = spec.deadline;
        let gather = |stream, bytes: &[u8]| answer.add(stream, bytes);
        let containers = &self.builder.containers;
        let ran = containers.run(spec, gather, self.cancel.clone()).await;
        // The error of the question is the one to tell.
        let released = release(root).await;
        drop(scratch);
        let exit = ran.map_err(container_error)?;
        released?;
        if exit.cancelled {
            return Err(StepError::Cancelled);
        }
        let found = if exit.is_success() && !answer.cut {
            clone.commit(&String::from_utf8_lossy(&answer.stdout))
        } else {
            None
        };
        found.ok_or_else(|| StepError::Commit {
            wanted: clone.wanted(),
            reason: self.reason(exit, answer.cut, deadline.as_secs()),
            code: exit.code.filter(|code| *code != 0),
            stderr_tail: answer.stderr.lines(limits.stderr_tail_lines),
        })
    }

    /// Why there is no commit.
    fn reason(&self, exit: Exit, cut: bool, seconds: u64) -> String {
        let offline = match self.plan.network {
            StepNetwork::None => ", and the build has no network (`internet_access` is false)",
            StepNetwork::Internet => "",
        };
        match exit.code {
            _ if exit.timed_out => format!("git did not end within {seconds} s{offline}"),
            _ if exit.out_of_memory => "git ran out of memory".to_owned(),
            Some(0) if cut => "the repository's answer is too long".to_owned(),
            Some(0) => "the repository has no such commit".to_owned(),
            Some(NOT_FOUND) => "there is no git in the image".to_owned(),
            Some(code) => format!("git ended with code {code}{offline}"),
            None => format!("git was killed{offline}"),
        }
    }
}
