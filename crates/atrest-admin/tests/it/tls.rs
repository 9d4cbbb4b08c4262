//! The server: over real sockets, with and without TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use atrest::ErrorKind;
use atrest_admin::{PlainHttp, Server, tls_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::support::{Bench, PATH, TOKEN, one};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whether the end is announced is not this test's matter.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_the_certificate_is_served_over_tls() {
    let bench = Bench::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (bench.path("tls.pem"), bench.path("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let config = tls_config(&certificate, &key).unwrap();
    let server = Server::bind(loopback(), Some(config), PlainHttp::LoopbackOnly).await.unwrap();
    let address = server.local_addr().unwrap();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(router, async { drop(stopped.await) }));

    let connect = async |roots: RootCertStore| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let answer = exchange(connect(roots).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"status\":\"ENABLED\""), "{answer}");
    // Another client does not trust it, and one without TLS gets nothing.
    drop(connect(RootCertStore::empty()).await.unwrap_err());
    let answer = exchange(TcpStream::connect(address).await.unwrap()).await;
    assert!(!answer.contains("ENABLED"), "{answer}");

    stop.send(()).unwrap();
    running.await.unwrap();
    drop(TcpStream::connect(address).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_stays_on_loopback() {
    let bench = Bench::new();
    let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Server::bind(everywhere, None, PlainHttp::LoopbackOnly).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    drop(Server::bind(everywhere, None, PlainHttp::DangerAnywhere).await.unwrap());

    let server = Server::bind(loopback(), None, PlainHttp::LoopbackOnly).await.unwrap();
    let address = server.local_addr().unwrap();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(router, async { drop(stopped.await) }));
    let answer = exchange(TcpStream::connect(address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    stop.send(()).unwrap();
    running.await.unwrap();
}

#[test]
fn certificates_and_keys_belong_together() {
    let bench = Bench::new();
    for name in ["one", "two"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(bench.path(&format!("{name}.pem")), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(bench.path(&format!("{name}.key")), key).unwrap();
    }
    let open = |certificate: &str, key: &str| {
        tls_config(&bench.path(certificate), &bench.path(key)).map_err(|error| error.kind())
    };
    open("one.pem", "one.key").unwrap();
    for (certificate, key) in
        [("one.pem", "two.key"), ("one.key", "one.key"), ("one.pem", "one.pem"), ("no", "one.key")]
    {
        let refused = open(certificate, key).unwrap_err();
        assert_eq!(refused, ErrorKind::InvalidArgument, "{certificate} {key}");
    }
}

/// A server on loopback, without TLS, and what stops it.
async fn plain(router: axum::Router) -> (SocketAddr, oneshot::Sender<()>) {
    let server = Server::bind(loopback(), None, PlainHttp::LoopbackOnly).await.unwrap();
    let address = server.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.run(router, async { drop(stopped.await) }));
    (address, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_nothing_keep_nobody_out() {
    let bench = Bench::new();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let (address, _stop) = plain(router).await;
    let mut stuck = Vec::new();
    for at in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Some begin a request, some a whole one whose answer they do not read.
        let begun: &[u8] = match at % 3 {
            0 => b"",
            1 => b"GET /readyz HTTP/1.1\r\nhost:",
            _ => b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        stream.write_all(begun).await.unwrap();
        stuck.push(stream);
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(60), exchange(stream)).await;
    let answer = answer.expect("an answer beside 300 connections that do nothing");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stuck);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_not_waited_for() {
    let bench = Bench::new();
    let (router, _keyring) = one(&bench, &bench.key("cmek"), &[]);
    let (address, _stop) = plain(router).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(64);
    // Until the answers fill every buffer on the way, and then for as long as the server
    // waits: it closes, and the requests have nowhere to go.
    let closed = tokio::time::timeout(Duration::from_secs(60), async {
        while stream.write_all(&request).await.is_ok() {}
    });
    closed.await.expect("a closed connection");
}
