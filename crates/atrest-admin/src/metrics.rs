//! `/metrics`, in the text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::PoisonError;
use std::time::Duration;

use atrest::keyring::{AccessState, KeyState};
use atrest::{Clock as _, KeyMemory, Keyring, SystemClock};

use crate::cluster::Operation;
use crate::info::state_of_closed;
use crate::metered::BUCKETS_MS;
use crate::state::AdminState;
use crate::store::{State, Store};

const STATES: [AccessState; 8] = [
    AccessState::Active,
    AccessState::Unreachable,
    AccessState::Suspect,
    AccessState::Revoked,
    AccessState::Disabled,
    AccessState::Destroyed,
    AccessState::Suspended,
    AccessState::Restored,
];

/// Families in the order of their first sample, each with its samples together.
struct Families {
    families: Vec<Family>,
    /// Whether keyspaces are named.
    keyspaces: bool,
}

struct Family {
    name: &'static str,
    samples: String,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// Name, type and help of every family.
const FAMILIES: [(&str, &str, &str); 30] = [
    ("atrest_store_encrypted", "gauge", "Whether the store has a keyring."),
    ("atrest_store_open", "gauge", "Whether the store's keys are in memory."),
    ("atrest_access_state", "gauge", "1 for the state of access to the customer's key."),
    ("atrest_access_state_seconds", "gauge", "Time in the access state."),
    ("atrest_access_good_check_age_seconds", "gauge", "Time since the last good check."),
    (
        "atrest_access_keys_expire_seconds",
        "gauge",
        "Time until the keys are given up without a good check; absent for never.",
    ),
    ("atrest_access_checks_total", "counter", "Checks of access since the store was opened."),
    ("atrest_access_checks_failed_total", "counter", "Checks that were not good."),
    ("atrest_access_last_check_seconds", "gauge", "How long the last check took."),
    (
        "atrest_access_revocation_worst_case_seconds",
        "gauge",
        "Longest time from a revocation at the key service to refusal, if the service answers.",
    ),
    (
        "atrest_access_unreachable_worst_case_seconds",
        "gauge",
        "The same if the service stops answering; absent for endless.",
    ),
    (
        "atrest_keyring_view_age_seconds",
        "gauge",
        "Time since the keyring in memory was known to be the one in the storage.",
    ),
    ("atrest_keyring_followed", "gauge", "Whether the last look at the storage could be followed."),
    ("atrest_keyring_upkeep_failed", "gauge", "Whether the last rotation by itself failed."),
    ("atrest_keyring_generation", "gauge", "Commits of the keyring."),
    (
        "atrest_cmek_slot_age_seconds",
        "gauge",
        "Time since the customer's key of a slot wrapped the slot's key.",
    ),
    (
        "atrest_credential_expires_seconds",
        "gauge",
        "Time until the credential ends with which a slot's key service is asked.",
    ),
    (
        "atrest_credential_ending",
        "gauge",
        "Whether somebody has to renew it: less than a third of its time is left.",
    ),
    ("atrest_data_keys", "gauge", "Data keys by state."),
    ("atrest_data_key_age_seconds", "gauge", "Age of a data key that is not destroyed."),
    (
        "atrest_data_key_encrypted_bytes",
        "gauge",
        "Bytes encrypted under a data key that is not destroyed.",
    ),
    ("atrest_active_data_key_age_seconds", "gauge", "Age of the data key that new files get."),
    (
        "atrest_data_key_rotation_period_seconds",
        "gauge",
        "Age at which a data key is due for rotation.",
    ),
    ("atrest_key_events_total", "counter", "Audit events by kind: rotations, slots, revocations."),
    ("atrest_audit_readable", "gauge", "Whether the audit trail is complete and authentic."),
    ("atrest_operation_running", "gauge", "Whether an operation of the API runs on the cluster."),
    ("atrest_kms_call_seconds", "histogram", "Time of calls to key services."),
    ("atrest_kms_call_errors_total", "counter", "Calls to key services that failed."),
    ("atrest_stores", "gauge", "Stores served."),
    (
        "atrest_key_memory_bytes",
        "gauge",
        "Memory of the process for keys: locked, unlocked, or outside of what is set apart.",
    ),
];

/// All metrics. Reads archives of audit events where a keyring changed.
pub(crate) fn text(state: &AdminState) -> String {
    // Keyspaces are named after tenants, which are nobody else's business.
    let mut out = Families { families: Vec::new(), keyspaces: !state.has_public_metrics() };
    let stores = state.clusters().values().map(|cluster| cluster.stores.len()).sum::<usize>();
    out.add("atrest_stores", &[], stores as f64);
    let memory = KeyMemory::now();
    let unlocked = memory.bytes - memory.locked_bytes;
    let parts = [
        ("locked", memory.locked_bytes),
        ("unlocked", unlocked),
        ("outside", memory.outside_bytes),
    ];
    for (state, bytes) in parts {
        out.add("atrest_key_memory_bytes", &[("state", state)], bytes as f64);
    }
    for (id, cluster) in state.clusters() {
        for store in &cluster.stores {
            add_store(&mut out, &[("cluster", id), ("region", store.region())], store);
        }
        let progress = cluster.progress();
        for operation in Operation::ALL {
            let running = match operation {
                Operation::Revoke => progress.revoking,
                _ => progress.running.as_ref().is_some_and(|(other, _)| *other == operation),
            };
            let labels = [("cluster", id.as_str()), ("operation", operation.as_str())];
            out.add("atrest_operation_running", &labels, flag(running));
        }
    }
    add_kms(&mut out, state);
    out.finish()
}

fn add_store(out: &mut Families, at: Labels<'_>, store: &Store) {
    let found = store.state();
    out.add("atrest_store_encrypted", at, flag(!matches!(found, State::Plain)));
    let open = matches!(&found, State::Open(keyring) if keyring.access().status().state.serves());
    out.add("atrest_store_open", at, flag(open));
    let access_state = match &found {
        State::Plain => None,
        State::Closed(closed) => Some(state_of_closed(closed)),
        State::Open(keyring) => Some(keyring.access().status().state),
    };
    for state in STATES.iter().filter(|_| access_state.is_some()) {
        let labels = with(at, &[("state", state.as_str())]);
        out.add("atrest_access_state", &labels, flag(access_state == Some(*state)));
    }
    if let State::Open(keyring) = found {
        add_access(out, at, &keyring);
        add_keys(out, at, &keyring);
        add_events(out, at, store, &keyring);
    }
}

fn add_access(out: &mut Families, at: Labels<'_>, keyring: &Keyring) {
    let access = keyring.access().status();
    let mut seconds = |name, duration: Duration| out.add(name, at, duration.as_secs_f64());
    seconds("atrest_access_state_seconds", access.in_state);
    seconds("atrest_access_good_check_age_seconds", access.since_good_check);
    seconds("atrest_access_last_check_seconds", access.last_check_took);
    seconds("atrest_access_revocation_worst_case_seconds", access.worst_case);
    if let Some(expire) = access.keys_expire_in {
        seconds("atrest_access_keys_expire_seconds", expire);
    }
    if let Some(worst) = access.worst_case_unreachable {
        seconds("atrest_access_unreachable_worst_case_seconds", worst);
    }
    seconds("atrest_keyring_view_age_seconds", access.since_keyring_read);
    out.add("atrest_keyring_followed", at, flag(access.keyring_problem.is_none()));
    out.add("atrest_keyring_upkeep_failed", at, flag(access.upkeep_problem.is_some()));
    out.add("atrest_access_checks_total", at, access.checks as f64);
    out.add("atrest_access_checks_failed_total", at, access.checks_failed as f64);
}

fn add_keys(out: &mut Families, at: Labels<'_>, keyring: &Keyring) {
    let status = keyring.status();
    let now_ns = SystemClock.now_ns();
    let age = |ns: u64| Duration::from_nanos(now_ns.saturating_sub(ns)).as_secs_f64();
    out.add("atrest_keyring_generation", at, status.info.generation as f64);
    let credentials = keyring.access().status().credentials;
    for slot in &status.info.slots {
        let labels = with(at, &[("slot", &slot.name)]);
        out.add("atrest_cmek_slot_age_seconds", &labels, age(slot.created_ns));
        for credential in credentials.iter().filter(|one| one.key_uri == slot.key_uri) {
            let expires = credential.expires_in.as_secs_f64();
            out.add("atrest_credential_expires_seconds", &labels, expires);
            out.add("atrest_credential_ending", &labels, flag(credential.ending));
        }
    }
    let period = status.settings.rotation_period.as_secs_f64();
    out.add("atrest_data_key_rotation_period_seconds", at, period);
    let mut states = BTreeMap::from(KEY_STATES.map(|state| (state_name(state), 0_u64)));
    for key in &status.data_keys {
        *states.entry(state_name(key.state)).or_default() += 1;
        if key.destroyed_ns.is_some() {
            continue;
        }
        let id = key.id.to_string();
        let line = match out.keyspaces {
            true => with(at, &[("keyspace", &key.keyspace)]),
            false => at.to_vec(),
        };
        let labels = with(&line, &[("data_key", &id)]);
        out.add("atrest_data_key_age_seconds", &labels, age(key.created_ns));
        out.add("atrest_data_key_encrypted_bytes", &labels, key.encrypted_bytes as f64);
        if key.state == KeyState::Active {
            let labels = if out.keyspaces { line } else { labels };
            out.add("atrest_active_data_key_age_seconds", &labels, age(key.created_ns));
        }
    }
    for (state, count) in states {
        out.add("atrest_data_keys", &with(at, &[("state", &state)]), count as f64);
    }
}

fn add_events(out: &mut Families, at: Labels<'_>, store: &Store, keyring: &Keyring) {
    let mut counts = store.events.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(counts) = counts.of(keyring) else {
        out.add("atrest_audit_readable", at, 0.0);
        return;
    };
    out.add("atrest_audit_readable", at, 1.0);
    for (kind, count) in counts {
        out.add("atrest_key_events_total", &with(at, &[("kind", kind)]), *count as f64);
    }
}

fn add_kms(out: &mut Families, state: &AdminState) {
    for ((scheme, operation), series) in state.keys().metrics().series() {
        let labels = [("scheme", scheme.as_str()), ("operation", operation)];
        let name = "atrest_kms_call_seconds";
        let mut calls = 0;
        for (index, count) in series.buckets.iter().enumerate() {
            calls += count;
            let bound = match BUCKETS_MS.get(index) {
                Some(ms) => Duration::from_millis(*ms).as_secs_f64().to_string(),
                None => "+Inf".to_owned(),
            };
            out.add_part(name, "_bucket", &with(&labels, &[("le", &bound)]), calls as f64);
        }
        out.add_part(name, "_sum", &labels, series.total.as_secs_f64());
        out.add_part(name, "_count", &labels, calls as f64);
        for (kind, count) in &series.errors {
            let labels = with(&labels, &[("kind", kind)]);
            out.add("atrest_kms_call_errors_total", &labels, *count as f64);
        }
    }
}

/// Those that are told though no key is in them.
const KEY_STATES: [KeyState; 4] =
    [KeyState::Active, KeyState::DecryptOnly, KeyState::Retiring, KeyState::Destroyed];

/// The state as the keyring's own JSON has it, so that a new one has its name here too.
fn state_name(state: KeyState) -> String {
    let name = serde_json::to_value(state).ok();
    // OK because a state without fields is a text.
    name.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn with<'a>(labels: Labels<'a>, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [labels, more].concat()
}

impl Families {
    fn add(&mut self, name: &'static str, labels: Labels<'_>, value: f64) {
        self.add_part(name, "", labels, value);
    }

    fn add_part(&mut self, name: &'static str, suffix: &str, labels: Labels<'_>, value: f64) {
        let index =
            self.families.iter().position(|family| family.name == name).unwrap_or_else(|| {
                self.families.push(Family { name, samples: String::new() });
                self.families.len() - 1
            });
        let samples = &mut self.families[index].samples;
        samples.push_str(name);
        samples.push_str(suffix);
        for (position, (label, text)) in labels.iter().enumerate() {
            let separator = if position == 0 { '{' } else { ',' };
            let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            // OK because a String takes any text.
            let _ = write!(samples, "{separator}{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            samples.push('}');
        }
        // OK because a String takes any text.
        let _ = writeln!(samples, " {value}");
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for family in self.families {
            let known = FAMILIES.iter().find(|(name, _, _)| *name == family.name);
            let (name, kind, help) = known.copied().unwrap_or((family.name, "untyped", ""));
            // OK because a String takes any text.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{}", family.samples);
        }
        text
    }
}
