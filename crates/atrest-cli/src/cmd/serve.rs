//! `atrest serve`: the status API, the metrics and the health of stores, over HTTP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use atrest::kms::{Kms, LapsedCredential};
use atrest::{ErrorKind, KeyMemory, Options};
use atrest_admin::{AdminState, Keys, PlainHttp, Server, Store, Token, router, tls_config};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Result};
use crate::key::{self, CmekArgs, PASSPHRASE_VARIABLE, Words};
use crate::output::Out;
use crate::paint::BOLD;
use crate::place::refuse_uri;
use crate::signal::{Committing, is_ignored};
use crate::store;
use crate::units;

/// Where the token may stand instead of a file.
const TOKEN_VARIABLE: &str = "ATREST_ADMIN_TOKEN";
/// The region of a store given without one.
const DEFAULT_REGION: &str = "default";

const EXAMPLES: &str = "\
Examples:
  (umask 077; openssl rand -base64 32 > admin.token)
  atrest serve data --cmek file:///etc/app/cmek.key --token-file admin.token
  atrest serve eu-central-1=/srv/eu us-east-1=/srv/us --cluster-id orders \\
      --cmek aws-kms://arn:aws:kms:eu-central-1:111122223333:key/ID1 \\
      --cmek aws-kms://arn:aws:kms:us-east-1:111122223333:key/ID2 \\
      --token-file admin.token --listen 10.0.0.5:8443 --tls-cert tls.pem --tls-key tls.key
  atrest serve eu=/srv/eu us=/srv/us --mirror eu=/mnt/b/eu --mirror us=/mnt/b/us \\
      --cmek file:///etc/app/cmek.key --token-file admin.token
  curl -H \"Authorization: Bearer $(cat admin.token)\" \\
      http://127.0.0.1:8470/api/v1/clusters/default/cmek

Paths: /api/v1/clusters/ID/cmek (GET, POST, PUT, PATCH), /metrics, /livez, /readyz,
/openapi.json.

JSON fields: listening, cluster_id, regions [region, directory, open]; one document, once
the server listens.
";

/// Serve the status API, metrics and health of stores over HTTP.
///
/// Opens the stores for writing, so no other process may have them open: an engine mounts
/// the router of the crate atrest-admin itself. A store that is revoked, or whose key
/// service refuses, is served as revoked until it is restored. Ends on SIGTERM or Ctrl-C,
/// after the operation that runs.
///
/// --cmek names the present key of each store, and any other that clients may put in its
/// place.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The stores' directories, as REGION=DIR if there are several.
    #[arg(required = true, value_name = "DIR")]
    stores: Vec<String>,
    #[command(flatten)]
    cmek: CmekArgs,
    /// The directory that a store's keyring is mirrored to, as REGION=DIR if there are several
    /// stores: every change is written there too. Without it no customer's key of a mirrored
    /// store is replaced, wrapped anew or switched off.
    #[arg(long = "mirror", value_name = "DIR")]
    mirrors: Vec<String>,
    /// Refuse another store than this, as REGION=ID if there are several.
    #[arg(long = "store-id", value_name = "ID")]
    store_ids: Vec<String>,
    /// Refuse another store and an older keyring: what `atrest status` showed, as
    /// REGION=TEXT if there are several. For the start: what clients change later is newer.
    #[arg(long = "anchor", value_name = "TEXT")]
    anchors: Vec<String>,
    /// Before listening, wait as long as this for key services that do not answer, or do not
    /// accept the credentials. Without it such a store is served as closed, and opened when
    /// its key service answers.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    wait_for_cmek: Option<Duration>,
    /// Count credentials that a key service does not accept as its denial, as for a customer
    /// who takes access away by taking them away. Without it that is an outage, which is
    /// borne for an hour.
    #[arg(long)]
    credential_revokes: bool,
    /// Let clients name keys that begin with this too, such as
    /// hcvault://vault.example.com:8200/transit/keys/
    #[arg(long = "allow-key", value_name = "PREFIX")]
    allow_key: Vec<String>,
    /// The locally managed key to which the action DISABLE returns.
    #[arg(long, value_name = "URI")]
    local_key: Option<String>,
    /// The id that clients call the stores by.
    #[arg(long, value_name = "ID", default_value = "default")]
    cluster_id: String,
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8470")]
    listen: SocketAddr,
    /// File of mode 0600 with the bearer token; without it, the variable
    /// ATREST_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate chain in PEM: serve over TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve without TLS on other addresses than loopback: whoever sees the traffic has
    /// the token.
    #[arg(long)]
    danger_plain_http: bool,
    /// Show the metrics to anybody, without the token: then without the names of keyspaces.
    #[arg(long)]
    public_metrics: bool,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    listening: String,
    cluster_id: String,
    regions: Vec<RegionReport>,
}

#[derive(Serialize)]
struct RegionReport {
    region: String,
    directory: String,
    open: bool,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let token = self.token()?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(tls_config(certificate, key)?),
            _ => None,
        };
        let mut keys = Keys::new(atrest_kms::from_uri);
        for prefix in &self.allow_key {
            keys = keys.allow(prefix)?;
        }
        let mut kms = Vec::<Arc<dyn Kms>>::new();
        for key in self.cmek.some()? {
            let key = keys.meter(key);
            kms.push(key.clone());
            keys = keys.with_key(key);
        }
        let local = match &self.local_key {
            Some(uri) => Some(keys.meter(key::open(uri, Words::Known, PASSPHRASE_VARIABLE)?)),
            None => None,
        };
        // A store that was disabled opens with it.
        let candidates = kms.into_iter().chain(local.clone()).collect();
        let (stores, regions) = self.stores(candidates)?;
        if let Some(problem) = KeyMemory::now().problem() {
            out.warn(&format!("{problem}: raise the limit of locked memory (ulimit -l)"));
        }
        let mut state = AdminState::new(token, keys)
            .with_public_metrics(self.public_metrics)
            .with_cluster(&self.cluster_id, stores)?;
        if let Some(local) = local {
            state = state.with_local_key(local);
        }
        let state = Arc::new(state);
        // The first signal ends the server gently, a second one the process. To the end: who waits
        // for signals may see the first one when the server has ended by it.
        std::mem::forget(Committing::begin());
        // Requests alone run in it: what takes time has threads of its own.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| atrest::Error::io("the server cannot be started", error))?;
        let served = runtime.block_on(async {
            let shutdown = shutdown()?;
            let plain = if self.danger_plain_http {
                PlainHttp::DangerAnywhere
            } else {
                PlainHttp::LoopbackOnly
            };
            let scheme = if tls.is_some() { "https" } else { "http" };
            let server = Server::bind(self.listen, tls, plain).await.map_err(|error| {
                let refused = error.kind() == ErrorKind::InvalidArgument;
                let failure = Failure::from(error);
                if refused { failure.advise("give --tls-cert and --tls-key") } else { failure }
            })?;
            let listening = format!("{scheme}://{}", server.local_addr()?);
            let cluster_id = self.cluster_id.clone();
            let report = Report { listening, cluster_id, regions };
            out.result(&report, || text(&report))?;
            server.run(router(state.clone()), shutdown).await;
            Ok(())
        });
        state.wait_for_operations();
        served
    }

    fn token(&self) -> Result<Token> {
        let advice = "make one: (umask 077; openssl rand -base64 32 > admin.token)";
        let token = match (&self.token_file, std::env::var(TOKEN_VARIABLE)) {
            (Some(path), _) => Token::from_file(path),
            (None, Ok(token)) => Token::new(&token),
            (None, Err(_)) => {
                let what = format!("expected --token-file, or a token in {TOKEN_VARIABLE}");
                Err(atrest::Error::new(ErrorKind::InvalidArgument, what))
            }
        };
        token.map_err(|error| Failure::from(error).advise(advice))
    }

    fn stores(&self, kms: Vec<Arc<dyn Kms>>) -> Result<(Vec<Store>, Vec<RegionReport>)> {
        let alone = self.stores.len() == 1;
        let given = self.stores.iter().map(|given| parse(given, alone.then_some(DEFAULT_REGION)));
        let given = given.collect::<Result<Vec<_>>>()?;
        let mut mirrors = self.mirrors(&given)?;
        let (mut stores, mut reports) = (Vec::new(), Vec::new());
        for (region, dir) in given {
            let mut options = Options::default();
            options.store_id = pinned("--store-id", &self.store_ids, region, alone)?;
            options.anchor = pinned("--anchor", &self.anchors, region, alone)?;
            options.kms_wait = self.wait_for_cmek.unwrap_or(options.kms_wait);
            if self.credential_revokes {
                options.access.lapsed_credential = LapsedCredential::Denial;
            }
            let mirror = mirrors.remove(region);
            let store = Store::in_directory(region, dir, mirror, kms.clone(), options)
                .map_err(|error| store::at(dir.as_ref(), error))?;
            reports.push(RegionReport {
                region: region.into(),
                directory: dir.into(),
                open: store.keyring().is_some(),
            });
            stores.push(store);
        }
        Ok((stores, reports))
    }

    /// The mirrors by the region of their store, each of which is one of `stores`.
    fn mirrors<'a>(&'a self, stores: &[(&'a str, &str)]) -> Result<HashMap<&'a str, PathBuf>> {
        let refuse = |what: String| {
            let failure = Failure::new(ErrorKind::InvalidArgument, what);
            Err(failure.advise("give --mirror REGION=DIR once for each store that has one"))
        };
        let only = match stores {
            [(region, _)] => Some(*region),
            _ => None,
        };
        let mut mirrors = HashMap::new();
        for given in &self.mirrors {
            let (region, dir) = parse(given, only)?;
            if stores.iter().all(|(served, _)| *served != region) {
                return refuse(format!(
                    "expected a mirror of a store that is served, found {region}"
                ));
            }
            if mirrors.insert(region, PathBuf::from(dir)).is_some() {
                return refuse(format!(
                    "expected one mirror for each store, found two for {region}"
                ));
            }
        }
        Ok(mirrors)
    }
}

/// The region and the directory of `REGION=DIR`. `only` is the region of a store that is alone,
/// which need not be named.
fn parse<'a>(given: &'a str, only: Option<&'a str>) -> Result<(&'a str, &'a str)> {
    // In a URI a `=` parts something else.
    refuse_uri(Path::new(given))?;
    let Some((region, dir)) = given.split_once('=').or(only.map(|region| (region, given))) else {
        let what = format!("expected REGION=DIR for each of the stores, found {given}");
        let failure = Failure::new(ErrorKind::InvalidArgument, what);
        return Err(failure.advise("such as eu-central-1=/srv/eu"));
    };
    refuse_uri(Path::new(dir))?;
    Ok((region, dir))
}

/// What was given by `option` for the store of a region; nothing only if it was given for
/// none.
fn pinned<T: FromStr<Err = atrest::Error>>(
    option: &str,
    given: &[String],
    region: &str,
    alone: bool,
) -> Result<Option<T>> {
    let found = given.iter().find_map(|given| match given.split_once('=') {
        Some((of, pin)) => (of == region).then_some(pin),
        None => alone.then_some(given.as_str()),
    });
    if found.is_none() && !given.is_empty() {
        let what = format!("expected {option} for each store, found none for {region}");
        let advice = format!("give {option} REGION=… once for each");
        return Err(Failure::new(ErrorKind::InvalidArgument, what).advise(advice));
    }
    Ok(found.map(str::parse).transpose()?)
}

/// Ready at the first SIGTERM or Ctrl-C, but for those that are ignored.
fn shutdown() -> Result<impl Future<Output = ()>> {
    let heeded = |kind: SignalKind| match is_ignored(kind.as_raw_value()) {
        true => Ok(None),
        false => signal(kind).map(Some),
    };
    let io = |error| atrest::Error::io("signals cannot be handled", error);
    let terminate = heeded(SignalKind::terminate()).map_err(io)?;
    let interrupt = heeded(SignalKind::interrupt()).map_err(io)?;
    let hang_up = heeded(SignalKind::hangup()).map_err(io)?;
    Ok(async move {
        tokio::select! {
            () = received(terminate) => {}
            () = received(interrupt) => {}
            () = received(hang_up) => {}
        }
    })
}

async fn received(signal: Option<Signal>) {
    match signal {
        Some(mut signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!("{} {}", BOLD.paint("listening on"), report.listening)];
    for region in &report.regions {
        let state = if region.open { "open" } else { "closed: no key in memory" };
        lines.push(format!("  {}  {}  {state}", region.region, region.directory));
    }
    lines.push(format!("  {}/api/v1/clusters/{}/cmek", report.listening, report.cluster_id));
    lines.join("\n")
}
