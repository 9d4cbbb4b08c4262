//! Whole sessions of DataFusion: what they answer, and what is on the disk.

use std::sync::Arc;

use atrest::keyring::RetireOutcome;
use atrest::{ErrorKind, Options};
use object_store::memory::InMemory;
use tokio::task::block_in_place;

use crate::support::{KNOWN, keyring};
use crate::warehouse::{Place, Tables, WAYS, Way, everything_in};

/// Rows of people, and of calls.
const FILL: [&str; 2] = [
    "INSERT INTO people SELECT value, 'the whale number ' || value || ' sings in the deep', \
         'city ' || (value % 10) FROM generate_series(0, 999)",
    "INSERT INTO calls SELECT value % 1000, (value * 7919) % 61 FROM generate_series(0, 9999)",
];

const QUERIES: [&str; 5] = [
    "SELECT count(*) AS rows, min(secret_column), max(id) FROM people",
    "SELECT * FROM people WHERE id BETWEEN 250 AND 260 ORDER BY id",
    "SELECT id, secret_column FROM people WHERE secret_column LIKE '%whale number 77_ %' ORDER BY id",
    "SELECT city, count(*) AS calls, sum(seconds) AS seconds, avg(id) AS id \
         FROM people JOIN calls ON id = caller GROUP BY city ORDER BY city",
    "SELECT secret_column, sum(seconds) AS seconds FROM people LEFT JOIN calls ON id = caller \
         WHERE city = 'city 3' GROUP BY secret_column HAVING sum(seconds) > 250 \
         ORDER BY seconds DESC, secret_column LIMIT 20",
];

async fn create(tables: &Tables) {
    tables
        .create("people", "(id BIGINT, secret_column VARCHAR, city VARCHAR)", "people/1")
        .await
        .unwrap();
    tables.create("calls", "(caller BIGINT, seconds BIGINT)", "calls/1").await.unwrap();
}

async fn rewrite(tables: &Tables) {
    tables.rewrite("people", "people/1", "people/2").await.unwrap();
    tables.rewrite("calls", "calls/1", "calls/2").await.unwrap();
}

async fn same_answers(tables: &Tables, plain: &Tables) {
    for query in QUERIES {
        let expected = plain.ask(query).await;
        assert!(expected.lines().count() > 4, "{query}: {expected}");
        assert_eq!(tables.ask(query).await, expected, "{query}");
    }
}

/// How often each of the known words stands in files.
fn known(files: &[(String, Vec<u8>)]) -> [usize; KNOWN.len()] {
    KNOWN.map(|word| {
        let count =
            |bytes: &[u8]| bytes.windows(word.len()).filter(|at| *at == word.as_bytes()).count();
        files.iter().map(|(_, bytes)| count(bytes)).sum()
    })
}

async fn lives(place: Place, way: Way) {
    let keyring = place.keyring(Options::default());
    let plain_files = Arc::new(InMemory::new());
    let plain = Tables::plain(plain_files.clone());
    let tables = Tables::new(place.raw.clone(), &keyring, way);
    for session in [&plain, &tables] {
        create(session).await;
        for sql in FILL {
            session.run(sql).await.unwrap();
        }
    }
    same_answers(&tables, &plain).await;
    let first = keyring.keys().active_id().unwrap();
    assert_eq!(tables.data_keys().await, [first].into());

    // Old files are read beside new ones, and rewriting moves all of them.
    let second = block_in_place(|| keyring.keys().rotate()).unwrap();
    for session in [&plain, &tables] {
        session
            .run("INSERT INTO people SELECT id + 1000, secret_column, city FROM people")
            .await
            .unwrap();
    }
    assert_eq!(tables.data_keys().await, [first, second].into());
    same_answers(&tables, &plain).await;
    assert_eq!(tables.retire().await, [RetireOutcome::InUse]);
    same_answers(&tables, &plain).await;

    // The words are where they are looked for.
    let found = known(&everything_in(&*plain_files).await);
    assert!(found.iter().all(|count| *count > 0), "{found:?}");
    assert_eq!(known(&place.everything().await), [0; KNOWN.len()]);

    for session in [&plain, &tables] {
        rewrite(session).await;
    }
    assert_eq!(tables.data_keys().await, [second].into());
    assert_eq!(tables.retire().await, [RetireOutcome::Destroyed]);
    same_answers(&tables, &plain).await;
    assert_eq!(known(&place.everything().await), [0; KNOWN.len()]);

    // Another session finds the tables; one with another keyring does not.
    let again = Tables::new(place.raw.clone(), &keyring, way);
    let foreign = Tables::new(place.raw.clone(), &self::keyring(), way);
    again.create("people", "", "people/2").await.unwrap();
    again.create("calls", "", "calls/2").await.unwrap();
    same_answers(&again, &plain).await;
    let error = foreign.create("people", "", "people/2").await.unwrap_err();
    assert!(error.to_string().contains("expected a file of store"), "{error}");

    let refused = block_in_place(|| place.keyring_by_another_key()).kind();
    assert!(matches!(refused, ErrorKind::Kms(_) | ErrorKind::WrongStoreKey), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_directory_all_is_answered_and_nothing_shown() {
    for way in WAYS {
        lives(Place::local(), way).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_bucket_all_is_answered_and_nothing_shown() {
    for (way, name) in WAYS.into_iter().zip(["confidential", "authenticated", "parquet"]) {
        let Some(place) = Place::bucket(name) else { return };
        lives(place, way).await;
    }
}

/// DataFusion names columns that the files do not have.
#[tokio::test(flavor = "multi_thread")]
async fn tables_partitioned_by_columns() {
    for way in WAYS {
        let place = Place::local();
        let tables = Tables::new(place.raw.clone(), &place.keyring(Options::default()), way);
        let columns = "(id BIGINT, secret_column VARCHAR, city VARCHAR) PARTITIONED BY (city)";
        tables.create("people", columns, "people").await.unwrap();
        tables.run(FILL[0]).await.unwrap();
        let answer = tables
            .ask("SELECT city, count(*) AS rows, min(secret_column) FROM people GROUP BY city ORDER BY city")
            .await;
        assert!(
            answer.contains("| city 7 | 100  | the whale number 107 sings in the deep |"),
            "{answer}"
        );
        assert_eq!(known(&place.everything().await), [0; KNOWN.len()], "{way:?}");
    }
}
