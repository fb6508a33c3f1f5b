//! When the contents of files go, and what is kept of uploads with them.

use std::path::PathBuf;
use std::time::SystemTime;

use commands::Meta;
use domain::Digest;
use domain::build::Command;
use domain::definition::{ContextEntry, ContextKind, ContextManifest};
use domain::recorded::Actor;
use futures_util::{FutureExt as _, join};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::retention::{PATIENCE, age, is_kept};
use super::support::{TestApp, build_id, is_error};

async fn upload(app: &TestApp, content: &[u8], force_upload: bool) -> String {
    let mut file = json!({"path": "a", "entry_type": "file",
                          "sha256": Digest::of(content).hex(), "size_bytes": content.len()});
    if force_upload {
        file["force_upload"] = json!(true);
    }
    let announced = json!({"files": [file]});
    let answer = app.post("/v1/templates/blobs/preflight", &announced).await;
    let answer: Value = answer.json().await.unwrap();
    let blob = answer["files"][0]["blob_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/templates/blobs/{blob}");
    let put = app.request(Method::PUT, &path).body(content.to_vec());
    assert_eq!(put.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    blob
}

fn with_blob(blob: &str) -> Value {
    let file = json!({"path": "a", "entry_type": "file", "blob_id": blob});
    json!({"base_image": "debian:bookworm", "build_context": {"files": [file]}})
}

/// The files in which it is kept what the first owner has sent.
fn records(app: &TestApp) -> Vec<PathBuf> {
    let folder = app.service.app.config.data_dir.uploads().join("default");
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn make_old(path: &PathBuf) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

#[tokio::test]
async fn an_upload_is_forgotten_with_its_content() {
    let app = TestApp::start().await;
    upload(&app, b"x", false).await;
    upload(&app, b"y", false).await;
    assert!(is_kept(&app, b"x").await);
    assert_eq!(records(&app).len(), 2);
    age(&app, b"x");
    assert!(!is_kept(&app, b"x").await);
    let left = records(&app);
    assert_eq!(left.len(), 1);
    let digest = Digest::of(b"y").hex();
    assert!(left[0].to_str().unwrap().contains(&digest), "{left:?}");
}

#[tokio::test]
async fn a_forced_upload_is_kept_as_long_as_a_request_may_refer_to_it() {
    let app = TestApp::start().await;
    let blob = upload(&app, b"x", true).await;
    app.accept(&with_blob(&blob)).await;
    assert!(is_kept(&app, b"x").await);
    app.accept(&with_blob(&blob)).await;

    // The content stays: builds wait for it. It need not be sent again under its own name.
    let own = records(&app).into_iter().find(|path| path.ends_with(&blob));
    make_old(&own.unwrap());
    assert!(is_kept(&app, b"x").await);
    assert_eq!(records(&app).len(), 1);
    let refused = app.post("/v1/templates/builds", &with_blob(&blob)).await;
    is_error(refused, 400, "invalid_request").await;
    let by_content = upload(&app, b"x", false).await;
    app.accept(&with_blob(&by_content)).await;
}

#[tokio::test]
async fn what_a_crash_left_of_a_record_goes_when_it_is_old() {
    let app = TestApp::start().await;
    upload(&app, b"x", false).await;
    let left = records(&app)[0].with_file_name(".tmpAbCdEf");
    std::fs::write(&left, b"{").unwrap();
    assert!(is_kept(&app, b"x").await);
    assert!(left.exists(), "it may be being written");
    make_old(&left);
    assert!(is_kept(&app, b"x").await);
    assert!(!left.exists());
}

/// A look at everything that is needed takes long where there is much.
#[tokio::test]
async fn nobody_waits_while_it_is_looked_which_files_are_needed() {
    let app = TestApp::start().await;
    let service = &app.service.app;
    upload(&app, b"x", false).await;
    let _request = service.uploads.hold().await;
    let looking = service.desk.collect_files(false);
    let looked = tokio::time::timeout(PATIENCE, looking).await;
    assert_eq!(looked.unwrap().unwrap().len(), 0);
}

#[tokio::test]
async fn a_file_stays_that_a_request_refers_to_after_it_was_found_to_be_needless() {
    let app = TestApp::start().await;
    let service = &app.service.app;
    let accepted = build_id(&app.accept(&json!({"base_image": "debian:bookworm"})).await);

    // Also the service's own look, which may be under way, finds a file that nobody needs.
    let request = service.uploads.hold().await;
    service.blobs.put_bytes(b"x".to_vec()).await.unwrap();
    age(&app, b"x");
    let collecting = service.desk.collect_files(false);
    let requesting = async {
        // Whoever removes files stands in line: nobody gets in before.
        while service.uploads.hold().now_or_never().is_some() {
            tokio::task::yield_now().await;
        }
        let (build, _) = service.dispatcher.load_build(&accepted).await.unwrap();
        let mut requested = build.accepted().unwrap().requested.clone();
        let (digest, bytes) = (Digest::of(b"x"), 1);
        let entry = ContextEntry {
            path: "a".to_owned(),
            mode: 0o644,
            kind: ContextKind::File { digest, bytes },
        };
        let (listing, context) = ContextManifest::new(vec![entry]).unwrap().to_stored();
        service.blobs.put_bytes(listing).await.unwrap();
        requested.definition.context = Some(context);
        let meta = Meta {
            command_id: service.ids.new_command_id(),
            actor: Actor::Operator,
        };
        let id = service.ids.new_build_id();
        let command = Command::Request(requested);
        service.dispatcher.build(&id, meta, command).await.unwrap();
        drop(request);
    };
    let both = async { join!(collecting, requesting) };
    let (collected, ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(collected.unwrap().len(), 0);
    assert!(service.blobs.contains(&Digest::of(b"x")).await.unwrap());
}
