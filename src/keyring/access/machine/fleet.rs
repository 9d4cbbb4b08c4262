//! 10,000 processes with one key service, their machines and clocks real, their service and
//! time not: how many calls it gets in each second.
//!
//! `cargo test --lib fleet -- --nocapture` prints the figures of docs/SCALE.md.

#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::patience::Pauses;
use super::super::view::View;
use super::Answer::*;
use super::*;

const NODES: usize = 10_000;
const MINUTE: usize = 60;
const HOUR: usize = 60 * MINUTE;

fn s(seconds: usize) -> Duration {
    Duration::from_secs(seconds as u64)
}

/// SplitMix64: figures that are the same in each run.
struct Random(u64);

impl Random {
    fn jitter(&mut self) -> Jitter {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 48) as Jitter
    }
}

/// What the key service says of any moment, and how long it takes.
type Service<'a> = &'a dyn Fn(usize) -> Answer;

/// A few milliseconds, or all of the time that a check has: three tries of 5 seconds.
fn takes(answer: Answer, policy: &AccessPolicy) -> Duration {
    if matches!(answer, Unclear(_)) { policy.check_deadline } else { Duration::from_millis(20) }
}

struct Fleet {
    nodes: Vec<Machine>,
    random: Random,
    /// Checks that began in each second.
    checks: Vec<u32>,
    /// How many nodes serve at the end of each second.
    serving: Vec<i32>,
}

impl Fleet {
    /// All opened in the first second, or at any moment of the first five minutes.
    fn new(at_once: bool) -> Self {
        let mut random = Random(1);
        let open = |_| {
            let within = if at_once { s(1) } else { s(300) };
            let now = between(Duration::ZERO, within, random.jitter());
            Machine::new(AccessPolicy::default(), now, random.jitter())
        };
        let nodes = (0..NODES).map(open).collect();
        Self { nodes, random, checks: Vec::new(), serving: Vec::new() }
    }

    /// As the watch of each process does it: awake when told, gives keys up, asks.
    fn run(mut self, seconds: usize, service: Service<'_>) -> Self {
        self.checks = vec![0; seconds];
        let mut changes = vec![0; seconds];
        changes[0] = NODES as i32;
        let wake = |m: &Machine| m.deadline().map_or(m.next_check(), |at| at.min(m.next_check()));
        let due = self.nodes.iter().enumerate().map(|(node, m)| Reverse((wake(m), node)));
        let mut due: BinaryHeap<_> = due.collect();
        while let Some(Reverse((mut now, node))) = due.pop() {
            let second = now.as_secs() as usize;
            if second >= seconds {
                break;
            }
            let machine = &mut self.nodes[node];
            let served = machine.state().serves();
            machine.tick(now);
            if machine.next_check() <= now {
                self.checks[second] += 1;
                let answer = service(second);
                now += takes(answer, machine.policy());
                let jitter = self.random.jitter();
                if answer == Good && !machine.state().serves() {
                    machine.restored(now, jitter);
                } else {
                    machine.answer(now, answer, jitter);
                }
            }
            let second = (now.as_secs() as usize).min(seconds - 1);
            changes[second] += i32::from(machine.state().serves()) - i32::from(served);
            due.push(Reverse((wake(machine), node)));
        }
        let mut sum = 0;
        let count = |change: &i32| {
            sum += change;
            sum
        };
        self.serving = changes.iter().map(count).collect();
        self
    }

    /// Prints and returns: on average in a second, and in the busiest one.
    fn calls(&self, what: &str, between: std::ops::Range<usize>) -> (f64, u32) {
        rate(what, &self.checks[between])
    }
}

fn rate(what: &str, calls: &[u32]) -> (f64, u32) {
    let mut sorted = calls.to_vec();
    sorted.sort_unstable();
    let most = *sorted.last().unwrap();
    let mean = calls.iter().sum::<u32>() as f64 / calls.len() as f64;
    let of = |part: usize| sorted[(sorted.len() * part / 100).min(sorted.len() - 1)];
    let (least, half, most_of) = (sorted[0], of(50), of(99));
    eprintln!("{what}: mean {mean:.1}, least {least}, half {half}, 99 % {most_of}, most {most}");
    (mean, most)
}

const SILENT: Answer = Unclear(KmsErrorKind::Unreachable);
const DENIED: Answer = Denied(KmsErrorKind::AccessDenied);

#[test]
fn processes_that_start_together_do_not_check_together() {
    let fleet = Fleet::new(true).run(2 * HOUR, &|_| Good);
    let first = fleet.calls("started at once, first 5 minutes", 0..5 * MINUTE);
    let later = fleet.calls("started at once, second hour", HOUR..2 * HOUR);
    assert!(first.1 < 2 * 34 && later.1 < 2 * 34, "{first:?} {later:?}");
    let steady = Fleet::new(false).run(2 * HOUR, &|_| Good);
    let steady = steady.calls("started at any time, second hour", HOUR..2 * HOUR);
    assert!((33.0..34.5).contains(&steady.0) && steady.1 < 2 * 34, "{steady:?}");
}

#[test]
fn no_outage_ends_in_a_herd() {
    for (what, minutes) in [("30 minutes", 30), ("90 minutes, longer than the grace", 90)] {
        let outage = HOUR..HOUR + minutes * MINUTE;
        let end = outage.end;
        let service = |second| if outage.contains(&second) { SILENT } else { Good };
        let fleet = Fleet::new(false).run(end + 2 * HOUR, &service);
        let during = fleet.calls(&format!("{what} of outage"), HOUR + 6 * MINUTE..end);
        let minute = fleet.calls("the minute after it", end..end + MINUTE);
        let minutes =
            fleet.calls("ten minutes from the next one on", end + 2 * MINUTE..end + 12 * MINUTE);
        let after = fleet.calls("the second hour after it", end + HOUR..end + 2 * HOUR);
        // A check of a service that does not answer takes 15 s, and the next is a minute later.
        assert!(during.0 < 140.0 && during.1 < 280, "{during:?}");
        assert!(minute.1 < 280, "{minute:?}");
        assert!(minutes.1 < 4 * 34 && after.1 < 2 * 34, "{minutes:?} {after:?}");
        let back = (end..).find(|at| fleet.serving[*at] == NODES as i32).unwrap() - end;
        eprintln!("all serve {back} s after the outage's end");
        assert!(back <= 66 + 15, "{back}");
    }
}

#[test]
fn a_revocation_and_its_end_are_no_herd_and_are_within_the_bound() {
    let denied = HOUR..2 * HOUR;
    let service = |second| if denied.contains(&second) { DENIED } else { Good };
    let fleet = Fleet::new(false).run(4 * HOUR, &service);
    let six = fleet.calls("revoked, first six minutes", HOUR..HOUR + 6 * MINUTE);
    let lost = fleet.calls("revoked, after them", HOUR + 7 * MINUTE..2 * HOUR);
    let minute = fleet.calls("given again, first minute", 2 * HOUR..2 * HOUR + MINUTE);
    let minutes = fleet.calls("the next ten", 2 * HOUR + MINUTE..2 * HOUR + 11 * MINUTE);
    assert!(six.1 < 340 && lost.1 < 280 && minute.1 < 280, "{six:?} {lost:?} {minute:?}");
    assert!(minutes.1 < 4 * 34, "{minutes:?}");
    let last = (HOUR..).find(|at| fleet.serving[*at] == 0).unwrap() - HOUR;
    eprintln!("none serves {last} s after the revocation");
    assert!(s(last) <= AccessPolicy::default().worst_case(), "{last}");
    // Nobody goes on because of others' jitter, nor before anybody denied.
    assert!(fleet.serving[HOUR - 1] == NODES as i32 && fleet.serving[2 * HOUR - 1] == 0);
}

#[test]
fn one_keyring_is_not_read_by_all_at_once() {
    let (policy, mut random) = (AccessPolicy::default(), Random(1));
    let mut reads = vec![0; 2 * HOUR];
    for _ in 0..NODES {
        let mut view = View::new(&policy, Duration::ZERO, random.jitter());
        while view.next < s(reads.len()) {
            reads[view.next.as_secs() as usize] += 1;
            assert!(view.next < view.deadline().unwrap());
            // The storage is away for ten minutes, too.
            if (HOUR..HOUR + 10 * MINUTE).contains(&(view.next.as_secs() as usize)) {
                view.failed(view.next, String::new(), random.jitter());
            } else {
                let now = view.next;
                view.looked(now, random.jitter());
                view.good(now);
            }
        }
    }
    let first = rate("keyring read, first hour", &reads[..HOUR]);
    let away = rate("storage away", &reads[HOUR..HOUR + 11 * MINUTE]);
    let after = rate("after it", &reads[HOUR + 12 * MINUTE..]);
    assert!(first.1 < 2 * 34 && away.1 < 280 && after.1 < 2 * 34, "{first:?} {away:?} {after:?}");
}

#[test]
fn openings_that_wait_for_one_service_do_not_ask_together() {
    let (mut random, outage) = (Random(1), 10 * MINUTE);
    let mut calls = vec![0; outage + MINUTE];
    let mut last = 0;
    for _ in 0..NODES {
        let (mut pauses, mut now) = (Pauses::default(), Duration::ZERO);
        while now < s(outage) {
            calls[now.as_secs() as usize] += 1;
            // A service that refuses connections, the worst case.
            now += pauses.next(random.jitter());
        }
        calls[now.as_secs() as usize] += 1;
        last = last.max(now.as_secs() as usize - outage);
    }
    let during = rate("waiting openings", &calls[2 * MINUTE..outage]);
    let after = rate("after the outage", &calls[outage..outage + last]);
    eprintln!("the last one opens {last} s after the outage");
    assert!(during.1 < 700 && after.1 < 1000 && last <= 30, "{during:?} {after:?} {last}");
}

/// The first second is theirs who start them all; what follows is not worse than that.
#[test]
fn openings_that_a_service_throttles_are_all_served() {
    const SERVED: u32 = 500;
    let (mut random, mut calls) = (Random(1), vec![0; HOUR]);
    let start = |node| Reverse((between(Duration::ZERO, s(1), random.jitter()), node));
    let mut due: BinaryHeap<_> = (0..NODES).map(start).collect();
    let mut pauses: Vec<_> = (0..NODES).map(|_| Pauses::default()).collect();
    let mut last = 0;
    while let Some(Reverse((now, node))) = due.pop() {
        last = now.as_secs() as usize;
        calls[last] += 1;
        if calls[last] > SERVED {
            due.push(Reverse((now + pauses[node].next(random.jitter()), node)));
        }
    }
    let most = rate("10,000 start at once, 500 a second are served", &calls[..=last]).1;
    eprintln!("the last one opens {last} s after the start");
    // In the first second each asks two or three times.
    assert!(most < 4 * NODES as u32 && last < MINUTE, "{most} {last}");
}
