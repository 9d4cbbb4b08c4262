use super::*;

fn entry(number: u16, flags: u8, value: &[u8]) -> Entry {
    Entry { number, flags, value: value.to_vec() }
}

#[test]
fn entries_are_set_in_order_replaced_and_removed() {
    let mut tags = Tags::default();
    tags.set_flag(7, Unknown::Refuse, true);
    tags.set_number(2, Unknown::Keep, Some(5));
    tags.set_number(9, Unknown::Keep, Some(1));
    tags.set_number(2, Unknown::Keep, Some(6));
    assert_eq!(
        tags.0,
        [
            entry(2, 0, &[6, 0, 0, 0, 0, 0, 0, 0]),
            entry(7, 1, b""),
            entry(9, 0, &[1, 0, 0, 0, 0, 0, 0, 0])
        ]
    );
    assert_eq!((tags.number(2), tags.number(3)), (Ok(Some(6)), Ok(None)));
    assert_eq!((tags.flag(7), tags.flag(8)), (Ok(true), Ok(false)));
    assert!(tags.flag(2).is_err() && tags.number(7).is_err());
    tags.set_number(2, Unknown::Keep, None);
    tags.set_flag(7, Unknown::Refuse, false);
    assert_eq!(tags.0.len(), 1);
}

#[test]
fn what_is_malformed_is_refused_and_what_is_unknown_only_if_critical() {
    let check = |entries: &[Entry]| Tags(entries.to_vec()).check(&[1]);
    let malformed = |entries: &[Entry]| matches!(check(entries), Err(Refused::Malformed(_)));
    assert_eq!(check(&[entry(1, 1, b"x"), entry(2, 0, b"y"), entry(3, 0, b"")]), Ok(()));
    assert_eq!(check(&[entry(1, 0, b""), entry(4, 1, b"")]), Err(Refused::Critical(4)));
    assert!(malformed(&[entry(2, 0, b""), entry(1, 0, b"")]));
    assert!(malformed(&[entry(2, 0, b""), entry(2, 0, b"")]));
    assert!(malformed(&[entry(2, 2, b"")]));
    assert!(malformed(&[entry(2, 0, &vec![0; VALUE_LEN_MAX + 1])]));
    let many: Vec<_> = (0..=TAGS_MAX as u16).map(|number| entry(number, 0, b"")).collect();
    assert!(malformed(&many));
    assert_eq!(check(&many[1..]), Ok(()));
}
