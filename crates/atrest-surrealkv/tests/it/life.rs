//! What every engine has to show.

use atrest_testkit::{engine_conformance, engine_survives_kills};

use crate::support::Surreal;

#[test]
fn lives_with_rotation_revocation_and_compaction() {
    engine_conformance::<Surreal>();
}

#[test]
fn kill_9_loses_no_acknowledged_write() {
    engine_survives_kills::<Surreal>("life::kill_9_loses_no_acknowledged_write");
}
