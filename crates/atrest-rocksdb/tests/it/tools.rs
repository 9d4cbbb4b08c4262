//! Unmodified `db_bench`, `ldb` and `sst_dump`.

use std::process::Command;

use crate::support::{Form, Place, assert_encrypted, in_both_forms, run, try_run};

in_both_forms! { ldb_and_sst_dump db_bench mapping_ciphertext_is_refused options_that_are_wrong_are_told }

fn ldb_and_sst_dump(form: Form) {
    let Some(place) = Place::new(form) else { return };
    run(place.tool("ldb").args(["--create_if_missing", "put", "key-00000001", "x of record x"]));
    run(place.tool("ldb").args(["put", "key-00000002", "y of record y"]));
    let found = run(place.tool("ldb").args(["get", "key-00000001"]));
    assert!(found.contains("x of record x"), "{found}");
    run(place.tool("ldb").arg("compact"));
    let scanned = run(place.tool("ldb").arg("scan"));
    assert!(scanned.contains("key-00000002 : y of record y"), "{scanned}");

    let mut dump = place.command("sst_dump");
    dump.arg(format!("--fs_uri={}", place.uri())).arg(format!("--file={}", place.db().display()));
    let dumped = run(dump.arg("--command=scan"));
    assert!(dumped.contains("x of record x"), "{dumped}");

    // The tools' own log is not encrypted, and told these keys in no line.
    assert_encrypted(&place);
    // Without the provider there is nothing to read.
    let mut plain = Command::new("ldb");
    let (opened, text) = try_run(plain.arg(format!("--db={}", place.db().display())).arg("scan"));
    assert!(!opened || text.contains("orruption"), "{text}");
    assert!(!text.contains("of record"), "{text}");
}

fn db_bench(form: Form) {
    let Some(place) = Place::new(form) else { return };
    for more in [
        &["--compression_type=none"][..],
        &["--use_direct_io_for_flush_and_compaction=true", "--use_direct_reads=true"],
        &["--enable_blob_files=true", "--min_blob_size=10"],
    ] {
        let mut bench = place.tool("db_bench");
        bench.args(["--num=3000", "--write_buffer_size=65536", "--seed=1"]).args(more);
        let work = "fillseq,fillrandom,overwrite,flush,readrandom,readseq,readwhilewriting,compact,\
                    verifychecksum";
        let text = run(bench.arg(format!("--benchmarks={work}")));
        for part in work.split(',') {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_encrypted(&place);
    }
}

fn mapping_ciphertext_is_refused(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let mut bench = place.tool("db_bench");
    let (opened, text) =
        try_run(bench.args(["--mmap_read=true", "--num=10", "--benchmarks=fillseq"]));
    assert!(!opened && text.contains("Invalid argument"), "{text}");
}

fn options_that_are_wrong_are_told(form: Form) {
    let Some(mut place) = Place::new(form) else { return };
    place.policy = "mode=opne";
    let told = place.try_engine().unwrap_err();
    assert!(told.contains("open-or-create or read-only"), "{told}");
    place.policy = "mode=open";
    let told = place.try_engine().unwrap_err();
    assert!(told.contains("keyring-missing"), "{told}");
}
