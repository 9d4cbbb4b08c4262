//! `cargo run --release -p atrest-bench -- report`: one table of ratios, JSON, plots; `-- soak`:
//! engines under load while everything around them fails.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use atrest::internals::Width;
use atrest_bench::measure::Effort;
use atrest_bench::scale::Scale;
use atrest_bench::soak::{Soak, SoakEngine};
use atrest_bench::{Row, ctr, engine, file, gcm, plot, raft, search, surreal};
use clap::{Parser, Subcommand};

/// Measures atrest against plain files, its peers and the processor's limit.
#[derive(Parser)]
#[command(after_help = "Examples:\n  \
        cargo run --release -p atrest-bench -- report --json report.json --plots docs/bench\n  \
        cargo run --release -p atrest-bench -- soak --minutes 120")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything in one run: medians of interleaved pairs.
    Report {
        /// Fewer and shorter measurements, for a first look.
        #[arg(long)]
        quick: bool,
        /// Also write the rows as JSON: a list of {name, unit, atrest, peer, ratio}.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Also draw the plots, into this directory. Those of the repository are in docs/bench.
        #[arg(long, value_name = "DIR")]
        plots: Option<PathBuf>,
        /// Measure only one part: ctr, gcm, file, engine, raft-engine,
        /// surrealkv or tantivy.
        #[arg(long, value_name = "PREFIX", default_value = "")]
        only: String,
    },
    /// Run engines under load with rotations, kills, outages and revocations of a real OpenBao,
    /// and full disks; hold every read to a model. As root, who may mount the disk to be filled.
    ///
    /// The exit code is 1 if a record was lost or an engine did not go on.
    Soak(Soak),
    /// Measure what large stores cost: a million files, 262,144 data keys, 65,536 keyspaces.
    Scale(Scale),
    /// The engine of a soak.
    #[command(hide = true)]
    SoakEngine(SoakEngine),
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    match Arguments::parse().command {
        Command::Report { quick, json, plots, only } => {
            report(quick, json, plots, &only).map_err(|error| error.to_string())?;
        }
        Command::Soak(soak) if !soak.run()? => return Ok(ExitCode::FAILURE),
        Command::Soak(_) => {}
        Command::Scale(scale) => scale.run()?,
        Command::SoakEngine(engine) => engine.run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn report(
    quick: bool,
    json: Option<PathBuf>,
    plots: Option<PathBuf>,
    only: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    if cfg!(debug_assertions) {
        return Err("a debug build measures nothing: run it with --release".into());
    }
    let effort = if quick { Effort::QUICK } else { Effort::FULL };
    let machine = machine();
    eprintln!("{machine}");
    let terminal = std::io::stderr().is_terminal();
    let progress = |name: &str| {
        if terminal {
            eprint!("\r\x1b[K{name}");
        }
    };
    let mut rows = Vec::new();
    if "ctr".starts_with(only) {
        rows.extend(ctr::rows(effort, progress));
    }
    if "gcm".starts_with(only) {
        rows.extend(gcm::rows(effort, progress));
    }
    if "file".starts_with(only) {
        rows.extend(file::rows(effort, progress));
    }
    if "engine".starts_with(only) {
        rows.extend(engine::rows(effort, progress));
    }
    if "raft-engine".starts_with(only) {
        rows.extend(raft::rows(effort, progress));
    }
    if "surrealkv".starts_with(only) {
        rows.extend(surreal::rows(effort, progress));
    }
    if "tantivy".starts_with(only) {
        rows.extend(search::rows(effort, progress));
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    print(&rows);
    if let Some(path) = json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    plots.map_or(Ok(()), |dir| draw(&rows, &machine, &dir))
}

/// The plots of what was measured.
fn draw(rows: &[Row], machine: &str, dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::create_dir_all(dir)?;
    let has = |group: &str| rows.iter().any(|row| row.name.starts_with(group));
    let by_size: [(&str, &[&str], &str, &str); 3] = [
        ("ctr", &ctr::PEERS, "AES-256-CTR", "ctr.svg"),
        ("gcm-seal", &gcm::PEERS, "AES-256-GCM, encryption", "gcm-seal.svg"),
        ("gcm-open", &gcm::PEERS, "AES-256-GCM, decryption", "gcm-open.svg"),
    ];
    for (group, peers, what, file) in by_size {
        if has(&format!("{group}/")) {
            let title = format!("{what}, one core, {machine}");
            plot::by_size(rows, (group, peers), &title, &dir.join(file))?;
        }
    }
    if has("file/") {
        plot::files(rows, machine, &dir.join("file.svg"))?;
    }
    Ok(())
}

/// The processor's name, and the widths of the kernels it can run.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(": "))
            .map_or("unknown", |(_, value)| value)
    };
    let widths: Vec<_> = Width::available().map(Width::name).collect();
    format!(
        "{} (family {} model {}), widths {}",
        field("model name"),
        field("cpu family"),
        field("model\t"),
        widths.join(" ")
    )
}

fn print(rows: &[Row]) {
    println!("{:<28} {:>10} {:>10} {:<10} {:>7}", "name", "atrest", "peer", "unit", "ratio");
    for row in rows {
        println!(
            "{:<28} {:>10.3} {:>10.3} {:<10} {:>7.3}",
            row.name, row.atrest, row.peer, row.unit, row.ratio
        );
    }
}
