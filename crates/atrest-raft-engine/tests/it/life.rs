//! What every engine has to show.

use atrest_testkit::{engine_conformance, engine_survives_kills};

use crate::support::Raft;

#[test]
fn lives_with_rotation_revocation_and_purging() {
    engine_conformance::<Raft>();
}

#[test]
fn kill_9_loses_no_acknowledged_write() {
    engine_survives_kills::<Raft>("life::kill_9_loses_no_acknowledged_write");
}
