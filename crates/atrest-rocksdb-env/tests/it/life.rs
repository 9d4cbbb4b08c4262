//! What every engine has to show.

use atrest_testkit::{engine_conformance, engine_survives_kills};

use crate::support::Rocks;

#[test]
fn lives_with_rotation_revocation_and_compaction() {
    engine_conformance::<Rocks>();
}

#[test]
fn kill_9_loses_no_acknowledged_write() {
    engine_survives_kills::<Rocks>("life::kill_9_loses_no_acknowledged_write");
}
