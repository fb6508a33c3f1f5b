//! What dispatching needs to know of a kind of stream.

use domain::build::CorruptStream;
use domain::event::Event;
use domain::recorded::{Recorded, Version};
use domain::{build, keys, namespace, template, webhook};

/// A kind of stream that takes commands.
pub(super) trait Aggregate {
    type State: Clone + Send + Sync;
    type Event: Clone + Into<Event> + Send + Sync;
    type Command: Clone + Send + Sync;
    type Rejection: Send + Sync;

    /// Takes an event of such a stream; none if it belongs elsewhere.
    fn own(event: Event) -> Option<Self::Event>;

    /// Folds a whole stream.
    fn replay(history: &[Recorded<Self::Event>]) -> Result<(Self::State, Version), CorruptStream>;

    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;

    /// Whether nothing can happen any more, so that the state is not worth keeping.
    fn is_final(state: &Self::State) -> bool;

    /// The command's name in traces.
    fn command_name(command: &Self::Command) -> &'static str;
}

/// `build-…`
#[derive(Debug)]
pub(super) enum Builds {}

impl Aggregate for Builds {
    type State = build::Build;
    type Event = build::Event;
    type Command = build::Command;
    type Rejection = build::Rejection;

    fn own(event: Event) -> Option<Self::Event> {
        let Event::Build(mut event) = event else {
            return None;
        };
        // The rules count lines and do not read them: a long log is not held in memory.
        if let build::Event::StepLogged(logged) = &mut event {
            for line in &mut logged.lines {
                line.text = String::new();
            }
        }
        Some(event)
    }

    fn replay(history: &[Recorded<Self::Event>]) -> Result<(Self::State, Version), CorruptStream> {
        build::replay(history)
    }

    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection> {
        build::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Self::Event) -> Self::State {
        build::evolve(state, event)
    }

    fn is_final(state: &Self::State) -> bool {
        state.is_terminal()
    }

    fn command_name(command: &Self::Command) -> &'static str {
        match command {
            build::Command::Request(_) => "Request",
            build::Command::Queue { .. } => "Queue",
            build::Command::Start { .. } => "Start",
            build::Command::Report { .. } => "Report",
            build::Command::Complete { .. } => "Complete",
            build::Command::Fail { .. } => "Fail",
            build::Command::Abandon { .. } => "Abandon",
            build::Command::Cancel { .. } => "Cancel",
            build::Command::ConfirmCancelled { .. } => "ConfirmCancelled",
        }
    }
}

/// `namespace-…`
#[derive(Debug)]
pub(super) enum NameBook {}

impl Aggregate for NameBook {
    type State = namespace::Names;
    type Event = namespace::Event;
    type Command = namespace::Command;
    type Rejection = namespace::Rejection;

    fn own(event: Event) -> Option<Self::Event> {
        match event {
            Event::Namespace(event) => Some(event),
            Event::Build(_) | Event::Template(_) | Event::Keys(_) | Event::Webhook(_) => None,
        }
    }

    fn replay(history: &[Recorded<Self::Event>]) -> Result<(Self::State, Version), CorruptStream> {
        fold(history, namespace::Event::name, namespace::evolve)
    }

    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection> {
        namespace::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Self::Event) -> Self::State {
        namespace::evolve(state, event)
    }

    fn is_final(_: &Self::State) -> bool {
        false
    }

    fn command_name(command: &Self::Command) -> &'static str {
        match command {
            namespace::Command::Take { .. } => "TakeName",
            namespace::Command::TakeAlso { .. } => "TakeNameAlso",
            namespace::Command::Release { .. } => "ReleaseName",
            namespace::Command::ReleaseAll { .. } => "ReleaseAllNames",
            namespace::Command::Claim { .. } => "ClaimName",
            namespace::Command::ReleaseClaim { .. } => "ReleaseClaim",
        }
    }
}

/// `template-…`
#[derive(Debug)]
pub(super) enum Templates {}

impl Aggregate for Templates {
    type State = template::Template;
    type Event = template::Event;
    type Command = template::Command;
    type Rejection = template::Rejection;

    fn own(event: Event) -> Option<Self::Event> {
        match event {
            Event::Template(event) => Some(event),
            Event::Build(_) | Event::Namespace(_) | Event::Keys(_) | Event::Webhook(_) => None,
        }
    }

    fn replay(history: &[Recorded<Self::Event>]) -> Result<(Self::State, Version), CorruptStream> {
        fold(history, template::Event::name, template::evolve)
    }

    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection> {
        template::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Self::Event) -> Self::State {
        template::evolve(state, event)
    }

    fn is_final(state: &Self::State) -> bool {
        *state == template::Template::Deleted
    }

    fn command_name(command: &Self::Command) -> &'static str {
        match command {
            template::Command::Rename { .. } => "RenameTemplate",
            template::Command::RemoveAlias { .. } => "RemoveAlias",
            template::Command::SetVisibility { .. } => "SetVisibility",
            template::Command::AssignTags { .. } => "AssignTags",
            template::Command::RemoveTag { .. } => "RemoveTag",
            template::Command::ExpireArtifact { .. } => "ExpireArtifact",
            template::Command::PurgeArtifact { .. } => "PurgeArtifact",
            template::Command::Delete { .. } => "DeleteTemplate",
        }
    }
}

/// `keys`
#[derive(Debug)]
pub(super) enum KeyRing {}

impl Aggregate for KeyRing {
    type State = keys::Keys;
    type Event = keys::Event;
    type Command = keys::Command;
    type Rejection = keys::Rejection;

    fn own(event: Event) -> Option<Self::Event> {
        match event {
            Event::Keys(event) => Some(event),
            Event::Build(_) | Event::Template(_) | Event::Namespace(_) | Event::Webhook(_) => None,
        }
    }

    fn replay(history: &[Recorded<Self::Event>]) -> Result<(Self::State, Version), CorruptStream> {
        fold(history, keys::Event::name, keys::evolve)
    }

    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection> {
        keys::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Self::Event) -> Self::State {
        keys::evolve(state, event)
    }

    fn is_final(_: &Self::State) -> bool {
        false
    }

    fn command_name(command: &Self::Command) -> &'static str {
        match command {
            keys::Command::Create(_) => "CreateKey",
            keys::Command::Revoke(_) => "RevokeKey",
        }
    }
}

/// `webhook-…`
#[derive(Debug)]
pub(super) enum Webhooks {}

impl Aggregate for Webhooks {
    type State = webhook::Webhook;
    type Event = webhook::Event;
    type Command = webhook::Command;
    type Rejection = webhook::Rejection;

    fn own(event: Event) -> Option<Self::Event> {
        match event {
            Event::Webhook(event) => Some(event),
            Event::Build(_) | Event::Template(_) | Event::Namespace(_) | Event::Keys(_) => None,
        }
    }

    fn replay(history: &[Recorded<Self::Event>]) -> Result<(Self::State, Version), CorruptStream> {
        fold(history, webhook::Event::name, webhook::evolve)
    }

    fn decide(
        state: &Self::State,
        command: Self::Command,
    ) -> Result<Vec<Self::Event>, Self::Rejection> {
        webhook::decide(state, command)
    }

    fn evolve(state: Self::State, event: &Self::Event) -> Self::State {
        webhook::evolve(state, event)
    }

    fn is_final(state: &Self::State) -> bool {
        *state == webhook::Webhook::Deleted
    }

    fn command_name(command: &Self::Command) -> &'static str {
        match command {
            webhook::Command::Register(_) => "RegisterWebhook",
            webhook::Command::Pause(_) => "PauseWebhook",
            webhook::Command::Resume { .. } => "ResumeWebhook",
            webhook::Command::Replay { .. } => "ReplayWebhook",
            webhook::Command::DeadLetter { .. } => "DeadLetterDelivery",
            webhook::Command::Requeue { .. } => "RequeueDelivery",
            webhook::Command::Delete => "DeleteWebhook",
        }
    }
}

/// Folds a stream in which every event can follow every other: only its numbers can be wrong.
fn fold<S: Default, E>(
    history: &[Recorded<E>],
    name: fn(&E) -> &'static str,
    evolve: fn(S, &E) -> S,
) -> Result<(S, Version), CorruptStream> {
    let start = (S::default(), Version::EMPTY);
    history
        .iter()
        .try_fold(start, |(state, version), recorded| {
            if recorded.version == version {
                Ok((evolve(state, &recorded.event), version.plus(1)))
            } else {
                let event = name(&recorded.event);
                Err(CorruptStream { version, event })
            }
        })
}
