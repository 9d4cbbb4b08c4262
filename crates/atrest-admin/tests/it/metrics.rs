//! The metrics: their format, read by a strict reader, and what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atrest::FileKind;
use atrest::kms::{Credential, Kms as _, KmsErrorKind};
use atrest_admin::{Store, router};
use axum::http::header::CONTENT_TYPE;

use crate::support::{Bench, act, call, get, keys, one, spec, state};

/// Samples by name and labels, from a text that keeps every rule of the format that our
/// metrics touch.
fn read(text: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut family, mut kind) = (String::new(), String::new());
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect(line);
            assert!(!words.is_empty() && !words.contains('\\'), "{line}");
            assert!(families.insert(name.to_owned()), "{name} has two heads");
            let of_type = lines.next().expect(line).strip_prefix("# TYPE ").expect(line);
            let (same, of_type) = of_type.split_once(' ').expect(line);
            assert_eq!(same, name);
            assert!(["gauge", "counter", "histogram"].contains(&of_type), "{of_type}");
            assert_eq!(of_type == "counter", name.ends_with("_total"), "{name}");
            (family, kind) = (name.into(), of_type.into());
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        let name = series.split('{').next().expect(line);
        let legal = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(legal), "{name}");
        if kind == "histogram" {
            let suffix = name.strip_prefix(family.as_str()).expect(line);
            assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        } else {
            assert_eq!(name, family, "{line}");
        }
        check_labels(&series[name.len()..]);
        let value: f64 = value.parse().expect(line);
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(samples.insert(series.to_owned(), value).is_none(), "{line} is there twice");
    }
    samples
}

fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(labels);
    let mut seen = BTreeSet::new();
    // No value of the tests holds a comma.
    for label in inner.split(',') {
        let (name, value) = label.split_once('=').expect(labels);
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{labels}");
        assert!(seen.insert(name), "{labels}");
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect(labels);
        assert!(!value.contains(['"', '\\']), "{labels}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_keys_access_and_events() {
    let bench = Bench::new();
    let (first, second) = (bench.key("first"), bench.key("second"));
    let (router, keyring) = one(&bench, &first, &[&second]);
    let store = atrest::Store::over(keyring.clone()).unwrap();
    let mut file = store.files().create_new(bench.path("data/file"), FileKind::Table).unwrap();
    file.append(&[7; 5000]).unwrap();
    file.finish().unwrap();
    let id = keyring.keys().active_id().unwrap();
    keyring.keys().rotate().unwrap();
    call(&router, "PUT", spec(&[("eu", &second)])).await.shows("ENABLED");

    let answer = get(&router, "/metrics").await;
    assert_eq!(answer.headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    let samples = read(&answer.text);
    let at = "cluster=\"orders\",region=\"eu\"";
    let value = |name: &str, more: &str| {
        let series = format!("{name}{{{at}{more}}}");
        *samples.get(&series).unwrap_or_else(|| panic!("no {series} in {}", answer.text))
    };
    assert_eq!(value("atrest_store_open", ""), 1.0);
    assert_eq!(value("atrest_access_state", ",state=\"active\""), 1.0);
    assert_eq!(value("atrest_access_state", ",state=\"revoked\""), 0.0);
    let worst_case = keyring.access().status().worst_case.as_secs_f64();
    assert_eq!(value("atrest_access_revocation_worst_case_seconds", ""), worst_case);
    assert!(value("atrest_access_good_check_age_seconds", "") < 3600.0);
    assert_eq!(value("atrest_data_keys", ",state=\"active\""), 1.0);
    assert_eq!(value("atrest_data_keys", ",state=\"decrypt-only\""), 1.0);
    assert_eq!(value("atrest_data_keys", ",state=\"destroyed\""), 0.0);
    let key = format!(",keyspace=\"default\",data_key=\"{id}\"");
    assert_eq!(value("atrest_data_key_encrypted_bytes", &key), 5000.0);
    assert!(value("atrest_data_key_age_seconds", &key) < 3600.0);
    assert_eq!(value("atrest_key_events_total", ",kind=\"data-key-rotated\""), 1.0);
    assert_eq!(value("atrest_key_events_total", ",kind=\"cmek-replaced\""), 1.0);
    assert_eq!(value("atrest_audit_readable", ""), 1.0);
    assert!(value("atrest_cmek_slot_age_seconds", ",slot=\"default\"") < 3600.0);
    assert_eq!(samples["atrest_stores"], 1.0);

    act(&router, "REVOKE").await.shows("REVOKED");
    let samples = read(&get(&router, "/metrics").await.text);
    let state = |state: &str| samples[&format!("atrest_access_state{{{at},state=\"{state}\"}}")];
    assert_eq!((state("active"), state("revoked")), (0.0, 1.0));
    let states = samples.iter().filter(|(series, _)| series.contains("access_state{"));
    assert_eq!(states.map(|(_, value)| value).sum::<f64>(), 1.0);
    assert_eq!(samples[&format!("atrest_store_open{{{at}}}")], 0.0);
    assert_eq!(samples[&format!("atrest_key_events_total{{{at},kind=\"revoked\"}}")], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_when_a_credential_ends() {
    let bench = Bench::new();
    let key = bench.key("first");
    let (router, _keyring) = one(&bench, &key, &[]);
    let at = "{cluster=\"orders\",region=\"eu\",slot=\"default\"}";
    let hour = Duration::from_secs(3600);
    let cases = [
        (hour / 2, false, 0.0),
        (hour / 3, false, 0.0),
        (hour / 6, false, 1.0),
        // Renewed in time by itself.
        (hour / 6, true, 0.0),
        (Duration::ZERO, false, 1.0),
    ];
    for (expires_in, renews, ending) in cases {
        key.tell(Some(Credential { expires_in, lifetime: hour, renews }));
        let samples = read(&get(&router, "/metrics").await.text);
        let value = |name: &str| samples[&format!("{name}{at}")];
        assert_eq!(value("atrest_credential_expires_seconds"), expires_in.as_secs_f64());
        assert_eq!(value("atrest_credential_ending"), ending, "{expires_in:?} {renews}");
    }
    // One whose end is not known has no line.
    key.tell(None);
    assert!(!get(&router, "/metrics").await.text.contains("atrest_credential_expires_seconds{"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_audit_event_is_counted() {
    let bench = Bench::new();
    let (router, keyring) = one(&bench, &bench.key("cmek"), &[]);
    keyring.keyspaces().create("tenant").unwrap();
    keyring.keyspaces().danger_shred("tenant").unwrap();
    let samples = read(&get(&router, "/metrics").await.text);
    let at = "atrest_key_events_total{cluster=\"orders\",region=\"eu\",kind=";
    for kind in ["created", "keyspace-created", "keyspace-shredded"] {
        assert_eq!(samples.get(&format!("{at}\"{kind}\"}}")), Some(&1.0), "{kind}");
    }
    let counted = samples.iter().filter(|(series, _)| series.starts_with(at));
    let events = keyring.audit().events().unwrap().len();
    assert_eq!(counted.map(|(_, count)| count).sum::<f64>(), events as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_of_a_data_key_is_counted_by_its_name() {
    let bench = Bench::new();
    let (router, keyring) = one(&bench, &bench.key("cmek"), &[]);
    let store = atrest::Store::over(keyring.clone()).unwrap();
    let counts = async || {
        let samples = read(&get(&router, "/metrics").await.text);
        let at = "atrest_data_keys{cluster=\"orders\",region=\"eu\",state=\"";
        let count = |(series, value): (&String, &f64)| {
            Some((series.strip_prefix(at)?.strip_suffix("\"}")?.to_owned(), *value))
        };
        samples.iter().filter_map(count).collect::<Vec<_>>()
    };
    let each = |counts: [f64; 4]| {
        let states = ["active", "decrypt-only", "destroyed", "retiring"].map(str::to_owned);
        states.into_iter().zip(counts).collect::<Vec<_>>()
    };
    keyring.keys().rotate().unwrap();
    assert_eq!(counts().await, each([1.0, 1.0, 0.0, 0.0]));
    let retire = |grace| store.renewal().retire(None, grace, &|_| {}).unwrap();
    retire(Duration::from_secs(3600));
    assert_eq!(counts().await, each([1.0, 0.0, 0.0, 1.0]));
    retire(Duration::ZERO);
    assert_eq!(counts().await, each([1.0, 0.0, 1.0, 0.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn public_metrics_name_no_keyspace() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let keyring = bench.keyring("data", &cmek);
    keyring.keyspaces().create("tenant-a").unwrap();
    keyring.keyspaces().create("tenant-b").unwrap();
    let id = keyring.keys().active_id().unwrap();
    let stores = || vec![Store::of_keyring("eu", keyring.clone())];
    let private = router(state(keys(&[&cmek]), stores()));
    assert!(get(&private, "/metrics").await.text.contains("keyspace=\"tenant-a\""));
    let public = router(state(keys(&[&cmek]), stores()).with_public_metrics(true));
    let text = get(&public, "/metrics").await.text;
    assert!(!text.contains("tenant") && !text.contains("keyspace="), "{text}");
    // The reader refuses what is there twice: each key is still told from the others.
    let samples = read(&text);
    let ages = samples.keys().filter(|series| series.contains("active_data_key_age"));
    assert_eq!(ages.count(), 3);
    let at = format!("{{cluster=\"orders\",region=\"eu\",data_key=\"{id}\"}}");
    assert!(samples.contains_key(&format!("atrest_data_key_age_seconds{at}")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_to_key_services_are_counted() {
    let bench = Bench::new();
    let (local, cmek) = (bench.key("local"), bench.key("cmek"));
    let keyring = bench.keyring("data", &local);
    let keys = keys(&[]);
    let metered = keys.meter(cmek.clone());
    let keys = keys.with_key(metered);
    let router = router(state(keys, vec![Store::of_keyring("eu", keyring)]).with_local_key(local));
    call(&router, "POST", spec(&[("eu", &cmek)])).await.shows("ENABLED");
    call(&router, "PUT", spec(&[("eu", &cmek)])).await.shows("ENABLED");
    cmek.fail(Some(KmsErrorKind::Throttled));
    call(&router, "PUT", spec(&[("eu", &cmek)])).await.refuses(503, 14);

    let samples = read(&get(&router, "/metrics").await.text);
    let at = |operation: &str| format!("scheme=\"file\",operation=\"{operation}\"");
    let count =
        |operation: &str| samples[&format!("atrest_kms_call_seconds_count{{{}}}", at(operation))];
    assert_eq!(count("wrap"), 1.0);
    // One proves the wrapped key, one the key wrapped anew.
    assert_eq!(count("unwrap"), 2.0);
    assert_eq!(count("rewrap"), 2.0);
    let errors = format!("atrest_kms_call_errors_total{{{},kind=\"throttled\"}}", at("rewrap"));
    assert_eq!(samples[&errors], 1.0);
    // Buckets are cumulative, and the last is the count.
    let bucket = |le: &str| {
        samples[&format!("atrest_kms_call_seconds_bucket{{{},le=\"{le}\"}}", at("rewrap"))]
    };
    let bounds = ["0.001", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5"];
    let counts: Vec<_> = bounds.into_iter().chain(["5", "15", "+Inf"]).map(bucket).collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&2.0));
    assert_eq!(cmek.key_uri().scheme(), "file");
}
