//! A cluster: the stores behind one id, what is being done to them, and what last failed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use atrest::keyring::{DEFAULT_SLOT, SlotInfo};
use atrest::{Error, ErrorKind, Result};

use crate::api::{CmekStatus, check_region};
use crate::looks::Looks;
use crate::rpc::{Code, RpcError};
use crate::store::Store;

/// Longest cluster id in bytes.
const ID_LEN_MAX: usize = 128;

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Enable,
    Rotate,
    Disable,
    Revoke,
    Restore,
}

impl Operation {
    pub(crate) const ALL: [Self; 5] =
        [Self::Enable, Self::Rotate, Self::Disable, Self::Revoke, Self::Restore];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Enable => "enable",
            Self::Rotate => "rotate",
            Self::Disable => "disable",
            Self::Revoke => "revoke",
            Self::Restore => "restore",
        }
    }

    pub(crate) fn running(self) -> CmekStatus {
        match self {
            Self::Enable | Self::Restore => CmekStatus::Enabling,
            Self::Rotate => CmekStatus::Rotating,
            Self::Disable => CmekStatus::Disabling,
            Self::Revoke => CmekStatus::Revoking,
        }
    }

    /// `None` where the schema has no name for it: a failed restoration leaves `REVOKED`.
    pub(crate) fn failed(self) -> Option<CmekStatus> {
        match self {
            Self::Enable => Some(CmekStatus::EnableFailed),
            Self::Rotate => Some(CmekStatus::RotateFailed),
            Self::Disable => Some(CmekStatus::DisableFailed),
            Self::Revoke => Some(CmekStatus::RevokeFailed),
            Self::Restore => None,
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) stores: Vec<Arc<Store>>,
    /// Looks into archives of audit events.
    pub(crate) archives: Looks<()>,
    progress: Mutex<Progress>,
    ended: Condvar,
}

#[derive(Clone, Default)]
pub(crate) struct Progress {
    /// The operation that runs, and the regions it is about.
    pub(crate) running: Option<(Operation, BTreeSet<String>)>,
    /// A revocation may run beside it: it must not wait for a key service.
    pub(crate) revoking: bool,
    /// A revocation came after the beginning of what runs.
    overtaken: bool,
    /// By region, the last operation if it failed.
    pub(crate) failed: BTreeMap<String, (Operation, String)>,
    /// By key URI, as clients gave them; the keyring has no place for them.
    pub(crate) principals: HashMap<String, String>,
}

impl Progress {
    /// What runs, for who looks from outside: not what a revocation has made vain, and which
    /// only waits for a key service.
    pub(crate) fn shown(&self) -> Option<&(Operation, BTreeSet<String>)> {
        self.running.as_ref().filter(|_| !self.overtaken)
    }

    /// The same in a region.
    pub(crate) fn running_in(&self, region: &str) -> Option<Operation> {
        let (operation, regions) = self.shown()?;
        regions.contains(region).then_some(*operation)
    }
}

impl Cluster {
    pub(crate) fn new(id: &str, stores: Vec<Store>) -> Result<Self> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.is_empty() || id.len() > ID_LEN_MAX || !id.chars().all(good) {
            return invalid(format!(
                "expected a cluster id of 1 to {ID_LEN_MAX} letters, digits, '-', '_' and '.', \
                 found {id:?}"
            ));
        }
        if stores.is_empty() {
            return invalid(format!("expected a store for the cluster {id}"));
        }
        let mut regions = BTreeSet::new();
        for store in &stores {
            let region = store.region();
            if let Err(error) = check_region(region) {
                return invalid(format!("{}, found {region:?}", error.message()));
            }
            if !regions.insert(region) {
                return invalid(format!("expected a region for each store, found {region} twice"));
            }
        }
        let stores: Vec<_> = stores.into_iter().map(Arc::new).collect();
        stores.iter().for_each(reopen_in_background);
        let (archives, progress) = (Looks::default(), Mutex::default());
        Ok(Self { stores, archives, progress, ended: Condvar::new() })
    }

    /// The region of a store's slot. Where a cluster has one store, a region is a slot of
    /// it, and the store's own region is its default slot; where it has several, each is
    /// a region with all its slots.
    pub(crate) fn region_of<'a>(&self, store: &'a Store, slot: &'a SlotInfo) -> &'a str {
        let alone = self.stores.len() == 1;
        if alone && slot.name != DEFAULT_SLOT { &slot.name } else { store.region() }
    }

    /// Where the key of `region` belongs: the store, and the slot with its name if there
    /// is one.
    pub(crate) fn find(&self, region: &str) -> Result<(Arc<Store>, Option<SlotInfo>), RpcError> {
        if let Some(store) = self.stores.iter().find(|store| store.region() == region) {
            return Ok((store.clone(), store.own_slot()));
        }
        match &self.stores[..] {
            [only] => {
                let slot = only.slots().into_iter().find(|slot| slot.name == region);
                Ok((only.clone(), slot))
            }
            _ => Err(RpcError::invalid(format!(
                "expected a region of the cluster ({}), found {region}",
                self.stores.iter().map(|store| store.region()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    /// All regions that the cluster has now.
    pub(crate) fn regions(&self) -> BTreeSet<String> {
        let mut regions = BTreeSet::new();
        for store in &self.stores {
            regions.insert(store.region().to_owned());
            for slot in store.slots() {
                regions.insert(self.region_of(store, &slot).to_owned());
            }
        }
        regions
    }

    /// Lets every store know whether its customer's key is switched off. Reads disks.
    pub(crate) fn catch_up(&self) {
        self.stores.iter().for_each(|store| store.catch_up());
    }

    pub(crate) fn progress(&self) -> Progress {
        self.lock().clone()
    }

    /// Waits until no operation runs.
    pub(crate) fn wait(&self) {
        let runs = |progress: &mut Progress| progress.running.is_some() || progress.revoking;
        // Every change is one assignment.
        drop(self.ended.wait_while(self.lock(), runs).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Every change is one assignment.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation on regions; it runs until the ticket is dropped.
    ///
    /// # Errors
    /// `ABORTED` while another runs; only another revocation is in a revocation's way.
    pub(crate) fn begin(
        self: &Arc<Self>,
        operation: Operation,
        regions: BTreeSet<String>,
    ) -> Result<Ticket, RpcError> {
        let present = self.regions();
        let mut progress = self.lock();
        let busy = |other: Operation| {
            let what = format!("another operation on the cluster is running: {}", other.as_str());
            RpcError::new(Code::Aborted, what)
        };
        if progress.revoking {
            return Err(busy(Operation::Revoke));
        }
        if operation == Operation::Revoke {
            progress.revoking = true;
            progress.overtaken = true;
        } else if let Some((other, _)) = &progress.running {
            return Err(busy(*other));
        } else {
            // What failed for a region that never came to be would pile up.
            progress.failed.retain(|region, _| present.contains(region));
            progress.running = Some((operation, regions));
            progress.overtaken = false;
        }
        Ok(Ticket { cluster: self.clone(), operation })
    }
}

/// Tries to open a store that its key service refused, until nobody has the store.
fn reopen_in_background(store: &Arc<Store>) {
    let Some(every) = store.reopens_every() else { return };
    let store = Arc::downgrade(store);
    let reopening = move || {
        loop {
            std::thread::sleep(every);
            let Some(store) = store.upgrade() else { return };
            if !store.reopen() {
                return;
            }
        }
    };
    // OK because a store without this thread is opened by a client's RESTORE.
    let _ = std::thread::Builder::new().name("atrest-reopen".into()).spawn(reopening);
}

/// An operation that runs.
pub(crate) struct Ticket {
    cluster: Arc<Cluster>,
    operation: Operation,
}

impl Ticket {
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Notes how the operation ended in a region.
    pub(crate) fn note(&self, region: &str, result: &Result<(), RpcError>) {
        let mut progress = self.cluster.lock();
        match result {
            Ok(()) => progress.failed.remove(region),
            Err(error) => {
                let failed = (self.operation, error.message().to_owned());
                progress.failed.insert(region.to_owned(), failed)
            }
        };
    }

    /// Remembers who a client says uses a key.
    pub(crate) fn note_principal(&self, key_uri: &str, principal: &str) {
        let slots: BTreeSet<_> = (self.cluster.stores.iter())
            .flat_map(|store| store.slots())
            .map(|slot| slot.key_uri)
            .collect();
        let mut progress = self.cluster.lock();
        // Those of keys that are gone would pile up.
        progress.principals.retain(|uri, _| slots.contains(uri));
        progress.principals.insert(key_uri.to_owned(), principal.to_owned());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut progress = self.cluster.lock();
        match self.operation {
            Operation::Revoke => progress.revoking = false,
            _ => progress.running = None,
        }
        self.cluster.ended.notify_all();
    }
}
