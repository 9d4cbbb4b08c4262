//! Keys from words and from the environment.

use crate::support::Bench;

#[test]
fn a_passphrase_opens_and_is_replaced() {
    const OLD: (&str, &str) = ("ATREST_PASSPHRASE", "correct horse battery staple");
    const NEW: (&str, &str) = ("ATREST_PASSPHRASE", "tin can on a long string");
    const CMEK: (&str, &str) = ("ATREST_CMEK", "passphrase:");
    let mut bench = Bench::empty();
    bench.keep_secret(OLD.1.as_bytes());
    bench.keep_secret(NEW.1.as_bytes());
    let good = |args: &[&str], variables: &[(&str, &str)]| {
        let run = bench.run_with(args, variables, b"in words");
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout
    };
    good(&["init", "data"], &[CMEK, OLD]);
    good(&["encrypt", "data", "-", "f"], &[CMEK, OLD]);
    let wrong = bench.run_with(&["decrypt", "data", "f"], &[CMEK, NEW], b"");
    assert_eq!(wrong.code, 5, "{}", wrong.stderr);
    // What looks like the right words gets advice that helps.
    for words in [format!("{}\n", OLD.1), format!("{}\r", OLD.1), format!("\u{feff}{}", OLD.1)] {
        let variables = [CMEK, ("ATREST_PASSPHRASE", &words)];
        let wrong = bench.run_with(&["decrypt", "data", "f"], &variables, b"");
        assert_eq!(wrong.code, 5, "{}", wrong.stderr);
        assert!(wrong.stderr.contains("a line break at the end"), "{}", wrong.stderr);
        assert!(wrong.stderr.contains("NFC and NFD"), "{}", wrong.stderr);
    }
    let new = ("ATREST_NEW_PASSPHRASE", NEW.1);
    good(&["rotate", "cmek", "data", "--new-cmek", "passphrase:"], &[CMEK, OLD, new]);
    assert_eq!(good(&["decrypt", "data", "f"], &[CMEK, NEW]), b"in words");
    let old = bench.run_with(&["decrypt", "data", "f"], &[CMEK, OLD], b"");
    assert_eq!(old.code, 5, "{}", old.stderr);
    // Without words and without a terminal nobody is asked.
    let asked = bench.run_with(&["decrypt", "data", "f"], &[CMEK], b"tin can on a long string\n");
    assert_eq!(asked.code, 2, "{}", asked.stderr);
    assert!(asked.stderr.contains("set ATREST_PASSPHRASE"), "{}", asked.stderr);
    // Words in the URI would be stored, readable.
    let run = bench.run_with(&["init", "x"], &[("ATREST_CMEK", "passphrase:tin can")], b"");
    assert_eq!(run.code, 2);
}

#[test]
fn an_environment_variable_is_a_key() {
    let key = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210";
    let mut bench = Bench::empty();
    bench.keep_secret(key.as_bytes());
    let variables = [("ATREST_CMEK", "env:CMEK"), ("CMEK", key)];
    for args in [&["init", "data"][..], &["encrypt", "data", "-", "f"], &["status", "data"]] {
        let run = bench.run_with(args, &variables, b"x");
        assert_eq!(run.code, 0, "{}", run.stderr);
    }
    assert_eq!(bench.run_with(&["decrypt", "data", "f"], &variables, b"").stdout, b"x");
    // White space around it is none of it; what else somebody writes in front is told.
    let around = format!(" {key}\r\n");
    let run = |text: &str| {
        let variables = [("ATREST_CMEK", "env:CMEK"), ("CMEK", text)];
        bench.run_with(&["decrypt", "data", "f"], &variables, b"")
    };
    assert_eq!(run(&around).stdout, b"x");
    for text in [format!("0x{key}"), format!("\u{feff}{key}"), key[1..].to_owned(), "zz".repeat(32)]
    {
        let refused = run(&text);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("expected 64 hexadecimal digits"), "{}", refused.stderr);
    }
}
