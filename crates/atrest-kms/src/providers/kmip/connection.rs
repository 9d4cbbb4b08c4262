//! One connection for one request: mutual TLS and a deadline on every system call.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, SystemTime};

use atrest::kms::{Credential, Deadline, KmsError, KmsErrorKind, SecretFile};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use zeroize::Zeroizing;

use super::certificate::validity;
use crate::fail::{fail, misconfigured, protocol};
use crate::uri::HostPort;

/// Longest accepted answer, in bytes: those to these requests are below 1 KiB.
const ANSWER_LEN_MAX: usize = 64 * 1024;
/// Longest PEM file, in bytes: a whole system bundle is about 220 KiB.
const PEM_LEN_MAX: usize = 1024 * 1024;

/// The PEM files of mutual TLS.
#[derive(Debug)]
pub(super) struct Files {
    pub ca: String,
    pub cert: String,
    pub key: String,
}

#[derive(Debug)]
pub(super) struct Connector {
    address: HostPort,
    files: Files,
    /// From when until when the client's certificates, as they were read last, are all good.
    good: Mutex<Option<(SystemTime, SystemTime)>>,
}

impl Connector {
    pub(super) fn new(address: HostPort, files: Files) -> Self {
        Self { address, files, good: Mutex::default() }
    }

    /// The client's certificate, as it was read last.
    pub(super) fn credential(&self) -> Option<Credential> {
        let (from, until) = (*self.good.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(Credential {
            expires_in: until.duration_since(SystemTime::now()).unwrap_or_default(),
            lifetime: until.duration_since(from).unwrap_or_default(),
            // Whoever does it puts a new file in the place of the old one, and that is seen.
            renews: false,
        })
    }

    /// The TLS configuration, from the files as they are now.
    pub(super) fn tls(&self) -> Result<ClientConfig, KmsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.files.ca)? {
            roots.add(certificate).map_err(|source| {
                misconfigured(format!("the CA file {} is unusable", self.files.ca))
                    .with_source(source)
            })?;
        }
        let key = read(&self.files.key)?;
        let key = PrivateKeyDer::from_pem_slice(key.bytes()).map_err(|_| {
            // Its cause could show parts of the file.
            misconfigured(format!("expected a private key in {}", self.files.key))
        })?;
        let shown = certificates(&self.files.cert)?;
        let validities = shown.iter().filter_map(|one| validity(one));
        let both = |(from, until): (SystemTime, SystemTime), (other_from, other_until)| {
            (from.max(other_from), until.min(other_until))
        };
        *self.good.lock().unwrap_or_else(PoisonError::into_inner) = validities.reduce(both);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| misconfigured("TLS cannot be set up").with_source(source))?
            .with_root_certificates(roots)
            .with_client_auth_cert(shown, key)
            .map_err(|source| {
                misconfigured("the client certificate and key do not fit").with_source(source)
            })
    }

    /// Sends a message and receives the answer.
    pub(super) fn exchange(
        &self,
        request: &[u8],
        deadline: Deadline,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        #[cfg(feature = "danger-internals")]
        if let Some(answer) = crate::script::next() {
            let none = || fail(KmsErrorKind::Unreachable, "no more answers");
            return answer.map(Zeroizing::new).ok_or_else(none);
        }
        let name = ServerName::try_from(self.address.host.clone())
            .map_err(|_| misconfigured("the host is neither a name nor an address"))?;
        let session = ClientConnection::new(Arc::new(self.tls()?), name)
            .map_err(|source| misconfigured("TLS cannot be set up").with_source(source))?;
        let socket = Timed { socket: connect(&self.address, deadline)?, deadline };
        let mut stream = StreamOwned::new(session, socket);
        if let Err(error) = stream.write_all(request).and_then(|()| stream.flush()) {
            // A server that hangs up may have said why.
            let said = stream.read(&mut [0]).err().filter(|error| error.get_ref().is_some());
            return Err(no_answer(said.unwrap_or(error)));
        }
        let mut head = [0; 8];
        stream.read_exact(&mut head).map_err(no_answer)?;
        let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let len = usize::try_from(len)
            .ok()
            .filter(|len| *len <= ANSWER_LEN_MAX)
            .ok_or_else(|| protocol("expected an answer of at most 64 KiB, found more"))?;
        let mut answer = Zeroizing::new(vec![0; head.len() + len]);
        answer[..8].copy_from_slice(&head);
        stream.read_exact(&mut answer[8..]).map_err(no_answer)?;
        Ok(answer)
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, KmsError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.bytes()).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(misconfigured(format!("expected certificates in {path}"))),
    }
}

fn read(path: &str) -> Result<SecretFile, KmsError> {
    SecretFile::read(path, PEM_LEN_MAX).map_err(|source| {
        misconfigured(format!("the file {path} cannot be read")).with_source(source)
    })
}

fn connect(address: &HostPort, deadline: Deadline) -> Result<TcpStream, KmsError> {
    first(&resolve(address, deadline), deadline, TcpStream::connect_timeout)
}

/// A connection to the first of the addresses that answers. The time is shared out, so that
/// one that is silent leaves some to the next.
fn first<T>(
    addresses: &[SocketAddr],
    deadline: Deadline,
    connect: impl Fn(&SocketAddr, Duration) -> io::Result<T>,
) -> Result<T, KmsError> {
    let mut failed = fail(KmsErrorKind::Unreachable, "the host's name has no address in time");
    for (address, others) in addresses.iter().zip((0..addresses.len()).rev()) {
        let share = deadline.remaining() / u32::try_from(others + 1).unwrap_or(u32::MAX);
        if share.is_zero() {
            break;
        }
        match connect(address, share) {
            Ok(connection) => return Ok(connection),
            Err(source) => {
                failed =
                    fail(KmsErrorKind::Unreachable, "the connection failed").with_source(source);
            }
        }
    }
    Err(failed)
}

/// The addresses of a host. Looking a name up cannot be interrupted, so a thread does it; where
/// none can be started, none are found.
fn resolve(address: &HostPort, deadline: Deadline) -> Vec<SocketAddr> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return vec![SocketAddr::new(ip, address.port)];
    }
    let (send, receive) = mpsc::channel();
    let (host, port) = (address.host.clone(), address.port);
    let look_up = move || {
        let found = (host, port).to_socket_addrs();
        // OK because the caller may have stopped waiting.
        let _ = send.send(found.map(Iterator::collect).unwrap_or_default());
    };
    drop(std::thread::Builder::new().name("atrest-resolve".into()).spawn(look_up));
    receive.recv_timeout(deadline.remaining()).unwrap_or_default()
}

/// A socket whose every call ends by the deadline, however slowly the other side sends.
struct Timed {
    socket: TcpStream,
    deadline: Deadline,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.remaining();
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// The server refusing this side's certificate is about credentials; all else, this side
/// refusing the server's included, says nothing about the key.
fn no_answer(error: io::Error) -> KmsError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (kind, what) = match tls {
        Some(rustls::Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        )) => (KmsErrorKind::Unauthenticated, "the server refused the client certificate"),
        Some(_) => (KmsErrorKind::Unreachable, "the TLS handshake failed"),
        None => (KmsErrorKind::Unreachable, "the connection broke off"),
    };
    fail(kind, what).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn an_address_that_is_silent_leaves_time_to_the_next() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let (hour, shares) = (Duration::from_secs(3600), RefCell::new(Vec::new()));
        let answers = |port: u16| {
            first(&addresses, Deadline::after(hour), |address, share| {
                shares.borrow_mut().push(share);
                if address.port() == port { Ok(port) } else { Err(io::ErrorKind::TimedOut.into()) }
            })
        };
        assert_eq!(answers(2).ok(), Some(2));
        assert_eq!(shares.take().len(), 2);
        let error = answers(4).expect_err("nobody answers");
        assert_eq!(error.kind(), KmsErrorKind::Unreachable, "{error}");
        let shares = shares.take();
        assert!(shares[0] <= hour / 3 && shares[1] <= hour / 2, "{shares:?}");
        assert!(shares[2] > hour / 2, "{shares:?}");
    }
}
