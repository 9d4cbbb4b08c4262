//! Serving the router: on loopback, or over TLS.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use atrest::kms::SecretFile;
use atrest::{Error, ErrorKind, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::connections::Connections;
use crate::stall::Stall;

/// Connections at a time; for one more, another is closed.
const CONNECTIONS_MAX: usize = 256;
/// For a TLS handshake, and for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// For a write that makes no progress: the client does not read.
const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// For a connection, requests that run included: scrapers and clients connect anew.
const AGE_MAX: Duration = Duration::from_secs(300);
/// For requests that run when the server is asked to stop.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(20);
/// Before the next try when no connection can be accepted, such as without a free
/// descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Longest PEM file, in bytes: a chain of certificates is a few KiB.
const PEM_LEN_MAX: usize = 1024 * 1024;

/// Where HTTP without TLS is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainHttp {
    /// On loopback alone.
    LoopbackOnly,
    /// Anywhere: whoever sees the traffic has the token.
    DangerAnywhere,
}

/// A server that listens.
pub struct Server {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for an address other than loopback
    /// without TLS, unless that is allowed; [`Io`](ErrorKind::Io).
    pub async fn bind(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        plain: PlainHttp,
    ) -> Result<Self> {
        if tls.is_none() && plain == PlainHttp::LoopbackOnly && !address.ip().is_loopback() {
            let what = format!("expected TLS or a loopback address, found {address} without TLS");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Error::io(format!("cannot listen on {address}"), error))?;
        Ok(Self { listener, tls: tls.map(TlsAcceptor::from) })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io).
    pub fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|error| Error::io("the socket has no address", error))
    }

    /// Serves `router` until `shutdown` is ready; then accepts no more and waits for the
    /// requests that run, 20 seconds at most. For the operations themselves wait with
    /// [`AdminState::wait_for_operations`](crate::AdminState::wait_for_operations).
    pub async fn run(self, router: Router, shutdown: impl Future<Output = ()>) {
        let graceful = GracefulShutdown::new();
        let connections = Connections::new(CONNECTIONS_MAX);
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut shutdown => break,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            };
            let mut place = connections.admit(peer.ip());
            let served = connection(stream, self.tls.clone(), router.clone(), graceful.watcher());
            tokio::spawn(async move {
                tokio::select! {
                    () = served => {}
                    // Either way it is closed as it stands.
                    _ = &mut place.taken => {}
                    () = tokio::time::sleep(AGE_MAX) => {}
                }
            });
        }
        drop(self.listener);
        let _ = tokio::time::timeout(DRAIN_TIME_MAX, graceful.shutdown()).await;
    }
}

/// Serves one connection; its failure is the client's.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, watcher: Watcher) {
    let stream = Stall::new(stream, STALL_TIME_MAX);
    let Some(tls) = tls else { return serve(stream, router, watcher).await };
    let handshake = tokio::time::timeout(HEAD_TIME_MAX, tls.accept(stream));
    if let Ok(Ok(stream)) = handshake.await {
        serve(stream, router, watcher).await;
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    watcher: Watcher,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let _ = watcher.watch(connection).await;
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// The TLS settings of a certificate chain and its key, both in PEM: TLS 1.2 and 1.3, no
/// client certificates.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument) if a file cannot be read, holds none, or
/// the two do not belong together.
pub fn tls_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    fn refuse<E: std::error::Error + Send + Sync + 'static>(
        what: &'static str,
        path: &Path,
    ) -> impl Fn(E) -> Error {
        move |error| Error::new(ErrorKind::InvalidArgument, what).with_path(path).with_source(error)
    }
    let read =
        |path| SecretFile::read(path, PEM_LEN_MAX).map_err(refuse("the file cannot be read", path));
    let chain = CertificateDer::pem_slice_iter(read(certificate)?.bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(refuse("expected a certificate chain in PEM", certificate))?;
    let key_der = PrivateKeyDer::from_pem_slice(read(key)?.bytes())
        .map_err(refuse("expected a private key in PEM", key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refuse("TLS cannot be set up", certificate))?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .map_err(refuse("expected a certificate and its own key", certificate))?;
    Ok(Arc::new(config))
}
