//! TPC-H's data and some of its queries in DataFusion: plain, over encrypted objects and with
//! Parquet's own encryption, in one run and in turns:
//! `cargo run --release --example tpch -- --help`
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, RecordBatchReader};
use atrest::keyring::MemoryStorage;
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{Integrity, Keyring, Options};
use atrest_datafusion::ParquetKeys;
use atrest_object_store::v0_13::EncryptedStore;
use clap::Parser;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use rustix::time::{ClockId, clock_gettime};
use tpchgen::generators::{CustomerGenerator, LineItemGenerator, OrderGenerator, PartGenerator};
use tpchgen_arrow::{CustomerArrow, LineItemArrow, OrderArrow, PartArrow};

#[derive(Parser)]
#[command(about = "Measures encrypted Parquet tables in DataFusion against plain ones")]
struct Args {
    /// Gigabytes of Parquet, of each of the four
    #[arg(long, default_value_t = 1.0)]
    gb: f64,
    /// Times that each query is measured; one more comes before, and compares the answers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of a query
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Directory in which the files are, for as long as this runs [default: the system's for
    /// temporary files]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Gigabytes of Parquet that one of TPC-H's scale factors makes, as DataFusion writes it by default.
const GB_PER_SCALE: f64 = 0.21;
/// Scale factor of one file.
const FILE_SCALE: f64 = 0.25;
const NAMES: [&str; 4] =
    ["plain", "confidential objects", "authenticated objects", "Parquet's own"];
const TABLES: [&str; 4] = ["customer", "part", "orders", "lineitem"];

/// TPC-H's, and one that reads every column.
const QUERIES: [(&str, &str); 8] = [
    (
        "Q1",
        "SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), \
         sum(l_extendedprice * (1 - l_discount)), \
         sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), \
         avg(l_extendedprice), avg(l_discount), count(*) FROM lineitem \
         WHERE l_shipdate <= date '1998-09-02' GROUP BY l_returnflag, l_linestatus \
         ORDER BY l_returnflag, l_linestatus",
    ),
    (
        "Q3",
        "SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, \
         o_shippriority FROM customer, orders, lineitem WHERE c_mktsegment = 'BUILDING' \
         AND c_custkey = o_custkey AND l_orderkey = o_orderkey \
         AND o_orderdate < date '1995-03-15' AND l_shipdate > date '1995-03-15' \
         GROUP BY l_orderkey, o_orderdate, o_shippriority \
         ORDER BY revenue DESC, o_orderdate, l_orderkey LIMIT 10",
    ),
    (
        "Q4",
        "SELECT o_orderpriority, count(*) FROM orders WHERE o_orderdate >= date '1993-07-01' \
         AND o_orderdate < date '1993-10-01' AND EXISTS (SELECT * FROM lineitem \
         WHERE l_orderkey = o_orderkey AND l_commitdate < l_receiptdate) \
         GROUP BY o_orderpriority ORDER BY o_orderpriority",
    ),
    (
        "Q6",
        "SELECT sum(l_extendedprice * l_discount) FROM lineitem \
         WHERE l_shipdate >= date '1994-01-01' AND l_shipdate < date '1995-01-01' \
         AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24",
    ),
    (
        "Q12",
        "SELECT l_shipmode, sum(CASE WHEN o_orderpriority = '1-URGENT' \
         OR o_orderpriority = '2-HIGH' THEN 1 ELSE 0 END), count(*) FROM orders, lineitem \
         WHERE o_orderkey = l_orderkey AND l_shipmode IN ('MAIL', 'SHIP') \
         AND l_commitdate < l_receiptdate AND l_shipdate < l_commitdate \
         AND l_receiptdate >= date '1994-01-01' AND l_receiptdate < date '1995-01-01' \
         GROUP BY l_shipmode ORDER BY l_shipmode",
    ),
    (
        "Q14",
        "SELECT 100.00 * sum(CASE WHEN p_type LIKE 'PROMO%' \
         THEN l_extendedprice * (1 - l_discount) ELSE 0 END) \
         / sum(l_extendedprice * (1 - l_discount)) FROM lineitem, part \
         WHERE l_partkey = p_partkey AND l_shipdate >= date '1995-09-01' \
         AND l_shipdate < date '1995-10-01'",
    ),
    (
        "Q18",
        "SELECT c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice, sum(l_quantity) \
         FROM customer, orders, lineitem WHERE o_orderkey IN (SELECT l_orderkey FROM lineitem \
         GROUP BY l_orderkey HAVING sum(l_quantity) > 300) AND c_custkey = o_custkey \
         AND o_orderkey = l_orderkey \
         GROUP BY c_name, c_custkey, o_orderkey, o_orderdate, o_totalprice \
         ORDER BY o_totalprice DESC, o_orderdate, o_orderkey LIMIT 100",
    ),
    (
        "all columns",
        "SELECT max(l_orderkey), max(l_partkey), max(l_suppkey), max(l_linenumber), \
         max(l_quantity + l_extendedprice), max(l_discount + l_tax), \
         max(l_returnflag), max(l_linestatus), max(l_shipdate), max(l_commitdate), \
         max(l_receiptdate), max(l_shipinstruct), max(l_shipmode), max(l_comment) \
         FROM lineitem",
    ),
];

/// What something took.
#[derive(Clone, Copy, Default)]
struct Took {
    clock: Duration,
    processor: Duration,
}

/// Processor time of all threads of this process.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

struct Contestant {
    session: SessionContext,
    /// What each table says of its files.
    options: &'static str,
    bytes: PathBuf,
}

impl Contestant {
    async fn run(&self, sql: &str) -> Result<(Vec<RecordBatch>, Took)> {
        let (clock, before) = (Instant::now(), processor());
        let answer = self.session.sql(sql).await?.collect().await?;
        Ok((answer, Took { clock: clock.elapsed(), processor: processor() - before }))
    }
}

fn other<E: std::error::Error + Send + Sync + 'static>(error: E) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn contestants(args: &Args, dir: &Path) -> Result<Vec<Contestant>> {
    let key = dir.join("cmek.key");
    generate_key_file(&key).map_err(other)?;
    let kms = Arc::new(KeyFile::new(&key).map_err(other)?);
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default()).map_err(other)?;
    let keys = Arc::new(ParquetKeys::new(&keyring, "tpch").map_err(other)?);
    let mut all = Vec::new();
    for name in NAMES {
        let bytes = dir.join(name);
        std::fs::create_dir(&bytes)?;
        let plain = Arc::new(LocalFileSystem::new_with_prefix(&bytes)?);
        let encrypted = EncryptedStore::new(plain.clone(), keyring.clone());
        let store: Arc<dyn ObjectStore> = match name {
            "confidential objects" => Arc::new(encrypted.with_integrity(Integrity::Confidential)),
            "authenticated objects" => Arc::new(encrypted),
            _ => plain,
        };
        // It skips rows that cannot change one maximum, although another may need them.
        let skips = "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown";
        let config =
            SessionConfig::new().with_target_partitions(args.threads).set_bool(skips, false);
        let session = SessionContext::new_with_config(config);
        session.register_object_store(ObjectStoreUrl::parse("s3://tables")?.as_ref(), store);
        session.runtime_env().register_parquet_encryption_factory("atrest", keys.clone());
        let by_parquet = name == "Parquet's own";
        let options = if by_parquet { "OPTIONS ('format.crypto.factory_id' 'atrest')" } else { "" };
        all.push(Contestant { session, options, bytes });
    }
    Ok(all)
}

/// One file's rows of a table.
fn rows(table: &str, scale: f64, file: i32, files: i32) -> Result<Vec<RecordBatch>> {
    fn all(reader: impl RecordBatchReader) -> Result<Vec<RecordBatch>> {
        reader.map(|batch| Ok(batch?)).collect()
    }
    match table {
        "customer" => all(CustomerArrow::new(CustomerGenerator::new(scale, file, files))),
        "part" => all(PartArrow::new(PartGenerator::new(scale, file, files))),
        "orders" => all(OrderArrow::new(OrderGenerator::new(scale, file, files))),
        _ => all(LineItemArrow::new(LineItemGenerator::new(scale, file, files))),
    }
}

/// The middle one of plain by another, by the clock and by processor time.
fn ratios(took: &[[Took; 4]], other: usize) -> (f64, f64) {
    let median = |of: fn(&Took) -> Duration| {
        let ratio = |took: &[Took; 4]| of(&took[0]).as_secs_f64() / of(&took[other]).as_secs_f64();
        let mut all: Vec<f64> = took.iter().map(ratio).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2] + all[(all.len() - 1) / 2]) / 2.0
    };
    (median(|took| took.clock), median(|took| took.processor))
}

fn print(name: &str, took: &[[Took; 4]]) {
    let mut seconds: Vec<f64> = took.iter().map(|took| took[0].clock.as_secs_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    print!("| {name} | {:.2} s |", seconds[seconds.len() / 2]);
    for other in 1..NAMES.len() {
        let (clock, processor) = ratios(took, other);
        print!(" {clock:.2} ({processor:.2}) |");
    }
    println!();
}

/// Of several queries together.
fn sum(took: &[[Took; 4]]) -> [Took; 4] {
    let mut sum = [Took::default(); 4];
    for (at, sum) in sum.iter_mut().enumerate() {
        sum.clock = took.iter().map(|took| took[at].clock).sum();
        sum.processor = took.iter().map(|took| took[at].processor).sum();
    }
    sum
}

/// Who is when on turn: another is the first each time.
fn turns(first: usize) -> impl Iterator<Item = usize> {
    (0..NAMES.len()).map(move |at| (at + first) % NAMES.len())
}

/// Writes all tables in files, in turns; answers what each file of the largest took.
async fn write(all: &[Contestant], gb: f64, began: Instant) -> Result<Vec<[Took; 4]>> {
    let scale = gb / GB_PER_SCALE;
    let files = (scale / FILE_SCALE).ceil() as i32;
    let mut written = Vec::new();
    for file in 1..=files {
        eprintln!("{:5.0} s: writes files {file} of {files}", began.elapsed().as_secs_f64());
        for table in TABLES {
            let rows = rows(table, scale, file, files)?;
            let mut took = [Took::default(); 4];
            for at in turns(file as usize) {
                let source = MemTable::try_new(rows[0].schema(), vec![rows.clone()])?;
                let one = &all[at];
                one.session.register_table("source", Arc::new(source))?;
                let options = one.options;
                let sql = format!(
                    "COPY source TO 's3://tables/{table}/{file}.parquet' STORED AS PARQUET {options}"
                );
                took[at] = one.run(&sql).await?.1;
                one.session.deregister_table("source")?;
            }
            if table == "lineitem" {
                written.push(took);
            }
        }
    }
    for one in all {
        for table in TABLES {
            let options = one.options;
            let sql = format!(
                "CREATE EXTERNAL TABLE {table} STORED AS PARQUET \
                 LOCATION 's3://tables/{table}/' {options}"
            );
            one.run(&sql).await?;
        }
    }
    Ok(written)
}

/// Runs all queries in turns; answers what each took in each round.
async fn ask(
    all: &[Contestant],
    rounds: usize,
    began: Instant,
) -> Result<[Vec<[Took; 4]>; QUERIES.len()]> {
    let mut took = [const { Vec::new() }; QUERIES.len()];
    for round in 0..=rounds {
        for (query, (name, sql)) in QUERIES.iter().enumerate() {
            eprintln!("{:5.0} s: round {round} of {rounds}, {name}", began.elapsed().as_secs_f64());
            let mut this = [Took::default(); 4];
            let mut answers: [String; 4] = Default::default();
            for at in turns(round + query) {
                let (answer, took) = all[at].run(sql).await?;
                this[at] = took;
                answers[at] = pretty_format_batches(&answer)?.to_string();
            }
            for (answer, name) in answers.iter().zip(NAMES) {
                assert_eq!(*answer, answers[0], "{name}: another answer");
            }
            // The first brings the files into memory.
            if round > 0 {
                took[query].push(this);
            }
        }
    }
    Ok(took)
}

fn bytes_of(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { bytes_of(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}

#[tokio::main]
async fn main() -> Result<()> {
    let (args, began) = (Args::parse(), Instant::now());
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let all = contestants(&args, dir.path())?;
    let written = write(&all, args.gb, began).await?;
    let took = ask(&all, args.rounds.into(), began).await?;

    for (one, name) in all.iter().zip(NAMES) {
        println!("{name}: {:.3} GB", bytes_of(&one.bytes)? as f64 / 1e9);
    }
    println!("\n| | {}, clock | {} |", NAMES[0], NAMES[1..].join(" | "));
    println!("|---|---|---|---|---|");
    print("writing lineitem, a file", &written);
    for ((name, _), took) in QUERIES.iter().zip(&took) {
        print(name, took);
    }
    let rounds: Vec<_> = (0..usize::from(args.rounds))
        .map(|round| sum(&took.iter().map(|took| took[round]).collect::<Vec<_>>()))
        .collect();
    print("all queries", &rounds);
    println!(
        "\nPlain by encrypted, by the clock (by processor time): medians of {} rounds.",
        args.rounds
    );
    Ok(())
}
