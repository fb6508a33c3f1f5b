use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::config;

/// Names that mean one address after the other, as those of somebody who wants to get inside do.
struct Changing {
    answers: Vec<SocketAddr>,
    asked: AtomicUsize,
}

impl Names for Changing {
    fn addresses(&self, _host: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let address = self.answers[asked.min(self.answers.len() - 1)];
        Box::pin(async move { Ok(vec![address]) })
    }
}

/// Takes one connection, reads a head, answers and tells how many bytes came.
async fn receiver(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taking = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"the body") {
            assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0);
        }
        connection.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (address, taking)
}

fn sender(allowed: &[&str], answers: Vec<SocketAddr>) -> Sender {
    let settings = config::Webhooks {
        allowed_networks: allowed.iter().map(|text| text.parse().unwrap()).collect(),
        ..config::Webhooks::default()
    };
    let limits = Limits {
        webhook_timeout_ms: 20_000,
        ..Limits::default()
    };
    let names = Changing {
        answers,
        asked: AtomicUsize::new(0),
    };
    Sender::with_names(Targets::new(&settings), &limits, Arc::new(names)).unwrap()
}

async fn post(sender: &Sender, url: &str) -> Result<(), DeliveryFailure> {
    let body = b"the body".to_vec();
    sender.send(url, HeaderMap::new(), body).await
}

#[tokio::test]
async fn a_name_that_comes_to_mean_an_inner_address_is_not_followed() {
    let (address, taking) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
    let sent = post(&sender(&[], vec![address]), "http://hooks.example/").await;
    assert_eq!(sent, Err(DeliveryFailure::AddressRefused));
    // An address needs no name.
    let url = format!("http://{address}/");
    let sent = post(&sender(&[], vec![address]), &url).await;
    assert_eq!(sent, Err(DeliveryFailure::TargetRefused));

    // First an address that the operator allows, where nobody listens; then one that is not allowed.
    let sender = sender(
        &["127.9.9.9/32"],
        vec!["127.9.9.9:1".parse().unwrap(), address],
    );
    let url = "http://hooks.example:1/";
    let sent = post(&sender, url).await;
    assert_eq!(sent, Err(DeliveryFailure::Unreachable));
    let sent = post(&sender, url).await;
    assert_eq!(sent, Err(DeliveryFailure::AddressRefused));
    assert!(!taking.is_finished(), "somebody was connected");
    taking.abort();
}

#[tokio::test]
async fn success_is_a_status_of_two_hundred_and_more() {
    for (answer, outcome) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
        ("HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            Err(DeliveryFailure::Answered { status: 302 }),
        ),
        (
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
            Err(DeliveryFailure::Answered { status: 500 }),
        ),
        ("", Err(DeliveryFailure::Unreachable)),
    ] {
        let (address, taking) = receiver(answer).await;
        let sender = sender(&["127.0.0.0/8"], vec![address]);
        assert_eq!(
            post(&sender, &format!("http://{address}/in")).await,
            outcome
        );
        let request = taking.await.unwrap().to_lowercase();
        assert!(request.starts_with("post /in http/1.1\r\n"), "{request}");
        assert!(request.contains("content-type: application/cloudevents+json\r\n"));
    }
}

#[tokio::test]
async fn who_hangs_has_only_so_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut sender = sender(&["127.0.0.0/8"], vec![address]);
    sender.patience = Duration::from_millis(50);
    let sent = post(&sender, &format!("http://{address}/")).await;
    assert_eq!(sent, Err(DeliveryFailure::TimedOut));
}
