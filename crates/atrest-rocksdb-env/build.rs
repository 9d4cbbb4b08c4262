//! Compiles the file system against the headers of the RocksDB that is linked.

fn main() {
    let of = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    // Where `librocksdb-sys` takes them from.
    let rocksdb = std::env::var("ROCKSDB_INCLUDE_DIR")
        .unwrap_or_else(|_| of("DEP_ROCKSDB_CARGO_MANIFEST_DIR") + "/rocksdb/include");
    println!("cargo::rerun-if-env-changed=ROCKSDB_INCLUDE_DIR");
    for path in ["shim", "src/env.cc"] {
        println!("cargo::rerun-if-changed={path}");
    }
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .define("NDEBUG", None)
        .include("shim")
        .include(of("DEP_ATREST_C_INCLUDE"))
        .include(rocksdb)
        .warnings(false)
        .files(["src/env.cc", "shim/file_system.cc"])
        .compile("atrest_rocksdb_env");
}
