//! Random histories that the rules of the domain allow.

use std::collections::BTreeMap;

use domain::Digest;
use domain::build::{
    Build, BypassReason, CacheBypassed, CacheMissed, CacheStored, Cancelled, Command,
    Event as BuildEvent, Fence, LogLine, LogStream, Phase, PhaseFinished, PhaseStarted, RetryOf,
    StepFinished, StepLogged, StepStarted, decide, evolve,
};
use domain::failure::{Failure, FailureReason};
use domain::namespace::{self, Command as NameCommand, Names};
use domain::recorded::Position;
use domain::template::{self, Command as TemplateCommand, Template, Visibility};
use domain::webhook::{self, Command as WebhookCommand, PauseReason, Webhook};
use proptest::prelude::*;

use crate::testing::{
    History, artifact, at, build_id, dead_letter, grown, layer, name, owner, request, slug,
    snapshot, step_failure, tag, template_id, webhook_registration, worker,
};

/// One thing that somebody tries. What the rules refuse does not happen.
#[derive(Clone, Debug)]
pub(crate) enum Try {
    Build(u8, u8, u32),
    Template(u8, u8, u8),
    Claim(u8, u8, u8),
    Webhook(u8, u8, u64),
}

pub(crate) const BUILDS: u8 = 4;
pub(crate) const TEMPLATES: u8 = 2;

pub(crate) fn tries() -> impl Strategy<Value = Vec<Try>> {
    let build = (1..=BUILDS, 0..25_u8, 0..5_u32)
        .prop_map(|(build, what, detail)| Try::Build(build, what, detail));
    let template = (1..=TEMPLATES, 0..10_u8, 1..=BUILDS)
        .prop_map(|(template, what, build)| Try::Template(template, what, build));
    let claim =
        (0..3_u8, 0..3_u8, 0..3_u8).prop_map(|(what, name, token)| Try::Claim(what, name, token));
    let webhook = (1..3_u8, 0..8_u8, 1..4_u64)
        .prop_map(|(webhook, what, position)| Try::Webhook(webhook, what, position));
    prop::collection::vec(
        prop_oneof![18 => build, 3 => template, 1 => claim, 2 => webhook],
        0..120,
    )
}

/// The template that a build is one of.
fn template_of(build: u8) -> u8 {
    build % TEMPLATES + 1
}

/// The command of a number; most make progress, so that histories get somewhere.
fn command(state: &Build, build: u8, what: u8, detail: u32) -> Command {
    let fence = match state {
        Build::Building(_, attempt) | Build::Cancelling(_, attempt) => attempt.fence,
        Build::Absent
        | Build::Waiting(_)
        | Build::Ready(..)
        | Build::Failed(..)
        | Build::Cancelled(_) => Fence(u64::from(detail)),
    };
    match what {
        0..=2 => {
            let tags = [&["default"][..], &["v1", "v2"]][usize::from(build % 2)];
            let mut request = request(template_of(build), tags);
            request.retry_of = (build > 1 && detail.is_multiple_of(2)).then(|| RetryOf {
                build: build_id(build - 1),
                original: build_id(1),
            });
            Command::Request(Box::new(request))
        }
        3..=5 => Command::Start { worker: worker() },
        6..=14 => Command::Report {
            fence,
            events: progress(what, detail),
        },
        15..=17 => Command::Complete {
            fence,
            snapshotted: snapshot(build),
        },
        18 => Command::Fail {
            fence,
            failure: step_failure(),
        },
        19..=20 => Command::Fail {
            fence,
            failure: Failure::new(FailureReason::BootFailed, "no answer"),
        },
        21 => Command::Abandon {
            failure: Failure::new(FailureReason::SecretsLost, "gone"),
        },
        24 => Command::Queue { place: detail + 1 },
        22 => Command::Cancel {
            by: "key_1".into(),
            reason: None,
        },
        _ => Command::ConfirmCancelled {
            fence,
            cancelled: Cancelled::default(),
        },
    }
}

fn progress(what: u8, detail: u32) -> Vec<BuildEvent> {
    let index = detail + 1;
    let entry = layer(index, "RUN x");
    let line = |number: u32| LogLine {
        at: at(i64::from(number)),
        stream: [LogStream::Stderr, LogStream::Warning][usize::from(number.is_multiple_of(7))],
        text: "y".repeat(usize::try_from(number * number * 9).unwrap()),
    };
    match what {
        6 => vec![
            BuildEvent::PhaseStarted(PhaseStarted { phase: Phase::Step }),
            BuildEvent::StepStarted(StepStarted {
                index,
                total: 5,
                name: format!("RUN {index}"),
            }),
        ],
        7 => vec![
            BuildEvent::StepFinished(StepFinished {
                index,
                total: 5,
                duration_ms: 1,
                exit_code: Some(0),
                cached: detail.is_multiple_of(2),
            }),
            BuildEvent::PhaseFinished(PhaseFinished {
                phase: Phase::Step,
                duration_ms: 2,
                pulled_bytes: Some(u64::from(detail)),
            }),
        ],
        8 => vec![BuildEvent::CacheHit(entry)],
        9 => vec![BuildEvent::CacheMissed(CacheMissed {
            entry,
            difference: (detail > 2).then(|| "env".to_owned()),
        })],
        10 => vec![
            BuildEvent::CacheBypassed(CacheBypassed {
                entry: entry.clone(),
                reason: BypassReason::BuilderCacheBoundary,
            }),
            BuildEvent::CacheStored(CacheStored {
                entry,
                bytes: u64::from(detail),
            }),
        ],
        11..=12 => vec![grown()],
        _ => vec![BuildEvent::StepLogged(StepLogged {
            phase: Phase::Step,
            step: Some((index, 5)),
            first_offset: 0,
            lines: (0..detail * 6).map(line).collect(),
        })],
    }
}

pub(crate) const NAMES: [&str; 3] = ["app-1", "new", "newer"];

/// What is done to a template by hand, in the order of the service: names are taken before it goes
/// by them, and released behind.
fn by_hand(number: u8, what: u8, build: u8, template: &Template) -> Vec<ByHand> {
    let seen = template.version().unwrap_or_default();
    let other_name = name(NAMES[usize::from(build % 3)]);
    let take = ByHand::Names(NameCommand::TakeAlso {
        name: other_name.clone(),
        template_id: template_id(number),
        owner: owner("acme"),
        renaming: seen,
        now: at(0),
    });
    let rename = ByHand::Template(TemplateCommand::Rename {
        namespace: slug("acme"),
        first: name(&format!("app-{number}")),
        to: other_name.clone(),
        seen,
    });
    let visibility = [Visibility::Private, Visibility::Public][usize::from(build % 2)];
    match what {
        0 => vec![ByHand::Template(TemplateCommand::SetVisibility {
            visibility,
        })],
        1..=2 => vec![ByHand::Template(TemplateCommand::AssignTags {
            tags: vec![tag("v1"), tag("x")],
            build: build_id(build),
        })],
        3 => vec![ByHand::Template(TemplateCommand::RemoveTag {
            tag: tag("v1"),
            build: build_id(build),
        })],
        4 => vec![take, rename],
        // Somebody crashed.
        5 => vec![take],
        6 => vec![ByHand::Template(TemplateCommand::RemoveAlias {
            namespace: slug("acme"),
            alias: other_name,
        })],
        // That a build is the template's own is known by whoever lets it expire.
        7 if template_of(build) != number => Vec::new(),
        7 => vec![ByHand::Template(TemplateCommand::ExpireArtifact {
            build: build_id(build),
            artifact: artifact(build),
            seen,
        })],
        8 => vec![ByHand::Template(TemplateCommand::PurgeArtifact {
            build: build_id(build),
            artifact: artifact(build),
        })],
        _ => vec![
            ByHand::Template(TemplateCommand::Delete { seen }),
            ByHand::Names(NameCommand::ReleaseAll {
                template_id: template_id(number),
            }),
        ],
    }
}

enum ByHand {
    Names(NameCommand),
    Template(TemplateCommand),
}

fn claim(what: u8, text: u8, token: u8) -> NameCommand {
    let token_digest = Digest::of(&[token]);
    let (owner, now) = (owner("acme"), at(i64::from(what)));
    match what {
        // Those that end at once are replaced by the next.
        0 | 1 => NameCommand::Claim {
            name: name(NAMES[usize::from(text)]),
            owner,
            token_digest,
            expires_at: at(1 + i64::from(token)),
            claim_count_max: 2,
            now,
        },
        _ => NameCommand::ReleaseClaim {
            token_digest,
            owner,
            now,
        },
    }
}

fn webhook_command(what: u8, position: u64) -> WebhookCommand {
    let dead_letters_max = 2;
    let at = Position::from_raw(position);
    match what {
        0..=1 => WebhookCommand::Register(webhook_registration("acme")),
        2 => WebhookCommand::Pause(PauseReason::Asked),
        3 => WebhookCommand::Resume { dead_letters_max },
        4 => WebhookCommand::Replay { from: at },
        5 => WebhookCommand::DeadLetter {
            letter: dead_letter(position),
            dead_letters_max,
        },
        6 => WebhookCommand::Requeue { position: at },
        _ => WebhookCommand::Delete,
    }
}

/// All that happened, and what the rules say has become of it.
#[derive(Default)]
pub(super) struct Played {
    pub(super) history: History,
    pub(super) builds: BTreeMap<u8, Build>,
    pub(super) names: Names,
    pub(super) templates: BTreeMap<u8, Template>,
    pub(super) webhooks: BTreeMap<u8, Webhook>,
}

impl Played {
    fn build(&mut self, number: u8, what: u8, detail: u32) {
        let state = self.builds.remove(&number).unwrap_or(Build::Absent);
        let events = decide(&state, command(&state, number, what, detail));
        let state = events
            .unwrap_or_default()
            .into_iter()
            .fold(state, |state, event| {
                let state = evolve(state, &event);
                self.history.build(number, event);
                state
            });
        self.builds.insert(number, state);
    }

    fn names(&mut self, command: NameCommand) -> bool {
        let Ok(events) = namespace::decide(&self.names, command) else {
            return false;
        };
        for event in events {
            self.names = namespace::evolve(std::mem::take(&mut self.names), &event);
            self.history.namespace("acme", event);
        }
        true
    }

    fn template(&mut self, number: u8, command: TemplateCommand) -> bool {
        let state = self.templates.entry(number).or_default();
        let Ok(events) = template::decide(state, command) else {
            return false;
        };
        for event in events {
            *state = template::evolve(std::mem::take(state), &event);
            self.history.template(number, event);
        }
        true
    }

    fn webhook(&mut self, number: u8, command: WebhookCommand) {
        let state = self.webhooks.entry(number).or_default();
        for event in webhook::decide(state, command).unwrap_or_default() {
            *state = webhook::evolve(std::mem::take(state), &event);
            self.history.webhook(number, event);
        }
    }

    fn by_hand(&mut self, number: u8, what: u8, build: u8) {
        let template = self.templates.entry(number).or_default();
        for command in by_hand(number, what, build, template) {
            let happened = match command {
                ByHand::Names(command) => self.names(command),
                ByHand::Template(command) => self.template(number, command),
            };
            if !happened {
                return;
            }
        }
    }
}

/// What happened, and what the rules say has become of it.
pub(super) fn play_all(tries: &[Try]) -> Played {
    let mut played = Played::default();
    for number in 1..=TEMPLATES {
        played.names(NameCommand::Take {
            name: name(&format!("app-{number}")),
            template_id: template_id(number),
            owner: owner("acme"),
            claim: None,
            now: at(0),
        });
    }
    for attempt in tries {
        match *attempt {
            Try::Build(build, what, detail) => played.build(build, what, detail),
            Try::Template(template, what, build) => played.by_hand(template, what, build),
            Try::Claim(what, name, token) => {
                played.names(claim(what, name, token));
            }
            Try::Webhook(webhook, what, position) => {
                played.webhook(webhook, webhook_command(what, position));
            }
        }
    }
    played
}

/// What happened, and what the rules say has become of the builds.
pub(crate) fn play(tries: &[Try]) -> (History, BTreeMap<u8, Build>) {
    let played = play_all(tries);
    (played.history, played.builds)
}
