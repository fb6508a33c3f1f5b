//! The commands on a service that runs and on its data while none does.

use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::causes::chain;
use projections::limits::EmbeddedLimits;
use projections::store::embedded::Embedded;
use projections::store::{Changes, Scan, ViewStore as _};
use serde_json::{Value, json};

use super::*;
use crate::cli::door::tests::config;
use crate::config::Config;
use crate::wire::audit::Verified;
use crate::wiring::{Foundation, Service};

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(config: &Config) -> Service {
    let (foundation, runner) = Foundation::open(config.clone()).await.unwrap();
    Service::without_worker(foundation, runner).await.unwrap()
}

/// Asks for a build, which waits.
async fn accept(service: &Service, key: &str) -> BuildId {
    let url = format!("http://{}/v1/templates/builds", service.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"base_image": "a", "name": "my-app"});
    let asking = client.post(url).bearer_auth(key).json(&body).send();
    let build: Value = asking.await.unwrap().json().await.unwrap();
    build["build_id"].as_str().unwrap().parse().unwrap()
}

/// A data folder that a service has left, with some builds in it.
async fn left(folder: &Path) -> (Config, Vec<BuildId>) {
    let config = config(folder);
    let service = start(&config).await;
    let key = service.first_key.as_ref().unwrap().reveal().to_owned();
    let mut builds = Vec::new();
    for _ in 0..3 {
        builds.push(accept(&service, &key).await);
    }
    service.stop().await.unwrap();
    (config, builds)
}

fn tail_of(kind: Option<&str>, stream: Option<&str>) -> Tail {
    Tail {
        after: WirePosition(Position::START).to_string(),
        kind: kind.map(str::to_owned),
        stream: stream.map(str::to_owned),
        waits: false,
    }
}

async fn events(door: &Door, kind: Option<&str>, stream: Option<&str>) -> Vec<Value> {
    let page = door.tail(&tail_of(kind, stream)).await.unwrap();
    assert!(page.is_last && !page.is_stopping);
    let events = page.events.iter();
    events
        .map(|event| serde_json::from_str(event.get()).unwrap())
        .collect()
}

/// Everything that the commands tell of `config`'s data.
async fn told(config: &Config, build: &BuildId) -> impl PartialEq + std::fmt::Debug + use<> {
    let verified = door::verify(config).await.unwrap();
    assert!(verified.is_whole, "{verified:?}");
    let door = Door::open(config).await.unwrap();
    let all = events(&door, None, None).await;
    let stream = format!("build-{build}");
    let requests = events(&door, Some("Requested"), None).await;
    let of_build = events(&door, None, Some(&stream)).await;
    assert_eq!((requests.len(), of_build.len()), (3, 1));
    assert!(all.len() > 4, "keys and names are among them");
    assert_eq!(of_build[0]["stream"], stream);
    assert!(requests.contains(&of_build[0]));
    let replayed = door.replay().await.unwrap();
    assert!(replayed.is_equal && replayed.row_count > 0, "{replayed:?}");
    assert!(!config.data_dir.replay().exists());
    let export = collect(&door, build.clone()).await.unwrap();
    for wrong in [
        tail_of(Some("Nothing"), None),
        tail_of(None, Some("nothing")),
        Tail {
            after: "7".to_owned(),
            ..tail_of(None, None)
        },
    ] {
        let refused = door.tail(&wrong).await.unwrap_err();
        assert!(!chain(refused.as_ref()).is_empty());
    }
    let unknown = format!("tb_{}", "0".repeat(26)).parse().unwrap();
    let refused = collect(&door, unknown).await.unwrap_err();
    assert!(
        chain(refused.as_ref()).contains("there is no build"),
        "{refused:?}"
    );
    door.close().await.unwrap();
    let verified = Verified {
        // That of a running service is moved a moment later.
        anchored: None,
        ..verified
    };
    (verified, all, replayed, export)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_is_told_with_and_without_a_running_service() {
    let folder = tempfile::tempdir().unwrap();
    let (config, builds) = left(folder.path()).await;
    let service = start(&config).await;
    let running = told(&config, &builds[1]).await;
    service.stop().await.unwrap();
    assert_eq!(told(&config, &builds[1]).await, running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_accepted_by_itself_and_any_other_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (config, builds) = left(folder.path()).await;
    let door = Door::open(&config).await.unwrap();
    let export = collect(&door, builds[0].clone()).await.unwrap();
    door.close().await.unwrap();
    let file = folder.path().join("build.json");
    write(&export, Some(file.clone())).await.unwrap();
    let bytes = read(&file).await.unwrap();
    for head in [None, Some(&export.end)] {
        let verified = audit::verify_export(&bytes, head);
        assert!(verified.is_whole, "{verified:?}");
        assert_eq!(verified.stream, Some(format!("build-{}", builds[0])));
    }
    let other = audit::verify_export(&bytes, Some(&Digest::ZERO));
    assert!(!other.is_whole);
    assert_eq!((other.damage_count, other.damages.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_gets_what_happens_and_is_told_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let service = start(&config).await;
    let key = service.first_key.as_ref().unwrap().reveal().to_owned();
    let door = Door::open(&config).await.unwrap();
    let mut follow = Tail {
        after: "end".to_owned(),
        ..tail_of(Some("Requested"), None)
    };
    // Where the end is now.
    let first = door.tail(&follow).await.unwrap();
    assert!(first.events.is_empty() && first.is_last);
    follow.after = first.next;
    follow.waits = true;
    let build = accept(&service, &key).await;
    let found = loop {
        let page = tokio::time::timeout(PATIENCE, door.tail(&follow)).await;
        let page = page.unwrap().unwrap();
        follow.after = page.next;
        if let Some(event) = page.events.first() {
            break event.get().to_owned();
        }
    };
    assert!(found.contains(build.as_str()), "{found}");
    // Everything was read, so this waits until the service stops.
    follow.after = door.tail(&tail_of(None, None)).await.unwrap().next;
    let (ended, stopped) = tokio::join!(door.tail(&follow), async {
        service.app.stopping.cancel();
    });
    let ((), ended) = (stopped, ended.unwrap());
    assert!(ended.is_stopping && ended.events.is_empty());
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_command_at_a_time_looks_at_the_whole_log() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let service = start(&config).await;
    let busy = service.app.audits.acquire().await.unwrap();
    let refused = door::verify(&config).await.unwrap_err();
    assert!(chain(refused.as_ref()).contains("another command"));
    drop(busy);
    assert!(door::verify(&config).await.unwrap().is_whole);
    service.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_told_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (config, _) = left(folder.path()).await;
    let db = config.data_dir.log().join("db");
    let length = fs::metadata(&db).unwrap().len();
    let file = fs::File::options().write(true).open(&db).unwrap();
    // The tail is cut off.
    file.set_len(length / 2).unwrap();
    let before = fs::read(&db).unwrap();
    let verified = door::verify(&config).await.unwrap();
    assert!(!verified.is_whole);
    let first = &verified.damages[0];
    assert!(first.what.contains("are missing"), "{verified:?}");
    assert!(first.position.is_some());
    assert_eq!(fs::read(&db).unwrap(), before);
    let refused = Door::open(&config).await.unwrap_err();
    assert!(chain(refused.as_ref()).contains("damaged"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_events_do_not_make_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (config, builds) = left(folder.path()).await;
    let changed = {
        let views = Embedded::open(&config.data_dir.views(), EmbeddedLimits::default()).unwrap();
        let all = Scan {
            from: b"builds/row".to_vec(),
            to: b"builds/rox".to_vec(),
            backwards: false,
            count_max: 10,
        };
        let (key, value) = views.scan(&all).unwrap().swap_remove(1);
        let value = String::from_utf8(value).unwrap();
        let other = value.replace("waiting", "ready");
        assert_ne!(other, value);
        let checkpoint = views.checkpoint().unwrap().unwrap();
        let changes = Changes::from_iter([(key.clone(), Some(other.into_bytes()))]);
        views.commit(&changes, &checkpoint).unwrap();
        views.flush().unwrap();
        key.escape_ascii().to_string()
    };
    assert!(builds.iter().any(|id| changed.contains(id.as_str())));
    let door = Door::open(&config).await.unwrap();
    let replayed = door.replay().await.unwrap();
    door.close().await.unwrap();
    assert!(!replayed.is_equal);
    assert_eq!(replayed.difference.unwrap().key, changed);
}

#[test]
fn where_a_tail_begins_follows_from_what_is_asked() {
    let client = Door::Service(reqwest::Client::new());
    let start = WirePosition(Position::START).to_string();
    for (follow, from, wanted) in [
        (false, None, start.as_str()),
        (true, None, "end"),
        (true, Some("start"), &start),
        (false, Some("end"), "end"),
        (true, Some("0000000000000007"), "0000000000000007"),
    ] {
        assert_eq!(after(&client, follow, from).unwrap(), wanted);
    }
}
