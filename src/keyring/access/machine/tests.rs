#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::keyring::access::policy::Grace;
use crate::keyring::access::view::View;
use crate::kms::LapsedCredential;
use AccessState::*;
use Answer::*;
use KmsErrorKind::{AccessDenied, KeyDisabled, NotFound, PendingDeletion, Protocol};

const DENIED: Answer = Denied(AccessDenied);
const SILENT: Answer = Unclear(KmsErrorKind::Unreachable);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn machine() -> Machine {
    Machine::new(AccessPolicy::default(), s(1000), u16::MAX / 2)
}

/// Gives answers at their times and returns the states after each.
fn states(machine: &mut Machine, answers: &[(u64, Answer)]) -> Vec<AccessState> {
    answers
        .iter()
        .map(|&(at, answer)| {
            machine.tick(s(at));
            machine.answer(s(at), answer, 0);
            machine.state()
        })
        .collect()
}

#[test]
fn good_checks_stay_active_and_come_every_five_minutes_give_or_take_a_tenth() {
    let mut m = machine();
    assert_eq!(m.answer(s(1300), Good, 0), None);
    assert_eq!(m.next_check(), s(1300 + 270));
    assert_eq!(m.answer(s(1570), Good, u16::MAX), None);
    assert_eq!(m.next_check(), s(1570 + 330));
    assert_eq!((m.state(), m.last_good()), (Active, s(1570)));
}

#[test]
fn three_denials_over_thirty_seconds_lose_access() {
    let mut m = machine();
    assert_eq!(states(&mut m, &[(1300, DENIED)]), [Suspect]);
    let second = m.next_check();
    assert!(second >= s(1315) && second < s(1316));
    assert_eq!(m.answer(second, DENIED, 0), None);
    let third = m.next_check();
    assert!(third >= s(1330) && third < s(1331));
    assert_eq!(m.answer(third, DENIED, 0), Some(Change { from: Suspect, to: Revoked }));
}

#[test]
fn denials_in_a_burst_do_not_count_as_confirmed() {
    let mut m = machine();
    let burst = [(1300, DENIED), (1301, DENIED), (1302, DENIED), (1303, DENIED)];
    assert_eq!(states(&mut m, &burst), [Suspect; 4]);
    assert_eq!(states(&mut m, &[(1330, DENIED)]), [Revoked]);
}

#[test]
fn the_kind_of_denial_names_the_loss() {
    for (kind, lost) in [
        (AccessDenied, Revoked),
        (KeyDisabled, Disabled),
        (PendingDeletion, Disabled),
        (KmsErrorKind::VersionRetired, Disabled),
        (NotFound, Destroyed),
        (KmsErrorKind::Destroyed, Destroyed),
    ] {
        assert!(kind.denies_access());
        let mut m = machine();
        let answers = [(1300, Denied(kind)), (1315, Denied(kind)), (1330, Denied(kind))];
        assert_eq!(states(&mut m, &answers), [Suspect, Suspect, lost]);
    }
}

#[test]
fn one_good_answer_clears_a_suspicion() {
    let mut m = machine();
    let answers = [(1300, DENIED), (1315, DENIED), (1320, Good), (1330, DENIED), (1345, DENIED)];
    assert_eq!(states(&mut m, &answers), [Suspect, Suspect, Active, Suspect, Suspect]);
}

#[test]
fn an_outage_launders_no_revocation() {
    let mut m = machine();
    let answers = [(1300, DENIED), (1310, SILENT), (1320, SILENT), (1330, SILENT)];
    assert_eq!(states(&mut m, &answers), [Suspect; 4]);
    assert_eq!(states(&mut m, &[(1340, DENIED), (1350, DENIED)]), [Suspect, Revoked]);

    // Without enough answers the suspicion ends by itself, long before the grace does.
    let mut m = machine();
    assert_eq!(states(&mut m, &[(1300, DENIED), (1320, SILENT)]), [Suspect; 2]);
    assert_eq!(m.deadline(), Some(s(1600)));
    assert_eq!(m.tick(s(1599)), None);
    assert_eq!(m.tick(s(1600)), Some(Change { from: Suspect, to: Suspended }));
}

#[test]
fn an_outage_is_borne_for_the_grace_alone() {
    let mut m = machine();
    assert_eq!(states(&mut m, &[(1300, SILENT), (1400, SILENT)]), [Unreachable; 2]);
    assert_eq!(m.deadline(), Some(s(1300 + 3600)));
    assert_eq!(states(&mut m, &[(4899, SILENT)]), [Unreachable]);
    assert_eq!(m.tick(s(4900)), Some(Change { from: Unreachable, to: Suspended }));

    let mut m = machine();
    let answers = [(1300, SILENT), (4899, Good), (5000, SILENT)];
    assert_eq!(states(&mut m, &answers), [Unreachable, Active, Unreachable]);
    assert_eq!(m.deadline(), Some(s(5000 + 3600)));
}

#[test]
fn what_is_not_understood_counts_as_no_answer() {
    let lapsed = KmsErrorKind::Unauthenticated;
    for kind in [Protocol, KmsErrorKind::Misconfigured, KmsErrorKind::Integrity, lapsed] {
        assert!(!kind.denies_access());
        assert_eq!(states(&mut machine(), &[(1300, Unclear(kind))]), [Unreachable]);
    }
}

#[test]
fn grace_can_be_none_or_endless() {
    let with = |unreachable_grace| {
        let policy = AccessPolicy { unreachable_grace, ..AccessPolicy::default() };
        Machine::new(policy, s(1000), 0)
    };
    assert_eq!(states(&mut with(Grace::None), &[(1300, SILENT)]), [Suspended]);
    let mut endless = with(Grace::Forever);
    assert_eq!(states(&mut endless, &[(1300, SILENT), (9_000_000, SILENT)]), [Unreachable; 2]);
    assert_eq!(endless.deadline(), None);
    assert_eq!(AccessPolicy::default().worst_case_unreachable(), Some(s(360 + 3600 + 15)));
    assert_eq!(endless.policy().worst_case_unreachable(), None);
}

#[test]
fn times_that_no_clock_can_tell_never_come_and_keep_no_denied_key() {
    let endless = Grace::For(Duration::MAX);
    let fields: [fn(&mut AccessPolicy); 8] = [
        |policy| policy.check_interval = Duration::MAX,
        |policy| policy.check_deadline = Duration::MAX,
        |policy| policy.confirm_over = Duration::MAX,
        |policy| policy.suspicion_max = Duration::MAX,
        |policy| policy.unreachable_grace = Grace::For(Duration::MAX),
        |policy| policy.view_grace = Grace::For(Duration::MAX),
        |policy| policy.recovery_interval = Duration::MAX,
        |policy| policy.confirmations = u32::MAX,
    ];
    for (field, jitter) in (0..fields.len()).flat_map(|field| [(field, 0), (field, u16::MAX)]) {
        let mut policy = AccessPolicy::default();
        fields[field](&mut policy);
        let mut view = View::new(&policy, s(1000), jitter);
        view.failed(s(1100), "away".into(), jitter);
        view.looked(s(1200), jitter);
        view.good(s(1200));
        assert!(view.next > s(1200) && view.deadline().is_none_or(|at| at > s(4800)));
        assert_eq!(
            view.deadline().is_none(),
            [0, 1].contains(&field) || policy.view_grace == endless
        );

        let mut m = Machine::new(policy.clone(), s(1000), jitter);
        assert!(m.deadline().is_none_or(|at| at > s(4600)));
        let answers = [1300, 1315, 1330].map(|at| (at, SILENT));
        assert_eq!(states(&mut m, &answers), [Unreachable; 3]);
        assert_eq!(m.deadline().is_none(), policy.unreachable_grace == endless);
        m.answer(s(1340), DENIED, jitter);
        assert!(m.next_check() > s(1340) && m.deadline().is_none_or(|at| at > s(1600)));
        // Confirmed, or suspected for as long as may be.
        assert!(!states(&mut m, &[(1360, DENIED), (1380, DENIED), (1640, DENIED)])[2].serves());
        m.restored(s(2000), jitter);
        assert!(m.state().serves() && m.next_check() > s(2000));
    }
}

#[test]
fn time_asleep_counts_against_the_lease() {
    let mut m = machine();
    // 8 hours of sleep: the keys go before the first check, which then gives them back.
    let awake = s(1000 + 8 * 3600);
    assert_eq!(m.tick(awake), Some(Change { from: Active, to: Suspended }));
    assert_eq!(m.next_check(), awake);
    assert_eq!(m.answer(awake, Good, 0), Some(Change { from: Suspended, to: Restored }));
    assert_eq!(states(&mut m, &[(30_100, Good)]), [Active]);
    // A short sleep costs nothing.
    assert_eq!(m.tick(s(30_100 + 3600)), None);
}

#[test]
fn what_is_lost_comes_back_by_a_good_answer_alone() {
    for lost in [DENIED, Denied(KeyDisabled), Denied(NotFound), SILENT] {
        let mut m = machine();
        let last = [(1300, lost), (1315, lost), (1330, lost), (5000, lost)];
        assert!(!states(&mut m, &last)[3].serves());
        assert!(!states(&mut m, &[(5100, SILENT), (6000, SILENT)])[1].serves());
        assert_eq!(m.deadline(), None);
        assert_eq!(states(&mut m, &[(6100, Good), (6400, Good)]), [Restored, Active]);
    }
}

#[test]
fn a_lost_key_is_called_by_its_latest_name() {
    let mut m = machine();
    let answers = [(1300, SILENT), (4900, SILENT), (5000, DENIED), (5100, Denied(NotFound))];
    assert_eq!(states(&mut m, &answers), [Unreachable, Suspended, Revoked, Destroyed]);
    // A destroyed key is asked for as soon as any other: nothing is believed for good.
    assert_eq!(m.next_check(), s(5100) + s(60) * 9 / 10);
}

#[test]
fn a_request_to_revoke_holds_until_a_request_to_restore() {
    let mut m = machine();
    assert_eq!(m.revoke(s(1100)), Some(Change { from: Active, to: Revoked }));
    let answers = [(1200, Good), (1300, DENIED), (1400, Denied(NotFound)), (1500, SILENT)];
    assert_eq!(states(&mut m, &answers), [Revoked; 4]);
    assert_eq!(m.tick(s(1_000_000)), None);
    assert_eq!(m.restored(s(1600), 0), Some(Change { from: Revoked, to: Restored }));
    assert_eq!(states(&mut m, &[(1700, Good)]), [Active]);
}

#[test]
fn one_confirmation_loses_access_at_once() {
    let policy = AccessPolicy { confirmations: 1, ..AccessPolicy::default() };
    assert_eq!(policy.worst_case(), s(2 * 15 + 330));
    assert_eq!(states(&mut Machine::new(policy, s(0), 0), &[(300, DENIED)]), [Revoked]);
}

fn policies() -> impl Strategy<Value = AccessPolicy> {
    let ms = |most| (0..=most).prop_map(Duration::from_millis);
    let grace =
        prop_oneof![Just(Grace::None), ms(9_000_u64).prop_map(Grace::For), Just(Grace::Forever)];
    (ms(5000_u64), ms(500), 0..6_u32, ms(4000), ms(6000), grace, ms(2000)).prop_map(
        |(
            check_interval,
            check_deadline,
            confirmations,
            confirm_over,
            suspicion_max,
            unreachable_grace,
            recovery_interval,
        )| {
            AccessPolicy {
                check_interval,
                check_deadline,
                confirmations,
                confirm_over,
                suspicion_max,
                unreachable_grace,
                view_grace: Grace::Forever,
                lapsed_credential: LapsedCredential::NoAnswer,
                recovery_interval,
            }
        },
    )
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![3 => Just(Good), 2 => Just(DENIED), 1 => Just(Denied(NotFound)), 3 => Just(SILENT)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Plays the checker's thread: it wakes when told, gives keys up, asks; an answer
    /// takes up to the deadline. From `revoked` on no answer is good.
    #[test]
    fn access_ends_within_the_stated_worst_case(
        policy in policies(),
        revoked in 0..20_000_u64,
        reachable in any::<bool>(),
        opened in any::<u16>(),
        draws in prop::collection::vec((any::<u16>(), 0.0..=1.0_f64, answers()), 1..200),
    ) {
        let revoked = Duration::from_millis(revoked);
        let worst = if reachable { Some(policy.worst_case()) } else { policy.worst_case_unreachable() };
        let mut m = Machine::new(policy.clone(), Duration::ZERO, opened);
        // A millisecond for each round, since no wait is shorter.
        let slack = Duration::from_millis(u64::from(policy.confirmations) + 2);
        let mut now = Duration::ZERO;
        let mut refused_at = None;
        for (jitter, part, answer) in draws {
            let wake = m.deadline().map_or(m.next_check(), |at| at.min(m.next_check()));
            now = now.max(wake);
            m.tick(now);
            if m.state().serves() {
                if let Some(worst) = worst {
                    prop_assert!(now <= revoked + worst + slack, "serves {:?} after", now - revoked);
                }
            } else if refused_at.is_none() {
                refused_at = Some(now);
            }
            if now < m.next_check() {
                continue;
            }
            let asked = now;
            let arrived = now + policy.check_deadline.mul_f64(part);
            now += policy.check_deadline;
            // The service decided at any moment between.
            let answer = match answer {
                Good if arrived > revoked => DENIED,
                _ if reachable && asked > revoked => DENIED,
                answer => answer,
            };
            let change = m.answer(now, answer, jitter);
            prop_assert!(m.next_check() > now || !m.state().serves());
            if let Some(change) = change {
                prop_assert_ne!(change.from, change.to);
            }
        }
    }

    #[test]
    fn only_a_good_answer_ends_suspicion_and_loss(
        policy in policies(),
        steps in prop::collection::vec((0..3000_u64, any::<u16>(), answers()), 1..100),
    ) {
        let mut m = Machine::new(policy, Duration::ZERO, 0);
        let mut now = Duration::ZERO;
        for (wait, jitter, answer) in steps {
            now += Duration::from_millis(wait);
            m.tick(now);
            let before = m.state();
            m.answer(now, answer, jitter);
            let after = m.state();
            match answer {
                Good => prop_assert!(matches!(after, Active | Restored)),
                _ if before == Suspect => prop_assert!(after == Suspect || !after.serves()),
                _ if !before.serves() => prop_assert!(!after.serves()),
                Denied(_) => prop_assert!(after == Suspect || !after.serves()),
                Unclear(_) => prop_assert!(matches!(after, Unreachable | Suspended)),
            }
            prop_assert!(after.serves() || m.deadline().is_none());
        }
    }
}
