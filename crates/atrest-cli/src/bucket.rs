//! A prefix of an object store, as a URI names it. The only place of the command line that
//! knows object stores; all their settings come from the environment.

use std::error::Error as StdError;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use atrest::classify::Contents;
use atrest::verify::VerifyReport;
use atrest::{Error, ErrorKind, Keyring};
use atrest_object_store::{EncryptedStore, ObjectStoreTarget, find_error};
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpError;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Prefix;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientConfigKey, CredentialProvider, Error as StoreError, ObjectStore,
    ObjectStoreExt, ObjectStoreScheme, RetryConfig,
};
use url::Url;

use crate::failure::{Failure, Result};

/// The forms of a destination, for people.
const FORMS: &str = "give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, \
                     file:///DIRECTORY or a path";
/// Longest time for credentials, and for the first answer, retries included: enough for
/// three attempts at an address that swallows everything.
const FIRST_ANSWER_TIME_MAX: Duration = Duration::from_secs(20);
/// Attempts behind the first one.
const RETRIES_MAX: usize = 5;
/// Objects that are read to their end at a time.
const READ_TOGETHER: usize = 8;
/// No new attempt is begun after this time.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);
/// For one request: a part of 8 MiB at 100 KB/s.
const REQUEST_TIME: &str = "90 seconds";

#[derive(Clone, Copy, Debug)]
enum Service {
    S3,
    Google,
    Azure,
}

/// A prefix of an object store.
#[derive(Debug)]
pub(crate) struct Bucket {
    uri: Url,
    service: Service,
    prefix: Prefix,
}

/// A store that was not asked anything yet, and how to ask for credentials.
struct Built {
    store: Arc<dyn ObjectStore>,
    credentials: Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>,
}

impl Bucket {
    /// A URI of an object store.
    pub(super) fn parse(uri: Url) -> Result<Self> {
        let (scheme, prefix) = ObjectStoreScheme::parse(&uri).map_err(|_| {
            let what = format!("expected the URI of an object store, found {}://…", uri.scheme());
            refused(what).advise(FORMS)
        })?;
        let service = match scheme {
            ObjectStoreScheme::AmazonS3 => Service::S3,
            ObjectStoreScheme::GoogleCloudStorage => Service::Google,
            ObjectStoreScheme::MicrosoftAzure => Service::Azure,
            _ => {
                let what = format!("backups do not go to {}://", uri.scheme());
                return Err(refused(what).advise(FORMS));
            }
        };
        // az://CONTAINER@ACCOUNT/PREFIX is a form of its own.
        let has_user = !uri.username().is_empty() && !matches!(service, Service::Azure);
        if has_user || uri.password().is_some() || uri.query().is_some() || uri.fragment().is_some()
        {
            // It may hold a secret: not to be repeated.
            let what = "expected a URI without user, password and query";
            return Err(refused(what).advise(service.settings()));
        }
        Ok(Self { uri, service, prefix })
    }

    pub(super) fn shown(&self) -> &str {
        self.uri.as_str().trim_end_matches('/')
    }

    /// The backups below the prefix, once the bucket answered with these credentials.
    pub(super) fn connect(&self) -> Result<ObjectStoreTarget> {
        Ok(ObjectStoreTarget::new(self.store()?, &self.prefix)?)
    }

    /// Each object below the prefix but the keyring's, by its path below it, length and first
    /// 4096 bytes, until `met` fails.
    pub(crate) fn starts(
        &self,
        mut met: impl FnMut(&str, u64, &[u8]) -> atrest::Result<()>,
    ) -> Result<()> {
        let (store, prefix) = (self.store()?, self.prefix.clone());
        let runtime = runtime()?;
        let all = runtime.block_on(async {
            let mut starts = atrest_object_store::starts(store, Some(&prefix));
            while let Some(found) = starts.next().await {
                let (meta, start) = found.map_err(|source| {
                    let kind = ErrorKind::Io(io::ErrorKind::Other);
                    Error::new(kind, "the objects cannot be read").with_source(source)
                })?;
                let location = meta.location.as_ref();
                let below = location.strip_prefix(prefix.as_ref()).unwrap_or(location);
                met(below.trim_start_matches('/'), meta.size, &start)?;
            }
            Ok(())
        });
        all.map_err(|error| self.explain(error))
    }

    /// Proves every object below the prefix but the keyring's: headers by their keys, bodies
    /// that are authenticated by reading them. `done` hears of each object that was read.
    pub(crate) fn verify(&self, keyring: &Keyring, done: impl Fn()) -> Result<VerifyReport> {
        let (mut report, mut sealed) = (VerifyReport::default(), Vec::new());
        self.starts(|name, len, start| {
            match Contents::of(start) {
                Contents::Encrypted(header) if header.suite.is_authenticated() => {
                    sealed.push((name.to_owned(), len));
                }
                _ => {
                    report.add_start(keyring, name.into(), len, start);
                    done();
                }
            }
            Ok(())
        })?;
        let below = PrefixStore::new(self.store()?, self.prefix.clone());
        let store = EncryptedStore::new(Arc::new(below), keyring.clone()).with_both_read();
        runtime()?.block_on(async {
            let mut all = futures_util::stream::iter(sealed)
                .map(async |(name, len)| (read(&store, &name).await, name, len))
                .buffer_unordered(READ_TOGETHER);
            while let Some((read, name, len)) = all.next().await {
                done();
                if let Some(read) = read.transpose() {
                    report.add_read(name.into(), len, read);
                }
            }
        });
        Ok(report)
    }

    /// Proves that the bucket answers with these credentials.
    fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        // The keys' services use the same; whoever is first has set it.
        drop(rustls::crypto::ring::default_provider().install_default());
        // A client of its own, which ends with this runtime.
        let probe = self.build()?;
        runtime()?.block_on(async {
            let limit = FIRST_ANSWER_TIME_MAX;
            let given = tokio::time::timeout(limit, probe.credentials).await;
            if !matches!(given, Ok(Ok(()))) {
                // Without its causes: some repeat what they could not parse.
                let kind = ErrorKind::Io(io::ErrorKind::PermissionDenied);
                let what = "there are no usable credentials for the object store";
                let failure = Failure::from(Error::new(kind, what).with_path(self.path()));
                return Err(failure.advise(self.service.settings()));
            }
            let list = probe.store.list_with_delimiter(Some(&self.prefix));
            match tokio::time::timeout(limit, list).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) if find::<HttpError>(&error).is_some() => {
                    Err(self.first_failure(error, None))
                }
                Ok(Err(error)) => {
                    // A failed listing does not tell in its type why; a failed look does.
                    let look = probe.store.head(&self.prefix);
                    let looked = tokio::time::timeout(limit, look).await;
                    let why = looked.ok().and_then(Result::err);
                    Err(self.first_failure(error, why.as_ref()))
                }
                Err(_) => {
                    let kind = ErrorKind::Io(io::ErrorKind::TimedOut);
                    let what = format!("the object store did not answer within {limit:?}");
                    Err(self.explain(Error::new(kind, what)))
                }
            }
        })?;
        Ok(self.build()?.store)
    }

    fn first_failure(&self, error: StoreError, why: Option<&StoreError>) -> Failure {
        let (kind, what) = match why {
            _ if find::<HttpError>(&error).is_some() => {
                (io::ErrorKind::NotConnected, "the object store cannot be reached")
            }
            Some(StoreError::NotFound { .. }) => {
                (io::ErrorKind::NotFound, "there is no such bucket")
            }
            Some(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }) => {
                (io::ErrorKind::PermissionDenied, "the object store refuses these credentials")
            }
            _ => (io::ErrorKind::Other, "the object store cannot be used"),
        };
        self.explain(Error::new(ErrorKind::Io(kind), what).with_source(error))
    }

    /// An error of the backups here, with advice where it is the object store's.
    pub(super) fn explain(&self, error: Error) -> Failure {
        let advice = match (error.kind(), find::<StoreError>(&error)) {
            (ErrorKind::KeyringMissing | ErrorKind::BrokenBackup, None) => {
                Some("give the prefix of a store, or what `atrest backup create` wrote to, whole")
            }
            (ErrorKind::Io(io::ErrorKind::DirectoryNotEmpty), _) => {
                Some("give a prefix that nothing is below; each store has its own for backups")
            }
            (ErrorKind::Io(io::ErrorKind::TimedOut), _) => Some(self.service.endpoint()),
            (ErrorKind::Io(io::ErrorKind::NotFound), Some(_)) => {
                Some("make the bucket first, or correct its name; a prefix needs no making")
            }
            (ErrorKind::Io(io::ErrorKind::PermissionDenied), Some(_)) => {
                Some("let these credentials list, read, write and delete below the prefix")
            }
            (ErrorKind::Io(io::ErrorKind::AlreadyExists), Some(_)) => {
                Some("another backup was first: run the command again")
            }
            (ErrorKind::Io(_), Some(_)) => Some(self.service.endpoint()),
            _ => None,
        };
        let failure = Failure::from(error.with_path(self.path()));
        match advice {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }

    pub(super) fn path(&self) -> &Path {
        Path::new(self.shown())
    }

    fn build(&self) -> Result<Built> {
        self.try_build().map_err(|error| {
            // Google's repeats what it could not parse, which is a key.
            let what = "the settings for the object store are not usable";
            let error = match self.service {
                Service::Google => Error::new(ErrorKind::InvalidArgument, what),
                _ => Error::new(ErrorKind::InvalidArgument, what).with_source(error),
            };
            Failure::from(error.with_path(self.path())).advise(self.service.settings())
        })
    }

    fn try_build(&self) -> Result<Built, StoreError> {
        let uri = self.uri.as_str();
        let has_time = std::env::var_os(self.service.time_variable()).is_some();
        let time = ClientConfigKey::Timeout;
        match self.service {
            Service::S3 => {
                let mut builder = AmazonS3Builder::from_env().with_url(uri).with_retry(retry());
                if !has_time {
                    builder = builder.with_config(AmazonS3ConfigKey::Client(time), REQUEST_TIME);
                }
                let skips = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature);
                let store = builder.build()?;
                let credentials = asked(store.credentials(), skips);
                Ok(Built { store: Arc::new(store), credentials })
            }
            Service::Google => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(uri);
                let mut builder = builder.with_retry(retry());
                if !has_time {
                    builder = builder.with_config(GoogleConfigKey::Client(time), REQUEST_TIME);
                }
                let skips = builder.get_config_value(&GoogleConfigKey::SkipSignature);
                let store = builder.build()?;
                let credentials = asked(store.credentials(), skips);
                Ok(Built { store: Arc::new(store), credentials })
            }
            Service::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(uri);
                let mut builder = builder.with_retry(retry());
                if !has_time {
                    builder = builder.with_config(AzureConfigKey::Client(time), REQUEST_TIME);
                }
                let skips = builder.get_config_value(&AzureConfigKey::SkipSignature);
                let store = builder.build()?;
                let credentials = asked(store.credentials(), skips);
                Ok(Built { store: Arc::new(store), credentials })
            }
        }
    }
}

impl Service {
    fn settings(self) -> &'static str {
        match self {
            Self::S3 => {
                "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or run where the cloud gives an identity"
            }
            Self::Google => {
                "set GOOGLE_APPLICATION_CREDENTIALS to the path of a key, or run where the cloud gives an identity"
            }
            Self::Azure => {
                "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or run where the cloud gives an identity"
            }
        }
    }

    fn endpoint(self) -> &'static str {
        match self {
            Self::S3 => {
                "check the network, AWS_REGION and AWS_ENDPOINT_URL (http:// needs AWS_ALLOW_HTTP=true), then run the command again: it goes on where it was"
            }
            Self::Google => {
                "check the network, then run the command again: it goes on where it was"
            }
            Self::Azure => {
                "check the network and AZURE_STORAGE_ENDPOINT, then run the command again: it goes on where it was"
            }
        }
    }

    fn time_variable(self) -> &'static str {
        match self {
            Self::S3 => "AWS_TIMEOUT",
            Self::Google => "GOOGLE_TIMEOUT",
            Self::Azure => "AZURE_TIMEOUT",
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|e| Error::io("no runtime for the object store", e))?)
}

fn asked<C: Send + Sync + 'static>(
    provider: &Arc<dyn CredentialProvider<Credential = C>>,
    skips: Option<String>,
) -> Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>> {
    let provider = provider.clone();
    let is_asked = skips.as_deref() != Some("true");
    Box::pin(async move {
        if is_asked {
            provider.get_credential().await?;
        }
        Ok(())
    })
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..Default::default() },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIME_MAX,
    }
}

fn refused(what: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::InvalidArgument, what)
}

/// The first cause of this type, also inside of an I/O error.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut error = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match inner {
            Some(inner) => inner,
            None => error.source()?,
        };
    }
}

/// Reads an object to its end; `None` if it is gone.
async fn read(store: &EncryptedStore, name: &str) -> atrest::Result<Option<()>> {
    let whole = async {
        let mut bytes = store.get(&Prefix::parse(name)?).await?.into_stream();
        while bytes.next().await.transpose()?.is_some() {}
        Ok(())
    };
    match whole.await {
        Ok(()) => Ok(Some(())),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(match find_error(&error) {
            Some(found) => Error::new(found.kind(), found.to_string()),
            None => {
                let kind = ErrorKind::Io(io::ErrorKind::Other);
                Error::new(kind, "the object cannot be read").with_path(name).with_source(error)
            }
        }),
    }
}
