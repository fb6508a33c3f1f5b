//! One try whether something inside the machine is ready.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use guest::protocol::ProbeOutcome;

/// The most of an answer that is looked at, in bytes: the status line is at its beginning.
const STATUS_LINE_BYTES_MAX: usize = 4 * 1024;

fn passed(detail: String) -> ProbeOutcome {
    ProbeOutcome {
        passed: true,
        detail,
    }
}

fn failed(detail: String) -> ProbeOutcome {
    ProbeOutcome {
        passed: false,
        detail,
    }
}

/// Whether a TCP port of the loopback address accepts connections.
pub(crate) fn tcp(port: u16, deadline: Duration) -> ProbeOutcome {
    match connect(port, Instant::now() + deadline) {
        Ok(_) => passed(format!("port {port} accepts connections")),
        Err(error) => failed(format!("port {port}: {error}")),
    }
}

/// Whether a GET of `path` is answered with a status from 200 to 399.
pub(crate) fn http(port: u16, path: &str, deadline: Duration) -> ProbeOutcome {
    let deadline = Instant::now() + deadline;
    match connect(port, deadline).and_then(|stream| get(stream, port, path, deadline)) {
        Ok(Some(status)) if (200..400).contains(&status) => {
            passed(format!("GET {path} on port {port}: status {status}"))
        }
        Ok(Some(status)) => failed(format!("GET {path} on port {port}: status {status}")),
        Ok(None) => failed(format!("GET {path} on port {port}: the answer is not HTTP")),
        Err(error) => failed(format!("GET {path} on port {port}: {error}")),
    }
}

/// What is left until `deadline`, as a timeout that is never zero, which would mean no timeout.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no answer in the time of a try",
        ));
    }
    Ok(left)
}

/// Connects by IPv4, and by IPv6 when nobody listens there.
fn connect(port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let mut first_error = None;
    for address in addresses {
        let address = SocketAddr::new(address, port);
        match left(deadline).and_then(|left| TcpStream::connect_timeout(&address, left)) {
            Ok(stream) => return Ok(stream),
            // The first address is the one that people mean.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()))
}

fn get(mut stream: TcpStream, port: u16, path: &str, deadline: Instant) -> io::Result<Option<u16>> {
    stream.set_write_timeout(Some(left(deadline)?))?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: nullspace-probe\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0_u8; 512];
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE_BYTES_MAX {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let read = match stream.read(&mut chunk) {
            // An expired read timeout shows as "would block".
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            other => other?,
        };
        if read == 0 {
            break;
        }
        answer.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    Ok(status(&answer))
}

/// The status code of an HTTP/1 answer.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim_end();
    let (version, rest) = line.split_once(' ')?;
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that answers one connection with `answer`.
    fn serve(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _read = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn a_status_below_400_is_ready() {
        for (answer, ready) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.0 302 Found\r\n\r\n", true),
            ("HTTP/1.1 404 Not Found\r\n\r\n", false),
            ("HTTP/1.1 500 Oops\r\n\r\n", false),
            ("SSH-2.0-x\r\n", false),
        ] {
            let outcome = http(serve(answer), "/health", SECOND);
            assert_eq!(outcome.passed, ready, "{answer:?}: {}", outcome.detail);
        }
    }

    #[test]
    fn a_port_without_listener_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(tcp(port, SECOND).passed);
        drop(listener);
        assert!(!tcp(port, SECOND).passed);
    }

    #[test]
    fn a_server_that_never_answers_ends_with_the_try() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let outcome = http(port, "/", Duration::from_millis(50));
        assert!(!outcome.passed);
        assert!(outcome.detail.contains("no answer"), "{}", outcome.detail);
    }
}
