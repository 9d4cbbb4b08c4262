//! Recoveries that end too early.

use super::*;

/// Kills a recovery everywhere, looks what a mere opening finds, recovers again.
fn cut_off(mem: &MemFs, kms: &Arc<ScriptedKms>, place: ImagePlace, lost: &[Vec<u8>]) {
    let images = mem_storage(mem).images(&keys(kms), &manual()).unwrap();
    let chosen = images.iter().find(|image| image.place == place).unwrap();
    let old_keys = chosen.data_keys.clone().unwrap();
    let count = {
        let fork = mem.fork();
        recover(&fork, mem_storage(&fork), place, kms).unwrap();
        fork.log().len()
    };
    for at in 0..count {
        let stopped = mem.fork();
        stopped.stop_at(at);
        drop(recover(&stopped, mem_storage(&stopped), place, kms));
        for (crash, left) in stopped.crashes() {
            // Whoever just opens it goes on under no key of the chosen image.
            if let Ok(fs) = mem_open(&left.fork(), kms) {
                let active = fs.keyring().keys().active_id().unwrap();
                assert!(!old_keys.contains(&active), "{at} {crash:?}");
                let status = fs.keyring().status();
                assert!(status.history.iter().any(|e| e.what == AuditKind::Recovered));
            }
            let fs = match recover(&left, mem_storage(&left), place, kms) {
                Ok((fs, _)) => fs,
                // It was done already, and the commit after it was at its older image.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::KeyringExists | ErrorKind::KeyringMissing
                    ) =>
                {
                    mem_open(&left, kms).unwrap_or_else(|e| panic!("{at} {crash:?}: {e:?}"))
                }
                Err(error) => panic!("{at} {crash:?}: {error:?}"),
            };
            check_file(&fs, "first");
            write_file(&fs, "new").unwrap();
            let files = left.files();
            let there = |image: &Vec<u8>| files.values().any(|file| file == image);
            assert!(lost.iter().all(there), "{at} {crash:?}");
        }
    }
}

#[test]
fn a_recovery_that_is_cut_off_anywhere_is_done_again() {
    let (mem, kms) = three();
    damage(&mem);
    cut_off(&mem, &kms, ImagePlace::Kept(2), &[mem.files()[KEYRING_FILE].clone()]);
}
