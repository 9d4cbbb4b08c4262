//! What the API does to a cluster. All of it blocks: each runs in a thread of its own, a
//! revocation without one where the system gives none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::Builder;

use atrest::kms::Kms;

use crate::api::{ClusterSpec, CustomerAction};
use crate::cluster::{Cluster, Operation, Ticket};
use crate::rpc::{Code, RpcError};
use crate::state::AdminState;
use crate::store::{State, Store};

/// An operation that was checked and begun.
pub(crate) struct Begun {
    ticket: Ticket,
    work: Work,
}

enum Work {
    Keys(Vec<Change>),
    Disable(Arc<dyn Kms>),
    Revoke,
    Restore,
}

/// A region's key, and where it goes.
struct Change {
    region: String,
    kms: Arc<dyn Kms>,
    principal: String,
}

/// `POST`: puts every store under the customer's keys.
pub(crate) fn enable(
    state: &AdminState,
    cluster: &Arc<Cluster>,
    spec: &ClusterSpec,
) -> Result<Begun, RpcError> {
    cluster.catch_up();
    let changes = changes(state, cluster, spec)?;
    if cluster.stores.iter().all(|store| store.is_managed(state.local_uri())) {
        let what = "the cluster is under customer-managed keys already: change them with PUT";
        return Err(RpcError::new(Code::AlreadyExists, what));
    }
    begin_keys(state, cluster, Operation::Enable, changes)
}

/// `PUT`: as `POST`, or replaces keys, adds regions, and wraps anew by the newest version
/// where the key is the same.
pub(crate) fn update(
    state: &AdminState,
    cluster: &Arc<Cluster>,
    spec: &ClusterSpec,
) -> Result<Begun, RpcError> {
    cluster.catch_up();
    let changes = changes(state, cluster, spec)?;
    let managed = cluster.stores.iter().any(|store| store.is_managed(state.local_uri()));
    let operation = if managed { Operation::Rotate } else { Operation::Enable };
    begin_keys(state, cluster, operation, changes)
}

fn begin_keys(
    state: &AdminState,
    cluster: &Arc<Cluster>,
    operation: Operation,
    changes: Vec<Change>,
) -> Result<Begun, RpcError> {
    for store in &cluster.stores {
        let own = |change: &Change| change.region == store.region();
        // A store left out would stay under its local key in a cluster called enabled.
        if !store.is_managed(state.local_uri()) && !changes.iter().any(own) {
            let what = format!("expected a key for the region {} too", store.region());
            return Err(RpcError::invalid(what));
        }
    }
    let regions: BTreeSet<_> = changes.iter().map(|change| change.region.clone()).collect();
    Ok(Begun { ticket: cluster.begin(operation, regions)?, work: Work::Keys(changes) })
}

fn changes(
    state: &AdminState,
    cluster: &Cluster,
    spec: &ClusterSpec,
) -> Result<Vec<Change>, RpcError> {
    spec.check()?;
    let change = |spec: &crate::RegionSpec| {
        cluster.find(&spec.region)?;
        Ok(Change {
            region: spec.region.clone(),
            kms: state.keys().resolve(&spec.key_spec)?,
            principal: spec.key_spec.auth_principal.clone(),
        })
    };
    let mut changes: Vec<_> = spec.region_specs.iter().map(change).collect::<Result<_, _>>()?;
    // A store's own region first: a slot is added to a keyring that is there.
    changes
        .sort_by_key(|change| !cluster.stores.iter().any(|store| store.region() == change.region));
    Ok(changes)
}

/// `PATCH`.
pub(crate) fn act(
    state: &AdminState,
    cluster: &Arc<Cluster>,
    action: CustomerAction,
) -> Result<Begun, RpcError> {
    // A revocation waits for no disk.
    if action != CustomerAction::Revoke {
        cluster.catch_up();
    }
    let managed = cluster.stores.iter().any(|store| store.is_managed(state.local_uri()));
    if !managed {
        let what = "the cluster is under no customer-managed key";
        return Err(RpcError::new(Code::FailedPrecondition, what));
    }
    let (operation, work) = match action {
        CustomerAction::Revoke => (Operation::Revoke, Work::Revoke),
        CustomerAction::Restore => (Operation::Restore, Work::Restore),
        CustomerAction::Disable => match state.local_key() {
            Some(local) => (Operation::Disable, Work::Disable(local)),
            None => {
                let what = "the server was given no locally managed key to return to";
                return Err(RpcError::new(Code::FailedPrecondition, what));
            }
        },
    };
    Ok(Begun { ticket: cluster.begin(operation, cluster.regions())?, work })
}

impl Begun {
    /// Does it. Blocks for as long as the key services take.
    ///
    /// # Errors
    /// The first region's that failed. A revocation goes on with the other stores; all
    /// else stops there.
    pub(crate) fn run(self, local: Option<&str>) -> Result<(), RpcError> {
        let Self { ticket, work } = self;
        let stores = &ticket.cluster().stores;
        match work {
            Work::Keys(changes) => {
                for change in changes {
                    let result = change_key(ticket.cluster(), &change, local);
                    ticket.note(&change.region, &result);
                    result?;
                    ticket.note_principal(change.kms.key_uri().as_str(), &change.principal);
                }
                Ok(())
            }
            Work::Disable(kms) => {
                for store in stores.iter().filter(|store| store.is_managed(local)) {
                    note(&ticket, store, disable(store, &kms))?;
                }
                Ok(())
            }
            Work::Restore => {
                let wished: Vec<_> = stores.iter().map(|store| store.revocations()).collect();
                for (store, revocations) in stores.iter().zip(wished) {
                    let restored = store.restore(revocations);
                    let restored = restored.map_err(|error| RpcError::of(store.region(), &error));
                    note(&ticket, store, restored)?;
                }
                Ok(())
            }
            Work::Revoke => {
                // At once: a store whose disk hangs must not keep the others' keys in memory.
                let revoke = |store: &Store| {
                    let revoked = store.revoke();
                    let revoked = revoked.map_err(|error| RpcError::of(store.region(), &error));
                    note(&ticket, store, revoked)
                };
                std::thread::scope(|scope| {
                    let threads = stores.iter().map(|store| {
                        let thread = Builder::new().spawn_scoped(scope, || revoke(store));
                        // Where there is none, in this one, before any other is waited for.
                        thread.map_err(|_| revoke(store))
                    });
                    let threads: Vec<_> = threads.collect();
                    let ends = threads.into_iter().map(|thread| match thread {
                        Ok(thread) => thread.join().unwrap_or_else(|_| Err(RpcError::panicked())),
                        Err(revoked) => revoked,
                    });
                    // All of them, then the first that failed.
                    ends.collect::<Vec<_>>().into_iter().collect()
                })
            }
        }
    }
}

/// Notes the result for every region of a store.
fn note(ticket: &Ticket, store: &Store, result: Result<(), RpcError>) -> Result<(), RpcError> {
    ticket.note(store.region(), &result);
    for slot in store.slots() {
        ticket.note(ticket.cluster().region_of(store, &slot), &result);
    }
    result
}

fn disable(store: &Store, local: &Arc<dyn Kms>) -> Result<(), RpcError> {
    match store.state() {
        State::Plain => Ok(()),
        State::Closed(_) => Err(lost(store.region())),
        State::Open(keyring) => keyring
            .slots()
            .disable_cmek(local.clone())
            .map_err(|error| RpcError::of(store.region(), &error)),
    }
}

fn change_key(cluster: &Cluster, change: &Change, local: Option<&str>) -> Result<(), RpcError> {
    let (store, slot) = cluster.find(&change.region)?;
    let kms = change.kms.clone();
    let managed = store.is_managed(local);
    let own = store.region() == change.region;
    let done = match (store.state(), slot) {
        (State::Plain, _) => store.create(kms),
        (State::Closed(_), _) => return Err(lost(&change.region)),
        (State::Open(keyring), _) if !managed && own => keyring.slots().enable_cmek(kms),
        (State::Open(keyring), None) => keyring.slots().add(&change.region, kms),
        (State::Open(keyring), Some(slot)) if slot.key_uri == kms.key_uri().as_str() => {
            keyring.slots().rewrap(Some(&slot.name)).map(|_| ())
        }
        (State::Open(keyring), Some(slot)) => keyring.slots().replace(&slot.name, kms),
    };
    done.map_err(|error| RpcError::of(&change.region, &error))
}

fn lost(region: &str) -> RpcError {
    let what = format!("region {region}: access to the store is revoked: restore it first");
    RpcError::new(Code::FailedPrecondition, what)
}
