//! Network namespaces of a test's own, with servers in them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a client or a server waits for the other side.
const PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace. It ends when this is dropped, and so do the servers in it.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    path: PathBuf,
    servers: Mutex<Vec<Server>>,
}

#[derive(Debug)]
struct Server {
    listener: TcpListener,
    thread: JoinHandle<()>,
}

impl Namespace {
    /// A new one, with nothing in it but a loopback that is up.
    ///
    /// # Panics
    /// If the kernel gives none.
    pub fn new() -> Self {
        // It lives as long as a process in it, which ends when this one does.
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is part of util-linux");
        let (mut stdin, stdout) = (holder.stdin.take(), holder.stdout.take());
        let (said, heard) = (stdin.as_mut().expect("a pipe"), stdout.expect("a pipe"));
        let mut line = String::new();
        said.write_all(b"inside\n").expect("it reads");
        BufReader::new(heard)
            .read_line(&mut line)
            .expect("it repeats what it reads");
        assert_eq!(line, "inside\n", "no network namespace");
        holder.stdin = stdin;
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let namespace = Self {
            holder,
            path,
            servers: Mutex::default(),
        };
        namespace.ip("link set lo up");
        namespace
    }

    /// Where it is found, while this value lives.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `ip` with these arguments in it.
    ///
    /// # Panics
    /// If it fails.
    pub fn ip(&self, arguments: &str) {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path.display()))
            .args(["--", "ip"])
            .args(arguments.split(' '))
            .output()
            .expect("nsenter is part of util-linux");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {stderr}");
    }

    /// An HTTP server at `address` (port 0 is any free one), which answers every request with what
    /// `answer` gives, one after the other.
    ///
    /// # Panics
    /// If the address is not there.
    pub fn serve(
        &self,
        address: &str,
        mut answer: impl FnMut() -> String + Send + 'static,
    ) -> SocketAddr {
        let bound = address.to_owned();
        let listener = self.inside(move || TcpListener::bind(bound));
        let listener = listener.unwrap_or_else(|err| panic!("{address}: {err}"));
        let address = listener.local_addr().expect("a bound socket has one");
        let accepting = listener.try_clone().expect("descriptors are left");
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // A client that is gone does not matter.
                drop(respond(&stream, &mut answer));
            }
        });
        let mut servers = self.servers.lock().expect("nothing panics under it");
        servers.push(Server { listener, thread });
        address
    }

    /// What the HTTP server at `address` answers to a client in this namespace.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn get(&self, address: SocketAddr) -> String {
        let answer = self.inside(move || {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        });
        let answer = answer.unwrap_or_else(|err| panic!("{address}: {err}"));
        let (_, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
        body.to_owned()
    }

    /// Runs `body` on a thread that is in the namespace.
    fn inside<T: Send + 'static>(&self, body: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(&self.path).expect("the holder lives");
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("suites run as root");
            body()
        });
        thread.join().expect("it does not panic")
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let servers = self.servers.get_mut().map(std::mem::take);
        for server in servers.unwrap_or_default() {
            // This ends its wait for clients.
            let _woken = rustix::net::shutdown(&server.listener, rustix::net::Shutdown::Both);
            drop(server.thread.join());
        }
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

/// Reads a request and answers it.
fn respond(mut stream: &TcpStream, answer: &mut impl FnMut() -> String) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream).lines();
    // A request ends with an empty line.
    while let Some(line) = lines.next().transpose()? {
        if line.is_empty() {
            break;
        }
    }
    let body = answer();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    stream.shutdown(Shutdown::Write)
}
