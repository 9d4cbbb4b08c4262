//! `cargo run -p atrest-sim -- --minutes 10`: histories from ever new seeds.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use atrest_sim::{Figures, describe, run, shrink};
use clap::Parser;

/// Lives through whole histories of a store on a disk that fails, opens what every crash may
/// leave, and compares all of it with what was acknowledged. A history follows from its seed.
///
/// A problem is printed with its seed, its fewest steps and the command that shows it again;
/// the exit code is 1 then.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        cargo run --profile sim -p atrest-sim -- --minutes 10     ten minutes of new seeds\n  \
        cargo run --profile sim -p atrest-sim -- --minutes 0      without end, until Ctrl-C\n  \
        cargo run -p atrest-sim -- --seed 7                   one history\n  \
        cargo run -p atrest-sim -- --seed 7 --steps 0,3,4     these of its steps alone\n  \
        cargo run -p atrest-sim -- --seed 7 --show            its steps, without living them"
)]
struct Arguments {
    /// How long, in minutes; 0 for without end. Without it one history, or `--histories`.
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// How many histories, at most.
    #[arg(long, value_name = "N")]
    histories: Option<u64>,
    /// The first seed. Default: the time of day, or 1 where a number is given.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only these steps of the history, by number from 0.
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "seed")]
    steps: Option<Vec<usize>>,
    /// How many disks after crashes are opened after each step, at most, picked at random. Default: all.
    /// Fewer makes many more histories in the same time.
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    looks: usize,
    /// Prints the steps of the history and does nothing.
    #[arg(long, requires = "seed")]
    show: bool,
    /// One JSON document with the figures, instead of words.
    #[arg(long)]
    json: bool,
    /// Goes on after a problem.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What panics is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let today = clock.map_or(1, |time| time.as_millis() as u64);
    let first = arguments.seed.unwrap_or(if arguments.minutes.is_some() { today } else { 1 });
    if arguments.show {
        for (number, line) in describe(first).iter().enumerate() {
            match number.checked_sub(1) {
                None => println!("{line}"),
                Some(number) => println!("{number:3} {line}"),
            }
        }
        return ExitCode::SUCCESS;
    }
    // One history before, for what a process does once: so all others are alike.
    drop(run(1, Some(&[]), 0));
    let minutes = arguments.minutes.filter(|minutes| *minutes > 0.0);
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let endless = arguments.minutes.is_some();
    let most = arguments.histories.unwrap_or(if endless { u64::MAX } else { 1 });
    let (begun, mut told, mut all) = (Instant::now(), Instant::now(), Figures::default());
    let mut problems = 0;
    let mut seed = first;
    let mut lived = 0;
    while lived < most && until.is_none_or(|until| Instant::now() < until) {
        match run(seed, arguments.steps.as_deref(), arguments.looks) {
            Ok(figures) => all.add(&figures),
            Err(problem) => {
                problems += 1;
                report(&arguments, seed, &problem);
                if !arguments.keep_going {
                    break;
                }
            }
        }
        seed = seed.wrapping_add(1);
        lived += 1;
        if told.elapsed() > Duration::from_secs(1) && std::io::stderr().is_terminal() {
            told = Instant::now();
            eprint!("\r\x1b[K{} histories, {} images, seed {seed}", all.histories, all.images);
        }
    }
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let said = if arguments.json {
        let figures = serde_json::json!({
            "first_seed": first, "next_seed": seed, "seconds": seconds, "problems": problems,
            "figures": all,
        });
        writeln!(std::io::stdout(), "{figures}")
    } else {
        writeln!(
            std::io::stdout(),
            "{} histories of {} steps from seed {first}: {} disks after crashes, {} crashes gone \
             on from, {} processes killed, {} faults, {} steps failed, {} requests to buckets; {problems} problems in \
             {seconds:.0} s",
            all.histories,
            all.steps,
            all.images,
            all.crashes,
            all.kills,
            all.faults,
            all.errors,
            all.requests
        )
    };
    if said.is_err() || problems > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(arguments: &Arguments, seed: u64, problem: &str) {
    let looks = arguments.looks;
    eprintln!("seed {seed}: {problem}");
    let fewest = arguments.steps.clone().unwrap_or_else(|| shrink(seed, looks));
    let list: Vec<_> = fewest.iter().map(usize::to_string).collect();
    if let Err(problem) = run(seed, Some(&fewest), looks) {
        eprintln!("with fewer steps: {problem}");
    }
    let all = describe(seed);
    for number in fewest {
        eprintln!("  {number:3} {}", all[number + 1]);
    }
    let looks = if looks == usize::MAX { String::new() } else { format!(" --looks {looks}") };
    eprintln!("cargo run -p atrest-sim -- --seed {seed} --steps {}{looks}", list.join(","));
}
