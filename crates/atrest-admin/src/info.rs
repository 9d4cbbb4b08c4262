//! From keyrings to the API's status.

use std::collections::BTreeMap;
use std::time::Duration;

use atrest::keyring::AccessState;
use atrest::kms::KmsErrorKind;
use atrest::{Clock as _, ErrorKind, SystemClock};

use crate::api::{ClusterInfo, CmekStatus, KeyInfo, KeySpec, RegionInfo};
use crate::cluster::{Cluster, Operation, Progress};
use crate::store::{Closed, State, Store};
use crate::time::rfc3339;

/// How a store stands, operations apart.
struct Standing {
    status: CmekStatus,
    message: String,
    since_ns: u64,
}

/// The cluster as it is now, as memory has it: this waits for no disk and no key service.
pub(crate) fn cluster_info(cluster: &Cluster, local: Option<&str>) -> ClusterInfo {
    let progress = cluster.progress();
    let mut regions = BTreeMap::<String, (CmekStatus, Vec<KeyInfo>)>::new();
    for store in &cluster.stores {
        let standing = standing(store, local);
        let slots = store.slots();
        let empty = || (standing.status, Vec::new());
        if slots.is_empty() {
            let (status, _) = overlaid(&progress, store.region(), &standing);
            regions.insert(store.region().to_owned(), (status, Vec::new()));
        }
        for slot in slots {
            let region = cluster.region_of(store, &slot);
            let (status, user_message) = overlaid(&progress, region, &standing);
            let principal = progress.principals.get(&slot.key_uri).cloned().unwrap_or_default();
            let entry = regions.entry(region.to_owned()).or_insert_with(empty);
            entry.0 = status;
            entry.1.push(KeyInfo {
                status,
                user_message,
                created_at: rfc3339(slot.created_ns),
                updated_at: rfc3339(slot.created_ns.max(standing.since_ns)),
                spec: KeySpec::of_key_uri(&slot.key_uri, principal),
            });
        }
    }
    // Regions that an operation is about to add, or failed to.
    let planned = progress.shown().into_iter().flat_map(|(operation, regions)| {
        regions.iter().map(|region| (region.clone(), Some(operation.running())))
    });
    let failed = progress.failed.iter().map(|(region, (op, _))| (region.clone(), op.failed()));
    for (region, status) in planned.chain(failed) {
        if let Some(status) = status {
            regions.entry(region).or_insert((status, Vec::new()));
        }
    }
    let region_infos: Vec<_> = (regions.into_iter())
        .map(|(region, (status, key_infos))| RegionInfo { region, status, key_infos })
        .collect();
    ClusterInfo { status: worst(region_infos.iter().map(|info| info.status)), region_infos }
}

/// The status of a region, with what runs there and what failed there.
fn overlaid(progress: &Progress, region: &str, standing: &Standing) -> (CmekStatus, String) {
    if progress.revoking {
        return (CmekStatus::Revoking, String::new());
    }
    if let Some(operation) = progress.running_in(region) {
        return (operation.running(), String::new());
    }
    let Some((operation, message)) = progress.failed.get(region) else {
        return (standing.status, standing.message.clone());
    };
    // That no key is in memory is more than that something else failed before.
    let lost = standing.status == CmekStatus::Revoked && *operation != Operation::Revoke;
    let status = operation.failed().filter(|_| !lost).unwrap_or(standing.status);
    let both = match standing.message.as_str() {
        "" => message.clone(),
        standing => {
            format!("{standing}; the last operation, {}, failed: {message}", operation.as_str())
        }
    };
    (status, both)
}

fn standing(store: &Store, local: Option<&str>) -> Standing {
    match store.state() {
        State::Plain => Standing {
            status: CmekStatus::Disabled,
            message: "the store is not encrypted".into(),
            since_ns: 0,
        },
        State::Closed(closed) => Standing {
            status: CmekStatus::Revoked,
            message: format!("no key is in memory: {}", closed.message),
            since_ns: 0,
        },
        State::Open(keyring) => {
            let access = keyring.access().status();
            let since_ns = before(SystemClock.now_ns(), access.in_state);
            let message = message(&access);
            let status = match access.state.serves() {
                false => CmekStatus::Revoked,
                true if store.is_managed(local) => CmekStatus::Enabled,
                true => CmekStatus::Disabled,
            };
            Standing { status, message, since_ns }
        }
    }
}

fn before(now_ns: u64, ago: Duration) -> u64 {
    now_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))
}

fn message(access: &atrest::keyring::AccessStatus) -> String {
    let because = match access.kms_error {
        Some(kind) => format!(" (the key service: {kind})"),
        None => String::new(),
    };
    let text = match access.state {
        AccessState::Active => {
            let ending = access.credentials.iter().find(|credential| credential.ending);
            return ending.map_or(String::new(), |credential| {
                let seconds = credential.expires_in.as_secs();
                format!("the credential for {} ends in {seconds} s", credential.key_uri)
            });
        }
        AccessState::Unreachable => "the key service does not answer, and grace is running",
        AccessState::Suspect => "the key service denies access, which is being confirmed",
        AccessState::Revoked if access.revoked_on_request => "revoked on request",
        AccessState::Revoked => "the key service denies access",
        AccessState::Disabled => "the key is disabled or about to be deleted",
        AccessState::Destroyed => "the key is destroyed",
        AccessState::Suspended => "the key service did not answer for too long",
        AccessState::Restored => "access was restored",
        _ => access.state.as_str(),
    };
    format!("{text}{because}")
}

/// The access state of a store whose keyring did not open, as a watching process would
/// call it.
pub(crate) fn state_of_closed(closed: &Closed) -> AccessState {
    match closed.kind {
        ErrorKind::Kms(kind) => match kind {
            KmsErrorKind::NotFound | KmsErrorKind::Destroyed => AccessState::Destroyed,
            KmsErrorKind::KeyDisabled
            | KmsErrorKind::PendingDeletion
            | KmsErrorKind::VersionRetired => AccessState::Disabled,
            kind if kind.denies_access() => AccessState::Revoked,
            _ => AccessState::Suspended,
        },
        _ => AccessState::Revoked,
    }
}

/// Of several regions' statuses the one that needs most attention: something that runs,
/// then what failed, then what is revoked, then what is not encrypted under a customer's
/// key.
fn worst(statuses: impl Iterator<Item = CmekStatus>) -> CmekStatus {
    let rank = |status: &CmekStatus| match status {
        CmekStatus::Revoking => 0,
        CmekStatus::Disabling => 1,
        CmekStatus::Enabling => 2,
        CmekStatus::Rotating => 3,
        CmekStatus::RevokeFailed => 4,
        CmekStatus::Revoked => 5,
        CmekStatus::DisableFailed => 6,
        CmekStatus::EnableFailed => 7,
        CmekStatus::RotateFailed => 8,
        CmekStatus::Disabled => 9,
        CmekStatus::Enabled => 10,
    };
    // A cluster has at least one store, and so a region.
    statuses.min_by_key(rank).unwrap_or(CmekStatus::Disabled)
}
