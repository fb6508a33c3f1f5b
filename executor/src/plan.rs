//! What the worker should do next: a pure function of what is known. Performing has no decisions.

use std::collections::{BTreeMap, BTreeSet};

use domain::build::{Event, Fence};
use domain::ids::{BuildId, WorkerId};
use domain::name::Owner;
use domain::recorded::{Position, Recorded, StreamName};

/// The builds that are not over, as the log tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    open: BTreeMap<BuildId, Open>,
}

/// A build that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    owner: Owner,
    needs_secrets: bool,
    /// Since when it has waited: a place in the log, so older requests come first.
    since: Position,
    attempt: Option<Taken>,
    /// The place in line that its log told last, since it has waited.
    told_place: Option<u32>,
}

/// An attempt that some worker has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taken {
    worker: WorkerId,
    fence: Fence,
    cancelling: bool,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Build it.
    Start(BuildId),
    /// Record at which place in its owner's line it waits.
    Queue {
        /// The build.
        build: BuildId,
        /// The place, from 1.
        place: u32,
    },
    /// Stop building it.
    Stop(BuildId),
    /// Record that the worker that had it is gone, and with it what it had in memory.
    RecordLost {
        /// The build.
        build: BuildId,
        /// The lost attempt.
        fence: Fence,
        /// The request's secret values were in the lost worker's memory.
        secrets_lost: bool,
    },
    /// Record that a build whose worker is gone was cancelled: nothing of it runs.
    RecordCancelled {
        /// The build.
        build: BuildId,
        /// The lost attempt.
        fence: Fence,
    },
    /// Give up a build whose secret values are gone before it was begun.
    Abandon(BuildId),
}

/// What the worker has in hand, apart from the log.
#[derive(Clone, Debug)]
pub struct Hands<'a> {
    /// This worker.
    pub worker: &'a WorkerId,
    /// The builds that it builds now.
    pub running: &'a BTreeSet<BuildId>,
    /// Those of them that it has told to stop.
    pub stopping: &'a BTreeSet<BuildId>,
    /// The builds whose secret values it holds.
    pub secrets: &'a BTreeSet<BuildId>,
    /// How many builds it may build at once.
    pub concurrent_builds_max: usize,
    /// How many of one owner.
    pub owner_concurrent_builds_max: usize,
    /// How many places in line are recorded in one go; what is recorded wakes the worker again.
    pub told_places_max: usize,
}

impl Known {
    /// Takes note of an event. Events of other streams, and those that change nothing about who
    /// builds what, are passed over.
    pub fn apply(&mut self, recorded: &Recorded<domain::Event>) {
        let StreamName::Build(id) = &recorded.stream else {
            return;
        };
        let domain::Event::Build(event) = &recorded.event else {
            return;
        };
        match event {
            Event::Requested(requested) => {
                let open = Open {
                    owner: requested.owner.clone(),
                    needs_secrets: !requested.definition.secret_ids.is_empty()
                        || !requested.registry_auth.is_empty(),
                    since: recorded.position,
                    attempt: None,
                    told_place: None,
                };
                self.open.insert(id.clone(), open);
            }
            Event::Queued(queued) => {
                if let Some(open) = self.open.get_mut(id) {
                    open.told_place = Some(queued.place);
                }
            }
            Event::Started(started) => {
                if let Some(open) = self.open.get_mut(id) {
                    open.attempt = Some(Taken {
                        worker: started.worker.clone(),
                        fence: started.fence,
                        cancelling: false,
                    });
                }
            }
            Event::RetryScheduled(_) => {
                if let Some(open) = self.open.get_mut(id) {
                    open.attempt = None;
                    open.told_place = None;
                }
            }
            Event::CancelRequested(_) => {
                if let Some(taken) = self.open.get_mut(id).and_then(|open| open.attempt.as_mut()) {
                    taken.cancelling = true;
                }
            }
            Event::Snapshotted(_) | Event::Cancelled(_) | Event::Failed(_) => {
                self.open.remove(id);
            }
            Event::PhaseStarted(_)
            | Event::PhaseFinished(_)
            | Event::BaseResolved(_)
            | Event::CacheHit(_)
            | Event::CacheMissed(_)
            | Event::CacheBypassed(_)
            | Event::CacheStored(_)
            | Event::FilesCounted(_)
            | Event::StepStarted(_)
            | Event::StepFinished(_)
            | Event::StepLogged(_)
            | Event::RootfsBuilt(_)
            | Event::RootfsGrown(_)
            | Event::VmBooted(_)
            | Event::StartCommandRan(_)
            | Event::ReadinessPassed(_) => {}
        }
    }
}

/// What to do, given what is known and what is in hand.
///
/// Builds of the owner with the fewest running ones are started first, then older requests. What
/// has to wait is told its place among its owner's.
pub fn plan(known: &Known, hands: &Hands<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut running_per_owner: BTreeMap<&Owner, usize> = BTreeMap::new();
    let mut waiting: Vec<(&BuildId, &Open)> = Vec::new();
    for (id, open) in &known.open {
        let runs_here = hands.running.contains(id);
        if runs_here {
            *running_per_owner.entry(&open.owner).or_default() += 1;
        }
        match &open.attempt {
            Some(taken) if runs_here && taken.cancelling && !hands.stopping.contains(id) => {
                actions.push(Action::Stop(id.clone()));
            }
            // A worker of this process that is not running it is about to report; another
            // process is gone, because one process owns the log.
            Some(taken) if !runs_here && taken.worker != *hands.worker => {
                actions.push(lost(id, open, taken));
            }
            Some(_) => {}
            None if runs_here => {}
            None if open.needs_secrets && !hands.secrets.contains(id) => {
                actions.push(Action::Abandon(id.clone()));
            }
            None => waiting.push((id, open)),
        }
    }
    let mut free = hands
        .concurrent_builds_max
        .saturating_sub(hands.running.len());
    while free > 0 {
        let running = |open: &Open| running_per_owner.get(&open.owner).copied();
        let next = waiting
            .iter()
            .map(|(_, open)| (running(open).unwrap_or_default(), open.since))
            .enumerate()
            .filter(|(_, (running, _))| *running < hands.owner_concurrent_builds_max)
            .min_by_key(|(_, rank)| *rank);
        let Some(at) = next.map(|(at, _)| at) else {
            break;
        };
        let (id, open) = waiting.swap_remove(at);
        *running_per_owner.entry(&open.owner).or_default() += 1;
        actions.push(Action::Start(id.clone()));
        free -= 1;
    }
    actions.extend(places(waiting).take(hands.told_places_max));
    actions
}

/// The places in line that those who wait are to be told, the oldest first.
fn places(mut waiting: Vec<(&BuildId, &Open)>) -> impl Iterator<Item = Action> {
    waiting.sort_unstable_by_key(|(_, open)| open.since);
    let mut lines: BTreeMap<Owner, u32> = BTreeMap::new();
    waiting.into_iter().filter_map(move |(id, open)| {
        let line = lines.entry(open.owner.clone()).or_default();
        *line = line.saturating_add(1);
        let place = *line;
        is_news(open.told_place, place).then(|| Action::Queue {
            build: id.clone(),
            place,
        })
    })
}

/// Whether a place is worth an entry in the log: the first one is, and one that is at most half of
/// the last, so that a build is told of as many places as its first has binary digits.
fn is_news(told: Option<u32>, place: u32) -> bool {
    told.is_none_or(|told| place <= told / 2)
}

fn lost(id: &BuildId, open: &Open, taken: &Taken) -> Action {
    let (build, fence) = (id.clone(), taken.fence);
    if taken.cancelling {
        Action::RecordCancelled { build, fence }
    } else {
        Action::RecordLost {
            build,
            fence,
            secrets_lost: open.needs_secrets,
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Digest;
    use domain::build::{CancelRequested, Queued, Requested, RetryScheduled, Started};
    use domain::definition::{Backend, BuildConfig, Definition, RuntimeConfig, Source, SourceType};
    use domain::failure::{Failure, FailureReason};
    use domain::ids::{CommandId, TemplateId};
    use domain::recorded::{Actor, Version};
    use domain::time::Timestamp;

    use super::*;

    fn time() -> Timestamp {
        Timestamp::from_unix_micros(0).unwrap()
    }

    fn build(number: u8) -> BuildId {
        BuildId::generate(time(), [number; 10])
    }

    fn worker(number: u8) -> WorkerId {
        WorkerId::generate(time(), [number; 10])
    }

    fn requested(owner: &str, secrets: &[&str]) -> Event {
        let definition = Definition {
            source: Source::Declarative {
                base_image: "b".into(),
                steps: Vec::new(),
                build_envs: BTreeMap::new(),
            },
            context: None,
            start_cmd: None,
            runtime: RuntimeConfig::default(),
            config: BuildConfig {
                vcpus: 1,
                memory_mib: 1,
                disk_mb: None,
                internet_access: true,
            },
            skip_cache: false,
            secret_ids: secrets.iter().map(|id| id.parse().unwrap()).collect(),
        };
        Event::Requested(Box::new(Requested {
            definition_digest: Digest::ZERO,
            definition,
            owner: owner.parse().unwrap(),
            namespace: owner.parse().unwrap(),
            name: "a".parse().unwrap(),
            template_id: TemplateId::generate(time(), [0; 10]),
            tags: vec![domain::name::Tag::default_tag()],
            backend: Backend::Native,
            source_type: SourceType::OciImport,
            base: None,
            registry_auth: BTreeMap::new(),
            retry_of: None,
            arrivals: None,
            idempotency_key: None,
            request_digest: None,
            max_attempts: 2,
        }))
    }

    fn started(by: u8) -> Event {
        Event::Started(Started {
            worker: worker(by),
            attempt: 1,
            max_attempts: 2,
            fence: Fence(1),
        })
    }

    fn cancel_requested() -> Event {
        Event::CancelRequested(CancelRequested {
            by: "me".into(),
            reason: None,
        })
    }

    fn known(events: &[(u8, Event)]) -> Known {
        let mut known = Known::default();
        for (place, (number, event)) in (1..).zip(events) {
            known.apply(&Recorded {
                stream: StreamName::Build(build(*number)),
                version: Version::EMPTY,
                position: Position::from_raw(place),
                time: time(),
                schema_version: 1,
                actor: Actor::Operator,
                command_id: CommandId::generate(time(), [0; 10]),
                hash: Digest::ZERO,
                event: event.clone().into(),
            });
        }
        known
    }

    struct Holding<'a> {
        running: &'a [u8],
        stopping: &'a [u8],
        secrets: &'a [u8],
        free: usize,
        of_owner: usize,
        told: usize,
    }

    fn planned(events: &[(u8, Event)], holding: &Holding<'_>) -> Vec<Action> {
        let set = |numbers: &[u8]| numbers.iter().map(|number| build(*number)).collect();
        let (running, stopping, secrets) = (
            set(holding.running),
            set(holding.stopping),
            set(holding.secrets),
        );
        let hands = Hands {
            worker: &worker(1),
            running: &running,
            stopping: &stopping,
            secrets: &secrets,
            concurrent_builds_max: holding.running.len() + holding.free,
            owner_concurrent_builds_max: holding.of_owner,
            told_places_max: holding.told,
        };
        plan(&known(events), &hands)
    }

    const IDLE: Holding<'static> = Holding {
        running: &[],
        stopping: &[],
        secrets: &[],
        free: 1,
        of_owner: 10,
        told: 0,
    };

    #[test]
    fn older_requests_come_first_within_the_bound() {
        let events = [
            (2, requested("a", &[])),
            (1, requested("a", &[])),
            (3, requested("a", &[])),
        ];
        assert_eq!(planned(&events, &IDLE), [Action::Start(build(2))]);
        let two = Holding { free: 2, ..IDLE };
        assert_eq!(
            planned(&events, &two),
            [Action::Start(build(2)), Action::Start(build(1))]
        );
        assert_eq!(planned(&events, &Holding { free: 0, ..IDLE }), []);
    }

    #[test]
    fn an_owner_with_a_running_build_yields_to_one_without() {
        let events = [
            (1, requested("a", &[])),
            (1, started(1)),
            (2, requested("a", &[])),
            (3, requested("b", &[])),
        ];
        let holding = Holding {
            running: &[1],
            ..IDLE
        };
        assert_eq!(planned(&events, &holding), [Action::Start(build(3))]);
        let both = Holding {
            running: &[1],
            free: 2,
            ..IDLE
        };
        assert_eq!(
            planned(&events, &both),
            [Action::Start(build(3)), Action::Start(build(2))]
        );
    }

    #[test]
    fn an_owner_has_no_more_builds_at_once_than_its_bound() {
        let events = [
            (1, requested("a", &[])),
            (1, started(1)),
            (2, requested("a", &[])),
            (3, requested("b", &[])),
            (4, requested("b", &[])),
        ];
        let holding = |of_owner| Holding {
            running: &[1],
            free: 3,
            of_owner,
            ..IDLE
        };
        assert_eq!(planned(&events, &holding(1)), [Action::Start(build(3))]);
        let started = [3, 2, 4].map(|number| Action::Start(build(number)));
        assert_eq!(planned(&events, &holding(2)), started);
    }

    fn queue(number: u8, place: u32) -> Action {
        Action::Queue {
            build: build(number),
            place,
        }
    }

    #[test]
    fn what_has_to_wait_is_told_its_place_among_its_owners() {
        let events = [
            (4, requested("a", &[])),
            (3, requested("a", &[])),
            (2, requested("b", &[])),
            (1, requested("a", &[])),
        ];
        let holding = |told| Holding { told, ..IDLE };
        let start = Action::Start(build(4));
        assert_eq!(
            planned(&events, &holding(9)),
            [start.clone(), queue(3, 1), queue(2, 1), queue(1, 2)]
        );
        assert_eq!(planned(&events, &holding(1)), [start, queue(3, 1)]);
    }

    #[test]
    fn a_place_is_told_again_when_it_is_half_of_the_last() {
        let full = Holding {
            free: 0,
            told: 9,
            ..IDLE
        };
        let told = |place| Event::Queued(Queued { place });
        for (before, last, news) in [
            (0, 1, None),
            (0, 2, Some(1)),
            (1, 3, None),
            (1, 4, Some(2)),
            (3, 7, None),
            (4, 2, None),
        ] {
            let mut events: Vec<_> = (1..=before)
                .flat_map(|number| [(number, requested("a", &[])), (number, told(1))])
                .collect();
            events.extend([(9, requested("a", &[])), (9, told(last))]);
            let news: Vec<_> = news.map(|place| queue(9, place)).into_iter().collect();
            assert_eq!(planned(&events, &full), news, "{last} and {before} before");
        }
    }

    #[test]
    fn a_repeated_attempt_that_waits_is_told_its_place_anew() {
        let retry = Event::RetryScheduled(RetryScheduled {
            attempt: 1,
            max_attempts: 2,
            failure: Failure::new(FailureReason::WorkerLost, "gone"),
        });
        let events = [
            (1, requested("a", &[])),
            (1, Event::Queued(Queued { place: 1 })),
            (1, started(1)),
            (1, retry),
        ];
        let full = Holding {
            free: 0,
            told: 9,
            ..IDLE
        };
        assert_eq!(planned(&events, &full), [queue(1, 1)]);
    }

    #[test]
    fn a_cancelled_build_is_told_to_stop_once() {
        let events = [
            (1, requested("a", &[])),
            (1, started(1)),
            (1, cancel_requested()),
        ];
        let holding = Holding {
            running: &[1],
            ..IDLE
        };
        assert_eq!(planned(&events, &holding), [Action::Stop(build(1))]);
        assert_eq!(
            planned(
                &events,
                &Holding {
                    stopping: &[1],
                    ..holding
                }
            ),
            []
        );
    }

    #[test]
    fn builds_of_a_lost_worker_are_recorded_as_lost() {
        let events = [
            (1, requested("a", &[])),
            (1, started(9)),
            (2, requested("a", &["t"])),
            (2, started(9)),
            (3, requested("a", &[])),
            (3, started(9)),
            (3, cancel_requested()),
        ];
        let lost = |number, secrets_lost| Action::RecordLost {
            build: build(number),
            fence: Fence(1),
            secrets_lost,
        };
        let cancelled = Action::RecordCancelled {
            build: build(3),
            fence: Fence(1),
        };
        assert_eq!(
            planned(&events, &IDLE),
            [lost(1, false), lost(2, true), cancelled]
        );
    }

    #[test]
    fn credentials_for_a_registry_are_secrets_too() {
        let with_credentials = || {
            let Event::Requested(mut request) = requested("a", &[]) else {
                panic!("a request")
            };
            let auth = ("r.example".to_owned(), "basic".to_owned());
            request.registry_auth = BTreeMap::from([auth]);
            Event::Requested(request)
        };
        let waiting = [(1, with_credentials())];
        assert_eq!(planned(&waiting, &IDLE), [Action::Abandon(build(1))]);
        let holding = Holding {
            secrets: &[1],
            ..IDLE
        };
        assert_eq!(planned(&waiting, &holding), [Action::Start(build(1))]);
        let lost = Action::RecordLost {
            build: build(1),
            fence: Fence(1),
            secrets_lost: true,
        };
        let begun = [(1, with_credentials()), (1, started(9))];
        assert_eq!(planned(&begun, &IDLE), [lost]);
    }

    #[test]
    fn a_build_whose_secrets_are_gone_is_given_up() {
        let events = [(1, requested("a", &["t"]))];
        assert_eq!(planned(&events, &IDLE), [Action::Abandon(build(1))]);
        let holding = Holding {
            secrets: &[1],
            ..IDLE
        };
        assert_eq!(planned(&events, &holding), [Action::Start(build(1))]);
    }

    #[test]
    fn a_build_that_is_being_reported_is_left_alone() {
        let events = [(1, requested("a", &[])), (1, started(1))];
        assert_eq!(planned(&events, &IDLE), []);
        // Started here, and the log has not told of it yet.
        let holding = Holding {
            running: &[2],
            ..IDLE
        };
        assert_eq!(planned(&[(2, requested("a", &[]))], &holding), []);
    }
}
