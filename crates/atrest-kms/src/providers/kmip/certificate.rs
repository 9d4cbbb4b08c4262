//! From when until when a certificate is good (RFC 5280 section 4.1): the one field that is read
//! here. Whether it is good is the server's to say.

use std::time::SystemTime;

use crate::time::parse_digits;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The times, of a certificate in DER; `None` for what is none.
pub(super) fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let mut outer = Elements(der);
    let mut certificate = Elements(outer.next_of(SEQUENCE)?);
    let mut signed = Elements(certificate.next_of(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.next_of(VERSION)?;
    }
    for skipped in [INTEGER, SEQUENCE, SEQUENCE] {
        // Serial number, signature algorithm, issuer.
        signed.next_of(skipped)?;
    }
    let mut validity = Elements(signed.next_of(SEQUENCE)?);
    let mut time = || match validity.next()? {
        (UTC_TIME, text) if text.len() == 13 => parse_digits(text),
        (GENERALIZED_TIME, text) if text.len() == 15 => parse_digits(text),
        _ => None,
    };
    Some((time()?, time()?))
}

/// Elements of DER, one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn next_of(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Elements<'a> {
    /// Tag and content.
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Up to three bytes of length: no certificate has 16 MiB.
            0x81..=0x83 => {
                let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (len.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A certificate up to its validity, with these times.
    fn certificate(not_before: &[u8], not_after: &[u8]) -> Vec<u8> {
        let element = |tag: u8, content: &[u8]| {
            let len = content.len();
            let mut out = match len {
                0..=0x7f => vec![tag, len as u8],
                _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
            };
            out.extend_from_slice(content);
            out
        };
        let time =
            |text: &[u8]| element(if text.len() == 13 { UTC_TIME } else { GENERALIZED_TIME }, text);
        let signed = [
            element(VERSION, &element(INTEGER, &[2])),
            element(INTEGER, &[7; 20]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[0; 300]),
            element(SEQUENCE, &[time(not_before), time(not_after)].concat()),
        ];
        element(SEQUENCE, &element(SEQUENCE, &signed.concat()))
    }

    #[test]
    fn both_forms_of_times_are_read() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let good = certificate(b"000229000000Z", b"20000301000000Z");
        assert_eq!(validity(&good), Some((at(951_782_400), at(951_868_800))));
        assert_eq!(validity(&certificate(b"000229000000", b"20000301000000Z")), None);
        for len in 0..good.len() {
            assert_eq!(validity(&good[..len]), None, "{len}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0_usize..400,
            to in any::<u8>(),
        ) {
            let _ = validity(&bytes);
            let mut changed = certificate(b"000229000000Z", b"20000301000000Z");
            if let Some(byte) = changed.get_mut(at) {
                *byte = to;
            }
            let _ = validity(&changed);
        }
    }
}
