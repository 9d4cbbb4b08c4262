//! A customer's key that is taken away from a session stops the query that runs.

use std::fs;
use std::time::{Duration, Instant};

use atrest::keyring::AccessPolicy;
use atrest::{ErrorKind, Options};
use datafusion::arrow::array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures_util::StreamExt;

use crate::warehouse::{Place, Tables, WAYS, Way};

/// Rows of the table, 100 in each row group.
const ROWS: usize = 100_000;
/// Between two row groups that the query is asked for: all of them take longer than the bound.
const PACE: Duration = Duration::from_millis(20);

/// As short as a test needs: the loss is noticed within 6 s.
fn access() -> AccessPolicy {
    let mut access = AccessPolicy::default();
    access.check_interval = Duration::from_millis(300);
    access.check_deadline = Duration::from_secs(2);
    access.confirmations = 2;
    access.confirm_over = Duration::from_millis(100);
    access.recovery_interval = Duration::from_millis(300);
    access
}

async fn query(tables: &Tables) -> Result<SendableRecordBatchStream, DataFusionError> {
    tables.session.sql("SELECT number, secret_column FROM numbers").await?.execute_stream().await
}

/// What is answered until the end or an error.
async fn rest(
    running: &mut SendableRecordBatchStream,
    pace: Duration,
) -> Result<usize, (usize, DataFusionError)> {
    let mut rows = 0;
    while let Some(batch) = running.next().await {
        rows += batch.map_err(|error| (rows, error))?.num_rows();
        tokio::time::sleep(pace).await;
    }
    Ok(rows)
}

async fn stops_and_goes_on(place: Place, way: Way) {
    let mut options = Options::default();
    options.access = access();
    let keyring = place.keyring(options);
    let tables = Tables::new(place.raw.clone(), &keyring, way);
    tables.create("numbers", "(number BIGINT, secret_column VARCHAR)", "numbers").await.unwrap();
    let insert =
        "INSERT INTO numbers SELECT value, 'the whale number ' || value FROM generate_series";
    tables.run(&format!("{insert}(1, {ROWS})")).await.unwrap();

    let mut running = query(&tables).await.unwrap();
    let first: RecordBatch = running.next().await.unwrap().unwrap();
    assert!(first.num_rows() > 0);
    let away = place.dir.path().join("away.key");
    fs::rename(place.key_path(), &away).unwrap();
    let taken = Instant::now();
    let (rows, error) = rest(&mut running, PACE).await.unwrap_err();
    let after = taken.elapsed();
    assert!(after <= access().worst_case(), "{way:?}: {after:?}");
    assert!(error.to_string().contains("access to the customer's key was withdrawn"), "{error}");
    assert!(rows < ROWS / 2, "{way:?}: {rows}");
    // It is over, for whoever asks again too, and so is everything new.
    assert_eq!(rest(&mut running, Duration::ZERO).await.map_err(|(rows, _)| rows).unwrap_or(0), 0);
    if let Way::Store(_) = way {
        let kind = atrest_object_store::find_error(&error).map(atrest::Error::kind);
        assert_eq!(kind, Some(ErrorKind::CmekRevoked), "{error:?}");
    }
    tables.run("SELECT max(secret_column) FROM numbers WHERE number < 10").await.unwrap_err();
    tables.run("SELECT count(*) FROM numbers").await.unwrap_err();
    let insert_three = format!("{insert}(1, 3)");
    tables.run(&insert_three).await.unwrap_err();

    fs::rename(&away, place.key_path()).unwrap();
    let given = Instant::now();
    let policy = access();
    let bound = policy.recovery_interval.mul_f64(1.1) + policy.check_deadline;
    while let Err(error) = tables.run(&insert_three).await {
        assert!(given.elapsed() <= bound, "{way:?}: {error}");
        tokio::time::sleep(PACE).await;
    }
    let mut running = query(&tables).await.unwrap();
    assert_eq!(rest(&mut running, Duration::ZERO).await.unwrap(), ROWS + 3);
    eprintln!("{way:?}: stopped after {after:?}, {rows} of {ROWS} rows later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_query_on_a_directory_stops_and_the_session_goes_on() {
    for way in WAYS {
        stops_and_goes_on(Place::local(), way).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_query_on_a_bucket_stops_and_the_session_goes_on() {
    for (way, name) in
        WAYS.into_iter().zip(["confidential-stops", "authenticated-stops", "parquet-stops"])
    {
        let Some(place) = Place::bucket(name) else { return };
        stops_and_goes_on(place, way).await;
    }
}
