//! A TCP proxy that fails on demand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy does with the next connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Pass,
    /// Accepts and never answers.
    Stall,
    /// Accepts and closes at once.
    Cut,
    /// Passes the request on, and closes after this many bytes of the answer.
    CutAnswerAfter(usize),
    /// Answers these bytes itself, whatever is asked.
    Answer(Vec<u8>),
    /// Answers this status, and all that it was sent wherever services put their words.
    Echo(u16),
    /// Sends one byte of an endless header each 100 ms.
    Drip,
}

/// A proxy on a free port, stopped when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    mode: Arc<Mutex<Mode>>,
    /// For the next connections, the last one first.
    first: Arc<Mutex<Vec<Mode>>>,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy in front of `target`, a port on 127.0.0.1.
    pub(crate) fn new(target: u16, mode: Mode) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Self {
            port,
            mode: Arc::new(Mutex::new(mode)),
            first: Arc::default(),
            stop: Arc::default(),
            connections: Arc::default(),
        };
        let (mode, stop, connections) =
            (proxy.mode.clone(), proxy.stop.clone(), proxy.connections.clone());
        let first = proxy.first.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let scripted = first.lock().unwrap().pop();
                let mode = scripted.unwrap_or_else(|| mode.lock().unwrap().clone());
                let stop = stop.clone();
                std::thread::spawn(move || serve(client, target, mode, &stop));
            }
        });
        proxy
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// One connection after another gets an answer of the `first`, and all others `then`.
    pub(crate) fn script(&self, mut first: Vec<Mode>, then: Mode) {
        first.reverse();
        *self.first.lock().unwrap() = first;
        self.set(then);
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn serve(mut client: TcpStream, target: u16, mode: Mode, stop: &AtomicBool) {
    match mode {
        Mode::Cut => {}
        Mode::Stall => {
            while !stop.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Mode::Drip => {
            let mut bytes = b"HTTP/1.1 200 OK\r\nx-drip: ".iter().chain(std::iter::repeat(&b'a'));
            while !stop.load(Ordering::SeqCst) {
                let byte = [*bytes.next().expect("endless")];
                if client.write_all(&byte).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Mode::Answer(answer) => {
            read_request(&mut client);
            drop(client.write_all(&answer));
        }
        Mode::Echo(status) => {
            let heard = read_request(&mut client);
            let body = serde_json::json!({
                "errors": [heard],
                "__type": heard,
                "message": heard,
                "error": {"status": heard, "code": heard, "message": heard},
                "error_description": heard,
            });
            let body = body.to_string();
            let len = body.len();
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len}");
            drop(client.write_all(format!("{head}\r\n\r\n{body}").as_bytes()));
        }
        Mode::Pass => relay(client, target, usize::MAX),
        Mode::CutAnswerAfter(len) => relay(client, target, len),
    }
}

/// All of the request, as far as its head tells its length.
fn read_request(client: &mut TcpStream) -> String {
    // Ends the wait for what is not HTTP.
    drop(client.set_read_timeout(Some(Duration::from_secs(1))));
    let (mut heard, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while let Ok(read) = client.read(&mut buffer)
        && read > 0
    {
        heard.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&heard).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let len = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let len = len.and_then(|len| len.trim().parse().ok()).unwrap_or(0);
            if body.len() >= len {
                break;
            }
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

fn relay(mut client: TcpStream, target: u16, answer_len_max: usize) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { return };
    let (mut from_client, mut to_server) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from_client, &mut to_server));
        drop(to_server.shutdown(std::net::Shutdown::Write));
    });
    let mut left = answer_len_max;
    let mut buffer = [0; 4096];
    while left > 0 {
        let most = left.min(buffer.len());
        match server.read(&mut buffer[..most]) {
            Ok(read) if read > 0 && client.write_all(&buffer[..read]).is_ok() => left -= read,
            _ => break,
        }
    }
    drop(client.shutdown(std::net::Shutdown::Both));
    drop(server.shutdown(std::net::Shutdown::Both));
}
