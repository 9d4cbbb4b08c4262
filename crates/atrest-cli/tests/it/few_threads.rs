//! Where the system starts no thread, or few, commands work with those there are, or say that they
//! need more.

use crate::open_files::with_cold_files;

#[test]
fn commands_work_with_few_threads_and_never_panic() {
    let mut bench = with_cold_files(20);
    // Threads are counted for each user: of this one nobody else has any.
    if !bench.give_to(100_000 + std::process::id() % 50_000) {
        return;
    }
    for threads in 1..=6 {
        bench.limit(&format!("nproc={threads}"));
        let (dest, new) = (format!("dest-{threads}"), format!("new-{threads}"));
        for args in [
            &["verify", "data"][..],
            &["keys", "list", "data"],
            &["encrypt", "data", "cmek.key", "g", "--force"],
            &["rotate", "data-key", "data"],
            &["reencrypt", "data", "--all"],
            &["keys", "retire", "data"],
            &["backup", "create", "data", &dest],
            &["backup", "verify", &dest],
            &["backup", "restore", &dest, &new],
        ] {
            let run = bench.run(args);
            assert!(!run.stderr.contains("panicked"), "{threads}, {args:?}: {}", run.stderr);
            // Done; no thread to ask the key service; no backup, since it could not be made; no
            // thread for signals.
            let known = [0, 4, 6, 7, 11].contains(&run.code);
            assert!(known, "{threads}, {args:?}: {} {}", run.code, run.stderr);
            assert!(threads < 6 || run.code == 0, "{args:?}: {}", run.stderr);
            if threads == 1 {
                assert!(run.stderr.contains("raise the limit of threads"), "{}", run.stderr);
            }
        }
    }
    bench.limit("nproc=100");
    assert_eq!(bench.json(&["verify", "data"])["unauthenticated_files"], 21);
    assert_eq!(bench.json(&["verify", "new-6"])["unauthenticated_files"], 21);
}
