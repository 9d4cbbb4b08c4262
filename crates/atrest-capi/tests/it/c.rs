//! `tests/abi.c` and the example, as installed: shared and static, under valgrind and the
//! address sanitizer.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{flags, install, run};

const STRICT: [&str; 6] = ["-std=c11", "-D_GNU_SOURCE", "-g", "-Wall", "-Wextra", "-Werror"];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A program linked with the installed library, which it finds when it runs.
fn compile(prefix: &Path, file: &str, more: &[&str]) -> PathBuf {
    let program = prefix.join("program");
    let mut gcc = Command::new("gcc");
    gcc.args(STRICT).args(more).arg("-o").arg(&program).arg(source(file));
    gcc.arg(format!("-Wl,-rpath,{}", prefix.join("lib").display()));
    run(gcc.args(flags(prefix, &["--cflags", "--libs"])).arg("-pthread"));
    program
}

fn abi(dir: &Path, command: &mut Command) {
    assert_eq!(run(command.arg(dir.join("store"))), "all good\n");
}

#[test]
fn shared() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let program = compile(dir.path(), "tests/abi.c", &["-O2"]);
    // Linked by the name that only this major version has.
    let needed = run(Command::new("objdump").arg("-p").arg(&program));
    assert!(needed.contains("libatrest_c.so.1"), "{needed}");
    abi(dir.path(), &mut Command::new(program));
}

#[test]
fn linked_statically() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let program = dir.path().join("program");
    let mut gcc = Command::new("gcc");
    gcc.args(STRICT).arg("-o").arg(&program).arg(source("tests/abi.c"));
    gcc.args(flags(dir.path(), &["--cflags"])).arg(dir.path().join("lib/libatrest_c.a"));
    let private = flags(dir.path(), &["--static", "--libs-only-l"]);
    run(gcc.args(private.iter().filter(|flag| *flag != "-latrest_c")));
    abi(dir.path(), &mut Command::new(program));
}

#[test]
fn under_valgrind() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let program = compile(dir.path(), "tests/abi.c", &["-O1"]);
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    valgrind.args(["--errors-for-leak-kinds=definite,indirect", "--show-leak-kinds=definite"]);
    valgrind.arg(format!("--suppressions={}", source("valgrind.supp").display())).arg(program);
    // Valgrind knows no 512-bit instructions.
    abi(dir.path(), valgrind.env("ATREST_CTR_WIDTH", "aesni"));
}

#[test]
fn under_the_address_sanitizer() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let options = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let program = compile(dir.path(), "tests/abi.c", &options);
    abi(dir.path(), &mut Command::new(program));
}

#[test]
fn the_example() {
    let dir = tempfile::tempdir().unwrap();
    install(dir.path());
    let program = compile(dir.path(), "examples/files.c", &[]);
    let store = dir.path().join("data");
    std::fs::create_dir(&store).unwrap();
    let key = dir.path().join("cmek.key");
    let printed = run(Command::new(&program).arg(&store).arg(&key));
    let (block, status) = printed.split_once('\n').unwrap();
    assert_eq!(block, "block");
    assert!(status.contains("\"unlocked\":true"), "{status}");
    let table = std::fs::read(store.join("000017.sst")).unwrap();
    assert!(!table.windows(5).any(|window| window == b"block"));
    // The key file is there already.
    let again = Command::new(program).arg(&store).arg(key).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let text = String::from_utf8(again.stderr).unwrap();
    assert!(text.starts_with("io-exists: "), "{text}");
}

/// C++ takes the header too.
#[test]
fn the_header_in_cpp() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("header.cc");
    std::fs::write(&file, "#include <atrest.h>\nint main() { return atrest1_abi() == 0; }\n")
        .unwrap();
    let mut cpp = Command::new("g++");
    cpp.args(["-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]);
    run(cpp.arg("-I").arg(source("include")).arg(file));
}
