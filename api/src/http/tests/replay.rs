//! Every request that the published client was seen to send, sent to the service.
//!
//! `tests/contract/captured_requests.jsonl` has them, in order; requests of one label belong together.
//! The client had sent them to a stub whose ids and namespace are not ours, so those are replaced. Each
//! label is sent to a service of its own that has what the stub pretended to have.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other route names itself"
)]

use std::collections::BTreeMap;

use domain::Digest;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::support::{TestApp, build_id};
use crate::http::route::Route;

const REQUESTS: &str = include_str!("../../../../tests/contract/captured_requests.jsonl");
const CONTRACT: &str = include_str!("../../../../tests/contract/baseline.json");

/// What is refused here, and rightly so, by its label; everything else is done.
const REFUSED: [(&str, u16); 18] = [
    // The cursor is none that was handed out here.
    ("sdk.list_builds.ref", 400),
    // Templates, builds, claims and aliases that are not there.
    ("sdk.exists.404", 404),
    ("sdk.exists.404.generic", 404),
    ("err.429.retry", 404),
    ("cli.get.404", 404),
    ("cli.get.404.text", 404),
    ("cli.exists.404", 404),
    ("cli.logs.404", 404),
    ("sdk.release_name_claim", 404),
    ("cli.claim.release", 404),
    ("sdk.remove_alias", 404),
    ("cli.alias.remove", 404),
    // The name belongs to a template.
    ("sdk.reserve_name", 409),
    ("cli.reserve", 409),
    // Files without their contents: what the client sends where there is no preflight.
    ("preflight.501.fallback", 400),
    // Templates have no such key.
    ("cli.list.fields", 400),
    // The build that is retried had no secrets.
    ("sdk.retry.secrets", 400),
    ("cli.retry", 400),
];

/// Requests whose path or blobs the stub made up to do harm: what the client makes of such answers is
/// no matter of ours.
fn left_out(captured: &Captured) -> Option<&'static str> {
    let is_hostile = captured.label == "blobid.slash" && !captured.path.ends_with("/preflight");
    is_hostile.then_some("names a blob by an id with a slash and a question mark in it")
}

#[derive(Clone, Debug, Deserialize)]
struct Captured {
    label: String,
    method: String,
    path: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    body_text: Option<String>,
}

/// A service that has what the stub pretended to have.
struct World {
    app: TestApp,
    /// What is written for each word of the stub's.
    words: BTreeMap<String, String>,
}

/// The files of every context: where the stub said that it had them, they were not sent.
const CONTENTS: [&str; 3] = ["print(1)\n", "", "hi\n"];

impl World {
    async fn new() -> Self {
        let app =
            TestApp::start_with(|config| config.builtins.base.image = "debian:12".into()).await;
        let build = app.make("my-app", &["v1", "default", "prod"]).await;
        let template = build["template_id"].as_str().unwrap().to_owned();
        let id = build_id(&build).to_string();
        let words = [
            ("tb_01stub", &id),
            ("tb_1", &id),
            ("tmpl_01stub", &template),
            ("tmpl_abc", &template),
            ("acme", &"default".to_owned()),
        ];
        let words = words.map(|(word, own)| (word.to_owned(), own.clone()));
        let world = Self {
            app,
            words: words.into(),
        };
        for content in CONTENTS {
            world.upload(content).await;
        }
        world
    }

    async fn upload(&self, content: &str) {
        let digest = Digest::of(content.as_bytes()).hex();
        let file = json!({"path": "x", "entry_type": "file", "sha256": digest,
                          "size_bytes": content.len()});
        let announced = json!({"files": [file]});
        let preflight = self.app.post("/v1/templates/blobs/preflight", &announced);
        let told: Value = preflight.await.json().await.unwrap();
        let id = told["files"][0]["blob_id"].as_str().unwrap();
        let put = self
            .app
            .request(Method::PUT, &format!("/v1/templates/blobs/{id}"));
        let sent = put.body(content.to_owned()).send().await.unwrap();
        assert_eq!(sent.status().as_u16(), 204);
    }

    fn adapted(&self, text: &str) -> String {
        // Backwards, so that of two words that begin alike the longer one is replaced first.
        self.words
            .iter()
            .rev()
            .fold(text.to_owned(), |text, (word, own)| text.replace(word, own))
    }

    async fn send(&self, captured: &Captured) -> (String, Response) {
        let path = self.adapted(&captured.path);
        let method: Method = captured.method.parse().unwrap();
        let mut request = self.app.request(method, &path);
        if let Some(kind) = &captured.content_type {
            request = request.header("content-type", kind);
        }
        if let Some(body) = &captured.body {
            request = request.body(self.adapted(&body.to_string()));
        }
        if let Some(text) = &captured.body_text {
            request = request.body(text.clone());
        }
        (path, request.send().await.unwrap())
    }

    /// Learns under which names this service wants the files that a preflight announced: the stub named
    /// them after their digests.
    fn learn_blobs(&mut self, announced: &Value, told: &Value) {
        let files = announced["files"].as_array().unwrap();
        for (file, result) in files.iter().zip(told["files"].as_array().unwrap()) {
            let (Some(digest), Some(own)) = (file["sha256"].as_str(), result["blob_id"].as_str())
            else {
                continue;
            };
            let forced = if file["force_upload"] == true {
                "_f"
            } else {
                ""
            };
            let word = format!("blob_{}{forced}", &digest[..12]);
            self.words.insert(word, own.to_owned());
        }
    }
}

/// The statuses that the contract knows of an operation.
fn allowed(contract: &Value, path: &str, method: &str) -> Vec<u16> {
    let name = match Route::find(path).unwrap() {
        Route::Template(targets) => targets.choose(method, |_| Ok(false)).unwrap().name(),
        route => route.name(),
    };
    let operation = &contract["paths"][name][method];
    assert!(operation.is_object(), "{method} {name} is no operation");
    let answers = operation["answers"].as_object().unwrap().keys();
    let answers = answers.map(|status| status.parse().unwrap());
    let errors = operation["errors"].as_array().into_iter().flatten();
    let errors = errors.map(|status| u16::try_from(status.as_u64().unwrap()).unwrap());
    answers.chain(errors).collect()
}

#[tokio::test]
async fn every_request_of_the_published_client_is_answered_as_the_contract_allows() {
    let contract: Value = serde_json::from_str(CONTRACT).unwrap();
    let captured: Vec<Captured> = REQUESTS
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for together in captured.chunk_by(|one, next| one.label == next.label) {
        let mut world = World::new().await;
        let label = &together[0].label;
        let refused = REFUSED.iter().find(|(refused, _)| refused == label);
        let mut statuses = Vec::new();
        for request in together {
            if let Some(why) = left_out(request) {
                println!(
                    "left out: {label}: {} {}: {why}",
                    request.method, request.path
                );
                continue;
            }
            let (path, response) = world.send(request).await;
            let status = response.status().as_u16();
            *counts.entry(status).or_default() += 1;
            let asked = path.split('?').next().unwrap();
            if !allowed(&contract, asked, &request.method).contains(&status) {
                wrong.push(format!("{label}: {} {path}: {status}", request.method));
            }
            statuses.push(status);
            if path.ends_with("/blobs/preflight") {
                let told = response.json().await.unwrap();
                world.learn_blobs(request.body.as_ref().unwrap(), &told);
            }
        }
        let expected = refused.map(|(_, status)| *status);
        let as_expected = match expected {
            Some(expected) => statuses.contains(&expected),
            None => statuses.iter().all(|status| *status < 300),
        };
        if !as_expected {
            wrong.push(format!(
                "{label}: answered {statuses:?}, expected {expected:?}"
            ));
        }
    }
    let total: usize = counts.values().sum();
    println!(
        "{total} of {} requests sent; answers by status: {counts:?}",
        captured.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(total, captured.len() - 2);
}
