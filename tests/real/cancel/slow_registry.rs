//! A registry whose blobs do not come to an end: the suites' own, behind a door that lets little through.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use tests::service::setting;

/// What comes at once on each connection: manifests and configurations are smaller.
const PROMPT_BYTES: usize = 128 * 1024;
/// What comes then, in each pause.
const PIECE_BYTES: usize = 1024;
const PAUSE: Duration = Duration::from_millis(100);

/// The door. It is shut when this is dropped; connections end with their clients.
pub(super) struct SlowRegistry {
    host: String,
    listener: TcpListener,
}

impl SlowRegistry {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has one");
        let accepting = listener.try_clone().expect("descriptors are left");
        std::thread::spawn(move || {
            while let Ok((client, _)) = accepting.accept() {
                // A client that has gone away is what is waited for here.
                std::thread::spawn(move || drop(serve(&client)));
            }
        });
        Self {
            host: address.to_string(),
            listener,
        }
    }

    /// `host:port`
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

impl Drop for SlowRegistry {
    fn drop(&mut self) {
        // This ends its wait for clients.
        let _woken = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn serve(client: &TcpStream) -> std::io::Result<()> {
    let registry = TcpStream::connect(setting("NULLSPACE_TEST_REGISTRY"))?;
    let (asking, asked) = (client.try_clone()?, registry.try_clone()?);
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut &asking, &mut &asked);
        drop(copied);
        drop(asked.shutdown(Shutdown::Both));
    });
    let copied = trickle(&registry, client);
    drop(client.shutdown(Shutdown::Both));
    copied
}

fn trickle(mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; PIECE_BYTES];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer)?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
            return Ok(());
        };
        to.write_all(piece)?;
        passed += count;
        if passed > PROMPT_BYTES {
            std::thread::park_timeout(PAUSE);
        }
    }
}
