//! What the routes share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use atrest::kms::Kms;
use atrest::{Error, ErrorKind, Result};

use crate::cluster::Cluster;
use crate::health::Health;
use crate::keys::Keys;
use crate::looks::Looks;
use crate::store::Store;
use crate::token::Token;

/// Clusters, keys, token and settings of a [`router`](crate::router()).
pub struct AdminState {
    token: Token,
    keys: Keys,
    clusters: BTreeMap<String, Arc<Cluster>>,
    local_key: Option<Arc<dyn Kms>>,
    public_metrics: bool,
    answer_within: Duration,
    request_time_max: Duration,
    pub(crate) health: Looks<Health>,
    pub(crate) metrics: Looks<String>,
}

impl AdminState {
    /// No cluster yet. Whoever shows `token` may do all that the API does.
    pub fn new(token: Token, keys: Keys) -> Self {
        Self {
            token,
            keys,
            clusters: BTreeMap::new(),
            local_key: None,
            public_metrics: false,
            answer_within: Duration::from_secs(10),
            request_time_max: Duration::from_secs(30),
            health: Looks::default(),
            metrics: Looks::default(),
        }
    }

    /// Adds a cluster: one store, whose slots are its regions, or several, one a region.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for an id or region that is not 1 to
    /// 128 (64) letters, digits, `-`, `_` and `.`, for one that is there already, and for
    /// no store.
    pub fn with_cluster(mut self, id: impl Into<String>, stores: Vec<Store>) -> Result<Self> {
        let id = id.into();
        let cluster = Arc::new(Cluster::new(&id, stores)?);
        if self.clusters.contains_key(&id) {
            let what = format!("expected a new cluster id, found {id} again");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.clusters.insert(id, cluster);
        Ok(self)
    }

    /// The locally managed key to which the action `DISABLE` returns. A store under it is
    /// shown as disabled. Default: none, and the action is refused.
    #[must_use]
    pub fn with_local_key(mut self, kms: Arc<dyn Kms>) -> Self {
        self.local_key = Some(kms);
        self
    }

    /// Shows `/metrics` to anybody, not only to who has the token, and without the names of
    /// keyspaces. Default: false.
    #[must_use]
    pub fn with_public_metrics(mut self, public: bool) -> Self {
        self.public_metrics = public;
        self
    }

    /// How long an answer waits for its operation; then it shows `ENABLING` or the like,
    /// and the operation goes on. Default: 10 s.
    #[must_use]
    pub fn with_answer_within(mut self, within: Duration) -> Self {
        self.answer_within = within;
        self
    }

    /// Longest time for one request, its body's arrival included. Default: 30 s.
    #[must_use]
    pub fn with_request_time_max(mut self, time_max: Duration) -> Self {
        self.request_time_max = time_max;
        self
    }

    /// Waits until no operation runs. Operations have threads of their own, which end with
    /// the process: one that ends by itself calls this after it stopped to serve.
    pub fn wait_for_operations(&self) {
        self.clusters.values().for_each(|cluster| cluster.wait());
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    pub(crate) fn clusters(&self) -> &BTreeMap<String, Arc<Cluster>> {
        &self.clusters
    }

    pub(crate) fn local_key(&self) -> Option<Arc<dyn Kms>> {
        self.local_key.clone()
    }

    pub(crate) fn local_uri(&self) -> Option<&str> {
        self.local_key.as_ref().map(|kms| kms.key_uri().as_str())
    }

    pub(crate) fn has_public_metrics(&self) -> bool {
        self.public_metrics
    }

    pub(crate) fn answer_within(&self) -> Duration {
        self.answer_within
    }

    pub(crate) fn request_time_max(&self) -> Duration {
        self.request_time_max
    }
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clusters: Vec<_> = self.clusters.keys().collect();
        f.debug_struct("AdminState").field("clusters", &clusters).finish_non_exhaustive()
    }
}
