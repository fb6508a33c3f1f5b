use commands::codec::decode_event;
use commands::limits::LogLimits;
use domain::event::Category;
use domain::ids::CommandId;
use domain::ports::{Append, EventAppender as _};
use domain::recorded::Actor;
use domain::template;
use domain::time::Timestamp;
use futures_util::FutureExt as _;
use projections::Runner;
use projections::limits::Limits as ViewLimits;
use tokio::sync::watch;

use super::*;

struct World {
    log: AnyLog,
    views: Views,
    runner: Runner,
}

fn time() -> Timestamp {
    Timestamp::from_unix_micros(1_700_000_000_000_000).unwrap()
}

fn build(number: u8) -> StreamName {
    StreamName::Build(BuildId::generate(time(), [number; 10]))
}

fn template_id(number: u8) -> TemplateId {
    TemplateId::generate(time(), [number; 10])
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn requested(by: &str) -> Event {
    let golden = include_bytes!("../../../../tests/golden/events/v1/build-Requested.json");
    let event = decode_event(Category::Build, "Requested", 1, golden).unwrap();
    let Event::Build(build::Event::Requested(mut requested)) = event else {
        panic!("{event:?}")
    };
    requested.owner = owner(by);
    build::Event::Requested(requested).into()
}

fn queued() -> Event {
    build::Event::Queued(build::Queued { place: 1 }).into()
}

fn taken(number: u8, by: &str) -> Event {
    let taken = namespace::Event::NameTaken {
        name: format!("app-{number}").parse().unwrap(),
        template_id: template_id(number),
        owner: owner(by),
        renaming: None,
    };
    taken.into()
}

impl World {
    fn new() -> Self {
        let (views, runner) = projections::in_memory(&ViewLimits::default()).unwrap();
        Self {
            log: AnyLog::memory(LogLimits::default()),
            views,
            runner,
        }
    }

    async fn append(&self, stream: StreamName, event: Event) -> Recorded<Event> {
        let stored = self.log.read_stream(&stream, Version::EMPTY, 100).await;
        let append = Append {
            stream,
            expected: Version(u64::try_from(stored.unwrap().len()).unwrap()),
            command_id: CommandId::generate(time(), [0; 10]),
            actor: Actor::Operator,
            time: time(),
            events: vec![event],
        };
        let head = self.log.head();
        self.log.append(append).await.unwrap();
        self.log.read_all(head, 1).await.unwrap().remove(0)
    }

    /// Somebody who has read nothing yet.
    fn stranger(&self) -> Owners {
        Owners::new(self.log.clone(), self.views.clone(), 100)
    }
}

#[tokio::test]
async fn a_build_belongs_to_whoever_asked_for_it_also_where_the_views_do_not_show_it() {
    let world = World::new();
    for (number, by) in [(1, "acme"), (2, "other")] {
        world.append(build(number), requested(by)).await;
    }
    for (number, by) in [(1, "acme"), (2, "other")] {
        let later = world.append(build(number), queued()).await;
        let origin = world.stranger().of(&later).await.unwrap().unwrap();
        assert_eq!(origin.owner, owner(by));
        assert!(origin.template.is_some());
    }
}

#[tokio::test]
async fn a_template_belongs_to_whoever_took_its_first_name() {
    let world = World::new();
    let namespace = StreamName::Namespace("acme".parse().unwrap());
    let named = world.append(namespace, taken(1, "acme")).await;
    let stream = StreamName::Template(template_id(1));
    let deleted = world
        .append(stream, template::Event::Deleted {}.into())
        .await;
    let expected = Origin {
        owner: owner("acme"),
        template: Some(template_id(1)),
    };

    // Who comes by the name needs no views.
    let reader = world.stranger();
    assert_eq!(
        reader.of(&named).await.unwrap().unwrap().owner,
        owner("acme")
    );
    let learned = reader.of(&deleted).now_or_never();
    assert_eq!(learned.unwrap().unwrap(), Some(expected.clone()));

    // Who does not, waits for them.
    let stranger = world.stranger();
    assert!(stranger.of(&deleted).now_or_never().is_none());
    let (stop, stopped) = watch::channel(false);
    let (log, runner) = (world.log.clone(), world.runner);
    let running = tokio::spawn(async move { runner.run(&log, stopped).await });
    assert_eq!(stranger.of(&deleted).await.unwrap(), Some(expected));
    stop.send_replace(true);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_namespace_is_its_owners_and_the_keys_are_nobodys() {
    let world = World::new();
    let names = StreamName::Namespace("acme".parse().unwrap());
    let released = namespace::Event::NameReleased {
        name: "app".parse().unwrap(),
    };
    let released = world.append(names, released.into()).await;
    let origin = world.stranger().of(&released).await.unwrap();
    assert_eq!(origin.unwrap().owner, owner("acme"));
    let revoked = domain::keys::Event::KeyRevoked {
        id: domain::ids::KeyId::generate(time(), [1; 10]),
    };
    let revoked = world.append(StreamName::Keys, revoked.into()).await;
    assert_eq!(world.stranger().of(&revoked).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_what_is_forgotten_is_found_again() {
    let world = World::new();
    let owners = Owners::new(world.log.clone(), world.views.clone(), 8);
    for number in 0..50 {
        let by = format!("o{number}");
        let first = world.append(build(number), requested(&by)).await;
        owners.of(&first).await.unwrap();
        let known = owners.known();
        assert!(known.young.len() + known.old.len() <= 8);
    }
    for number in 0..50 {
        let later = world.append(build(number), queued()).await;
        let origin = owners.of(&later).await.unwrap().unwrap();
        assert_eq!(origin.owner, owner(&format!("o{number}")));
    }
}
