//! Times of grace by clocks that are wrong.

use std::time::Duration;

use atrest::Clock;
use atrest::keyring::RetireOutcome::{Destroyed, Retiring};

use super::{GRACE, open, outcome, quiet, retire};
use crate::support::{ManualClock, TestStore, store_of};

const YEARS: Duration = Duration::from_secs(80 * 365 * 86_400);

#[test]
fn a_clock_that_was_ahead_once_delays_no_destruction_for_longer_than_the_grace() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    clock.set_forward(YEARS);
    assert!(matches!(outcome(&retire(&fs), old), Retiring { .. }));
    clock.set_back(YEARS);
    drop(fs);
    let fs = open(&store, &clock);
    let until_ns = clock.now_ns() + u64::try_from(GRACE.as_nanos()).unwrap();
    assert_eq!(outcome(&retire(&fs), old), Retiring { until_ns });
    drop(fs);
    let fs = open(&store, &clock);
    clock.advance(6 * ManualClock::DAY);
    assert_eq!(outcome(&retire(&fs), old), Retiring { until_ns });
    clock.advance(ManualClock::DAY);
    assert_eq!(outcome(&retire(&fs), old), Destroyed);
}

#[test]
fn a_shorter_grace_ends_earlier_and_begins_with_its_call() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    retire(&fs);
    let hour = Duration::from_secs(3600);
    let retire_soon = || outcome(&store_of(&fs).renewal().retire(None, hour, &quiet).unwrap(), old);
    let until_ns = clock.now_ns() + u64::try_from(hour.as_nanos()).unwrap();
    assert_eq!(retire_soon(), Retiring { until_ns });
    clock.advance(hour - Duration::from_nanos(1));
    assert_eq!(retire_soon(), Retiring { until_ns });
    clock.advance(Duration::from_nanos(1));
    assert_eq!(retire_soon(), Destroyed);
}

#[test]
fn a_clock_that_is_set_forward_shortens_no_grace() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let old = fs.keyring().keys().active_id().unwrap();
    fs.keyring().keys().rotate().unwrap();
    retire(&fs);
    clock.set_forward(YEARS);
    let until_ns = clock.now_ns() + u64::try_from(GRACE.as_nanos()).unwrap();
    assert_eq!(outcome(&retire(&fs), old), Retiring { until_ns });
    clock.advance(6 * ManualClock::DAY);
    assert_eq!(outcome(&retire(&fs), old), Retiring { until_ns });
    clock.set_back(YEARS);
    clock.advance(ManualClock::DAY);
    assert_eq!(outcome(&retire(&fs), old), Destroyed);
}
