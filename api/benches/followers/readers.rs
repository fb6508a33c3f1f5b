//! Those who follow: on a thread of their own, and as cheap as they can be.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use api::service::App;
use domain::ports::EventReader as _;
use domain::recorded::Position;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::build::{BATCH_MARK, Place, Written};
use crate::figures::Delays;

/// What the kernel keeps on its side for somebody who never reads.
const SILENT_BUFFER_BYTES: u32 = 4 * 1024;
/// How far into a frame the first line of a batch begins, at most.
const MARK_WITHIN_BYTES: usize = 1_024;
/// Digits of the number of a batch.
const NUMBER_DIGITS: usize = 6;

/// Everybody who is connected.
#[derive(Debug)]
pub(crate) struct Crowd {
    followers: JoinHandle<(Delays, Vec<Follower>)>,
    silent: Vec<TcpStream>,
}

/// A connection with what was read of it.
type Follower = BufReader<TcpStream>;

impl Crowd {
    /// Connects so many who follow and so many who never read, and waits until all have an answer.
    pub(crate) async fn gather(
        place: &Place,
        follower_count: usize,
        silent_count: usize,
        written: &Arc<Written>,
    ) -> Self {
        let mut silent = Vec::new();
        for _ in 0..silent_count {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(SILENT_BUFFER_BYTES).unwrap();
            let mut stream = socket.connect(place.address).await.unwrap();
            let request = request(place, Position::START);
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.readable().await.unwrap();
            silent.push(stream);
        }
        let (ready, mut all_ready) = mpsc::channel(follower_count);
        let request = request(place, place.app.log.head());
        let (address, written) = (place.address, Arc::clone(written));
        let followers = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build();
            runtime
                .unwrap()
                .block_on(follow(address, request, follower_count, written, ready))
        });
        for _ in 0..follower_count {
            all_ready.recv().await.unwrap();
        }
        Self { followers, silent }
    }

    /// Waits until every follower has everything. Also says how many of those who never read were
    /// connected as long as that.
    pub(crate) async fn disperse(self, app: &App) -> (Delays, usize) {
        let Self { followers, silent } = self;
        let joining = tokio::task::spawn_blocking(|| followers.join().unwrap());
        let (delays, followers) = joining.await.unwrap();
        let open = app.config.limits.open_stream_count_max - app.streams.available_permits();
        let silent_open = open.saturating_sub(followers.len());
        drop((followers, silent));
        (delays, silent_open)
    }
}

fn request(place: &Place, from: Position) -> String {
    format!(
        "GET /v1/events?follow=true&type=StepLogged&from={:016x} HTTP/1.1\r\n\
         host: bench\r\nauthorization: Bearer {}\r\n\r\n",
        from.raw(),
        place.key
    )
}

/// Follows until all batches are there, with many connections.
async fn follow(
    address: SocketAddr,
    request: String,
    count: usize,
    written: Arc<Written>,
    ready: mpsc::Sender<()>,
) -> (Delays, Vec<Follower>) {
    let delays = Arc::new(Mutex::new(Delays::new()));
    let mut followers = JoinSet::new();
    for _ in 0..count {
        let (request, written, ready) = (request.clone(), Arc::clone(&written), ready.clone());
        let delays = Arc::clone(&delays);
        followers.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut stream = BufReader::with_capacity(16 * 1024, stream);
            read_head(&mut stream).await;
            ready.send(()).await.unwrap();
            read_batches(&mut stream, &written, &delays).await;
            stream
        });
    }
    let followers = followers.join_all().await;
    let delays = Arc::into_inner(delays).unwrap();
    (delays.into_inner().unwrap(), followers)
}

async fn read_head(stream: &mut Follower) {
    let mut line = String::new();
    stream.read_line(&mut line).await.unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
    }
}

/// Reads chunk by chunk, each of which is a frame, and checks that each batch comes once and in order.
async fn read_batches(stream: &mut Follower, written: &Written, delays: &Mutex<Delays>) {
    let (mut size, mut chunk, mut batch) = (String::new(), Vec::new(), 0);
    while batch < written.batch_count() {
        size.clear();
        stream.read_line(&mut size).await.unwrap();
        let bytes = usize::from_str_radix(size.trim_end(), 16).unwrap();
        // With the end of the line behind it.
        chunk.resize(bytes + 2, 0);
        stream.read_exact(&mut chunk).await.unwrap();
        if let Some(number) = batch_number(&chunk) {
            assert_eq!(number, batch, "a batch was left out, or came twice");
            written.count(batch, &mut delays.lock().unwrap());
            batch += 1;
        }
    }
}

/// Which batch a frame holds, if it holds one.
fn batch_number(frame: &[u8]) -> Option<usize> {
    let head = frame.get(..MARK_WITHIN_BYTES.min(frame.len()))?;
    let head = std::str::from_utf8(head).unwrap();
    let (_, behind) = head.split_once(BATCH_MARK)?;
    Some(behind.get(..NUMBER_DIGITS).unwrap().parse().unwrap())
}
