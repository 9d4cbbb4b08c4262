//! Every rule of `docs/FORMAT.md` has a test in which it is broken. This one holds the text to
//! that: a rule without a row, a row without a rule, a test that is gone, and a **MUST** that
//! belongs to no rule all fail.

use std::collections::BTreeSet;
use std::path::Path;

const SECURITY: &str = include_str!("../../SECURITY.md");
const FORMAT: &str = include_str!("../../docs/FORMAT.md");

/// Rules, and the tests that break them: `FILE.rs::NAME`, from the repository's root.
const RULES: &[(&str, &[&str])] = &[
    (
        "K27",
        &[
            "tests/it/moves.rs::a_copy_never_writes_under_a_key_of_another",
            "tests/it/moves.rs::a_key_that_was_rotated_away_is_not_taken_again",
            "tests/it/moves.rs::a_key_that_is_due_is_not_taken_again",
            "src/keyring/body/homes.rs::a_list_of_another_length_is_refused",
        ],
    ),
    ("F1", &["tests/it/bad_input.rs::wrong_files_have_their_own_kinds"]),
    ("F2", &["tests/it/bad_input.rs::wrong_files_have_their_own_kinds"]),
    (
        "F3",
        &[
            "tests/it/bad_input.rs::wrong_files_have_their_own_kinds",
            "src/header/tests.rs::every_truncation_is_refused",
            "tests/it/suites/unwritten.rs::a_header_that_nobody_wrote_is_a_torn_file_and_no_plaintext",
        ],
    ),
    ("F4", &["src/header/tests.rs::every_bit_flip_with_a_right_checksum_is_refused"]),
    ("F5", &["src/header/tests.rs::every_bit_flip_is_refused"]),
    ("F6", &["src/header/tests.rs::each_reserved_byte_is_checked_behind_a_right_checksum"]),
    ("F7", &["src/header/tests.rs::every_bit_flip_with_a_right_checksum_is_refused"]),
    ("F8", &["src/header/tests.rs::the_chunk_byte_has_to_fit_the_suite"]),
    (
        "F9",
        &[
            "tests/it/bad_input.rs::a_header_under_an_unknown_or_another_key_is_refused",
            "tests/it/bad_input.rs::another_stores_file_is_refused",
            "tests/it/files.rs::files_whose_key_is_gone_do_not_read_the_keyring_each_time",
        ],
    ),
    ("F10", &["tests/it/bad_input.rs::a_header_under_an_unknown_or_another_key_is_refused"]),
    (
        "F11",
        &[
            "tests/it/bad_input.rs::a_file_put_in_anothers_place_is_refused",
            "tests/it/bad_input.rs::a_suite_below_the_minimum_is_refused",
        ],
    ),
    (
        "F12",
        &[
            "tests/it/verify.rs::a_file_longer_than_any_is_refused_by_every_reader",
            "tests/it/files.rs::a_file_of_the_greatest_length_is_not_exceeded",
        ],
    ),
    ("F13", &["tests/it/suites/chunks.rs::every_truncation_and_extension_is_refused"]),
    (
        "F14",
        &[
            "tests/it/suites/chunks.rs::the_end_is_that_of_one_length",
            "tests/it/suites/chunks.rs::every_flipped_byte_is_refused_where_it_is",
            "tests/it/mapped.rs::what_changes_under_a_map_is_refused",
        ],
    ),
    (
        "F15",
        &[
            "tests/it/suites/chunks.rs::a_chunk_is_written_when_it_is_full_and_the_last_one_by_finish",
            "tests/it/suites/chunks.rs::a_dropped_writer_leaves_a_file_that_is_refused",
        ],
    ),
    (
        "F16",
        &[
            "tests/it/suites/log.rs::each_cut_ends_the_log_at_the_frame_before_and_says_so",
            "tests/it/suites/log.rs::every_flipped_bit_ends_the_log_at_its_frame",
        ],
    ),
    (
        "F18",
        &[
            "tests/it/temporary.rs::its_key_ends_with_the_process",
            "tests/it/temporary.rs::its_key_ends_when_access_is_withdrawn",
            "tests/it/temporary.rs::nothing_but_the_header_s_own_key_opens_it",
        ],
    ),
    (
        "F17",
        &[
            "tests/it/suites/log.rs::frames_that_are_moved_doubled_dropped_or_from_another_log_end_it",
            "tests/it/suites/log.rs::a_power_cut_leaves_the_synced_appends",
            "tests/it/renewal/reencrypt.rs::what_cannot_be_read_whole_is_not_rewritten_shorter",
        ],
    ),
    (
        "F19",
        &[
            "tests/it/suites/unwritten.rs::a_re_encryption_makes_no_data_of_what_nobody_wrote",
            "tests/it/suites/unwritten.rs::a_backup_names_what_nobody_wrote_and_does_not_restore_it_as_data",
        ],
    ),
    (
        "K1",
        &[
            "src/keyring/format/tests.rs::a_body_with_a_broken_invariant_is_refused_under_a_right_mac",
        ],
    ),
    ("K2", &["src/keyring/format/tests.rs::slots_are_bounded_and_printable"]),
    ("K3", &["src/keyring/format/tests.rs::every_truncation_of_a_keyring_is_refused"]),
    (
        "K4",
        &["src/keyring/format/tests.rs::another_version_is_told_before_anything_else_is_looked_at"],
    ),
    (
        "K5",
        &[
            "src/keyring/format/tests.rs::parts_that_are_too_long_are_no_truncation",
            "src/keyring/format/tests.rs::every_bit_flip_of_a_keyring_is_refused",
            "src/keyring/format/tests.rs::a_generation_without_a_next_is_refused",
        ],
    ),
    (
        "K6",
        &[
            "src/keyring/format/tests.rs::another_store_key_is_refused",
            "tests/it/bad_input.rs::a_wrong_customers_key_is_refused",
        ],
    ),
    (
        "K7",
        &[
            "src/keyring/format/tests.rs::a_body_with_a_broken_invariant_is_refused_under_a_right_mac",
        ],
    ),
    ("K8", &["src/keyring/unlock/tests.rs::a_data_key_that_does_not_unwrap_is_a_corrupt_keyring"]),
    ("K9", &["tests/it/bad_input.rs::a_keyring_older_than_the_anchor_is_refused"]),
    (
        "K10",
        &[
            "tests/it/kms.rs::a_key_file_that_others_may_read_is_refused",
            "tests/it/independent/key_files.rs::a_key_file_is_refused_for_its_owner_and_mode_alike",
            "src/vfs/tests.rs::a_key_file_is_no_pipe",
        ],
    ),
    ("K11", &["tests/it/kms.rs::a_passphrase"]),
    ("K12", &["tests/it/renewal/nested.rs::a_reserved_name_is_refused_in_any_part_of_a_path"]),
    ("K13", &["tests/it/crash.rs::a_writer_whose_sync_failed_never_syncs_again"]),
    ("K14", &["tests/it/crash.rs::no_file_names_a_data_key_that_a_crash_takes_back"]),
    ("K15", &["tests/it/bad_input.rs::a_missing_keyring_is_never_made_up"]),
    ("K16", &["src/keyring/audit/tests.rs::a_changed_missing_or_foreign_archive_is_refused"]),
    (
        "K17",
        &[
            "tests/it/access/requests.rs::another_process_can_ask_for_revocation",
            "tests/it/access/requests.rs::a_request_that_cannot_be_read_counts",
            "tests/it/access/requests.rs::a_mark_outlives_the_process_and_is_removed_by_opening_to_restore",
            "tests/it/credentials.rs::an_opening_heeds_what_others_did_while_it_waited",
        ],
    ),
    (
        "K18",
        &[
            "tests/it/recover.rs::a_mirror_is_brought_up_to_date_and_guards_against_rollback",
            "tests/it/recover/lines.rs::a_mirror_of_another_line_is_not_overwritten",
        ],
    ),
    (
        "K19",
        &[
            "src/tags/tests.rs::what_is_malformed_is_refused_and_what_is_unknown_only_if_critical",
            "src/keyring/unlock/tests.rs::commits_keep_what_they_do_not_know_and_the_contexts_of_slots",
        ],
    ),
    (
        "K20",
        &[
            "src/keyring/unlock/tests.rs::a_slot_of_an_older_context_version_unlocks",
            "src/keyring/unlock/tests.rs::commits_keep_what_they_do_not_know_and_the_contexts_of_slots",
        ],
    ),
    ("K21", &["src/keyring/unlock/tests.rs::a_draft_whose_slot_leads_elsewhere_is_not_proven"]),
    (
        "K22",
        &[
            "tests/it/recover.rs::a_keyring_put_back_over_a_rotated_store_key_destroys_nothing",
            "tests/it/recover.rs::a_keyring_put_back_is_refused_at_each_rotation",
            "tests/it/recover.rs::another_image_of_the_same_generation_is_of_another_line",
            "tests/it/recover/again.rs::a_choice_of_the_present_image_is_cut_off_anywhere_and_done_again",
        ],
    ),
    (
        "K23",
        &[
            "tests/it/recover.rs::what_a_recovery_put_aside_spoils_the_proof_of_destruction",
            "tests/it/recover.rs::what_a_killed_restore_left_goes_with_the_older_images",
            "tests/it/renewal/retire/left.rs::an_image_that_was_not_removed_spoils_the_proof_until_it_is",
        ],
    ),
    (
        "K24",
        &[
            "tests/it/bad_input.rs::another_store_than_the_pinned_one_is_refused_before_its_key_service_is_asked",
            "tests/it/bad_input.rs::a_recovery_asks_nobody_about_another_store_than_the_pinned_one",
        ],
    ),
    ("K25", &["src/keyring/body/integrity.rs::what_no_version_writes_is_refused"]),
    ("K26", &["tests/it/crash.rs::a_fault_in_a_rotation_leaves_a_handle_that_serves"]),
    ("K28", &["tests/it/recover.rs::nothing_is_replaced_or_destroyed_past_a_mirror"]),
    (
        "D1",
        &[
            "tests/it/renewal/directories.rs::what_is_registered_is_where_a_link_leads",
            "tests/it/renewal/moved.rs::a_crash_while_a_directory_moves_leaves_its_files_known",
            "tests/it/renewal/moved.rs::what_is_not_mounted_is_neither_moved_nor_removed",
            "tests/it/renewal/nested.rs::no_file_gets_a_name_in_what_is_another_stores",
        ],
    ),
    (
        "D2",
        &[
            "tests/it/renewal/directories.rs::a_directory_that_is_not_mounted_is_not_taken_for_empty",
            "tests/it/renewal/directories.rs::nor_is_one_below_the_store",
        ],
    ),
    (
        "D3",
        &[
            "tests/it/renewal/links.rs::a_checkpoint_outside_keeps_its_key_when_the_store_is_re_encrypted",
            "tests/it/renewal/links.rs::a_checkpoint_that_a_retirement_met_keeps_its_key_when_the_engine_goes_on",
        ],
    ),
    (
        "D4",
        &[
            "tests/it/renewal/exchange.rs::without_an_exchange_only_a_hook_lets_a_file_be_replaced",
            "tests/it/renewal/exchange.rs::a_newer_file_outlives_a_look_that_fails_after_the_exchange",
        ],
    ),
    ("D5", &["tests/it/verify.rs::every_file_is_judged"]),
    (
        "D6",
        &[
            "tests/it/renewal/copies.rs::a_copy_leaves_the_directories_of_its_original_alone",
            "tests/it/renewal/copies.rs::a_store_that_moved_takes_its_directories_over",
        ],
    ),
    (
        "O1",
        &[
            "crates/atrest-object-store/tests/it/keyring.rs::of_two_rotations_at_once_one_happens",
            "crates/atrest-object-store/tests/it/keyring.rs::a_lost_race_leaves_no_image_with_a_replaced_key",
        ],
    ),
    (
        "O2",
        &[
            "crates/atrest-object-store/tests/it/keyring.rs::the_outcome_of_a_commit_is_found_out",
            "crates/atrest-object-store/tests/it/keyring.rs::a_commit_that_was_not_heard_is_not_done_twice",
        ],
    ),
    (
        "O3",
        &[
            "crates/atrest-object-store/tests/it/keyring.rs::a_store_that_cannot_or_does_not_keep_conditions_is_refused",
        ],
    ),
    ("B1", &["tests/it/backup/damage.rs::another_chains_files_are_refused"]),
    ("B2", &["tests/it/backup/damage.rs::missing_and_swapped_files_are_refused"]),
    (
        "B3",
        &[
            "src/backup/manifest/tests.rs::what_no_backup_has_is_refused_when_it_is_written_and_when_it_is_read",
        ],
    ),
    (
        "B4",
        &[
            "tests/it/backup/damage.rs::every_flipped_part_is_refused",
            "tests/it/backup/lacks.rs::a_chain_without_a_backup_is_not_good",
            "src/backup/stream.rs::only_whole_frames_of_the_right_lengths_pass",
        ],
    ),
    ("B5", &["tests/it/backup/resume.rs::a_cancelled_backup_is_none_and_is_continued"]),
    (
        "B6",
        &[
            "tests/it/backup/places.rs::a_restore_over_a_lost_keyring_is_refused",
            "tests/it/backup/places.rs::no_store_is_created_beside_an_unfinished_restore",
            "tests/it/backup/resume.rs::a_cancelled_restore_is_no_store_and_is_continued",
            "tests/it/backup/resume.rs::a_file_that_could_not_be_made_durable_is_written_anew",
            "tests/it/backup/resume.rs::an_audit_trail_is_restored_with_its_archives_wherever_it_is_killed",
        ],
    ),
    ("B7", &["tests/it/backup.rs::a_full_backup_restores_to_the_same_files_under_new_keys"]),
    (
        "B8",
        &[
            "tests/it/backup/places.rs::a_snapshot_leaves_alone_what_a_link_leads_to",
            "tests/it/backup/places.rs::a_restore_enters_no_link",
            "tests/it/backup/places.rs::the_folders_of_a_directory_of_backups_are_no_links",
            "tests/it/backup/places.rs::a_lock_is_not_taken_through_a_link",
        ],
    ),
    ("B9", &["tests/it/backup/damage.rs::what_tells_a_chain_is_exact"]),
    ("M1", &[MANIFESTS]),
    (
        "M2",
        &[
            MANIFESTS,
            "src/backup/manifest/tests.rs::settings_come_back_and_unknown_ones_are_passed_over_unless_critical",
        ],
    ),
    ("M3", &[MANIFESTS]),
    ("M4", &[MANIFESTS]),
    ("M5", &[MANIFESTS]),
    ("M6", &[MANIFESTS]),
    ("M7", &[MANIFESTS]),
    ("M8", &[MANIFESTS]),
    ("M9", &[MANIFESTS]),
    ("M10", &[MANIFESTS]),
];

const MANIFESTS: &str = "src/backup/manifest/tests.rs::what_no_backup_has_is_refused_when_it_is_written_and_when_it_is_read";

/// Whether this is a rule's name: a letter and a number.
fn is_rule(word: &str) -> bool {
    word.strip_prefix(|c: char| "FKDOBM".contains(c))
        .is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

/// The rules that the text states: in bold, or first in a row of a table.
fn stated(text: &str) -> Vec<&str> {
    let bold = text.split("**").skip(1).step_by(2);
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    bold.chain(rows).filter(|word| is_rule(word)).collect()
}

/// Paragraphs, items of lists and rows of tables.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        let words = line.trim_start();
        let item = words.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
        if words.is_empty() || item || words.starts_with("- ") || words.starts_with(['|', '#']) {
            blocks.push(String::new());
        }
        let block = blocks.last_mut().unwrap();
        block.push_str(line);
        block.push('\n');
    }
    blocks
}

#[test]
fn every_rule_of_the_format_has_a_test_that_breaks_it() {
    let stated = stated(FORMAT);
    let unique: BTreeSet<_> = stated.iter().copied().collect();
    assert_eq!(stated.len(), unique.len(), "a rule is stated twice: {stated:?}");
    let rows: BTreeSet<_> = RULES.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rows.len(), RULES.len(), "a rule has two rows");
    assert_eq!(unique, rows);
    for (rule, tests) in RULES {
        assert!(!tests.is_empty(), "{rule} has no test");
        tests.iter().copied().for_each(check_test);
    }
}

/// Whether there is a test `FILE.rs::NAME`.
fn check_test(test: &str) {
    let (file, name) = test.split_once("::").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = std::fs::read_to_string(root.join(file)).expect(file);
    let at = source.find(&format!("fn {name}(")).unwrap_or_else(|| panic!("{test} is gone"));
    let attributes = source[..at].rsplit("\n\n").next().unwrap();
    let is_test = attributes.contains("#[test]") || attributes.contains("#[tokio::test");
    assert!(is_test && !attributes.contains('}'), "{test} is no test");
}

/// What says **MUST** and names no rule.
fn unruled(text: &str) -> Vec<String> {
    let is_ruled = |block: &str| block.split(|c: char| !c.is_ascii_alphanumeric()).any(is_rule);
    blocks(text).into_iter().filter(|it| it.contains("**MUST") && !is_ruled(it)).collect()
}

#[test]
fn every_must_of_the_format_belongs_to_a_rule() {
    assert_eq!(unruled(FORMAT), [""; 0]);
}

/// `SECURITY.md` names tests for what it says; each is there.
#[test]
fn every_test_that_security_names_is_there() {
    let named: Vec<_> =
        SECURITY.split('`').skip(1).step_by(2).filter(|it| it.contains(".rs::")).collect();
    assert!(named.len() > 20, "{named:?}");
    named.into_iter().for_each(check_test);
}

/// What the three above look for is found.
#[test]
fn rules_and_musts_are_recognised() {
    assert_eq!(
        stated("1. **F1** A\n- **K22** b **MUST** c\n| M10 | d |\n| F | x |"),
        ["F1", "K22", "M10"]
    );
    let text =
        "a **F1** b\nc **MUST** d\n\n- e **MUST NOT** f\n| g **MUST** |\n2. **K2** h **MUST**\n";
    assert_eq!(unruled(text), ["- e **MUST NOT** f\n", "| g **MUST** |\n"]);
}
