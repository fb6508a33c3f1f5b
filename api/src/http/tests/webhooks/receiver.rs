//! A receiver that answers as it is told, and remembers everything.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::sync::watch;

use super::Duration;

/// No event within this time means that none comes.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a receiver does with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It answers with this status.
    Answer(u16),
    /// It never answers.
    Hang,
}

/// A delivery, as it came.
#[derive(Clone, Debug)]
pub(super) struct Came {
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) signature: String,
    pub(super) webhook: String,
    pub(super) attempt: u32,
    pub(super) body: Vec<u8>,
    pub(super) act: Act,
}

impl Came {
    pub(super) fn event(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether the signature is that of the secret's owner, as the description of the API says.
    pub(super) fn is_signed_with(&self, secret: &str) -> bool {
        let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.unwrap());
        let mut signed = format!("{}.{}.", self.id, self.timestamp).into_bytes();
        signed.extend(&self.body);
        let tag = STANDARD.decode(self.signature.strip_prefix("v1,").unwrap());
        hmac::verify(&key, &signed, &tag.unwrap()).is_ok()
    }
}

type Rule = Arc<dyn Fn(&Value, u32) -> Act + Send + Sync>;

pub(super) struct Receiver {
    address: SocketAddr,
    server: ServerHandle,
    came: watch::Sender<Vec<Came>>,
    rule: watch::Sender<Rule>,
}

#[derive(Clone)]
struct Shared {
    came: watch::Sender<Vec<Came>>,
    rule: watch::Receiver<Rule>,
}

impl Receiver {
    /// A receiver that does with each event, at each attempt, what `rule` says.
    pub(super) fn start(rule: impl Fn(&Value, u32) -> Act + Send + Sync + 'static) -> Self {
        let (came, _) = watch::channel(Vec::new());
        let rule: Rule = Arc::new(rule);
        let (rule, followed) = watch::channel(rule);
        let shared = Shared {
            came: came.clone(),
            rule: followed,
        };
        let bound = HttpServer::new(move || {
            App::new()
                .app_data(Data::new(shared.clone()))
                .default_service(web::to(take))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let address = bound.addrs()[0];
        let server = bound.run();
        let handle = server.handle();
        tokio::spawn(server);
        Self {
            address,
            server: handle,
            came,
            rule,
        }
    }

    /// From now on it does what `rule` says.
    pub(super) fn now(&self, rule: impl Fn(&Value, u32) -> Act + Send + Sync + 'static) {
        self.rule.send_replace(Arc::new(rule));
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    /// Waits until what came is as `is_enough` wants it, and gives it.
    pub(super) async fn wait(&self, is_enough: impl Fn(&[Came]) -> bool) -> Vec<Came> {
        let mut came = self.came.subscribe();
        let waiting = came.wait_for(|came| is_enough(came));
        let Ok(came) = tokio::time::timeout(PATIENCE, waiting).await else {
            panic!("too little came: {:#?}", summary(&self.came.borrow()));
        };
        came.unwrap().clone()
    }

    /// Waits until all these events were taken.
    pub(super) async fn wait_for(&self, ids: &[String]) -> Vec<Came> {
        let is_taken = |came: &[Came], id: &String| taken(came).contains(id);
        self.wait(|came| ids.iter().all(|id| is_taken(came, id)))
            .await
    }

    /// What came so far.
    pub(super) fn came(&self) -> Vec<Came> {
        self.came.borrow().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The task of the server does the rest; connections that hang are cut.
        drop(self.server.stop(false));
    }
}

/// The events that were taken, in the order in which they came, again if they came again.
pub(super) fn taken(came: &[Came]) -> Vec<String> {
    let taken = came.iter().filter(|came| came.act == Act::Answer(204));
    taken.map(|came| came.id.clone()).collect()
}

fn summary(came: &[Came]) -> Vec<(String, u32, Act)> {
    let lines = came.iter();
    lines
        .map(|came| (came.id.clone(), came.attempt, came.act))
        .collect()
}

async fn take(request: HttpRequest, body: Bytes, shared: Data<Shared>) -> HttpResponse {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(header("content-type"), "application/cloudevents+json");
    let mut came = Came {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        webhook: header("nullspace-webhook"),
        attempt: header("nullspace-attempt").parse().unwrap(),
        body: body.to_vec(),
        act: Act::Hang,
    };
    let rule = Arc::clone(&shared.rule.borrow());
    came.act = rule(&came.event(), came.attempt);
    let act = came.act;
    shared.came.send_modify(|all| all.push(came));
    match act {
        Act::Answer(status) => HttpResponse::build(StatusCode::from_u16(status).unwrap()).finish(),
        Act::Hang => std::future::pending().await,
    }
}
