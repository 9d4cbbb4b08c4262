//! TTLV, KMIP's encoding: tag 3 bytes, type 1, length 4, value padded to 8 (KMIP 1.4,
//! section 9.1).
//!
//! The reader borrows, allocates nothing and follows a structure only when asked, so that
//! neither nesting nor a length field of an answer can exhaust anything.

use zeroize::Zeroizing;

/// A field's value. Types that KMIP has and this client never reads are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Structure(&'a [u8]),
    Integer(i32),
    Enumeration(u32),
    Text(&'a str),
    Bytes(&'a [u8]),
    Other,
}

/// Reads one field; `None` if it is malformed or ends too early. Answers its tag, its
/// value and what follows.
pub(super) fn read(bytes: &[u8]) -> Option<(u32, Value<'_>, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let tag = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let len = usize::try_from(u32::from_be_bytes([head[4], head[5], head[6], head[7]])).ok()?;
    let (padded, after) = rest.split_at_checked(len.checked_next_multiple_of(8)?)?;
    let value = &padded[..len];
    let value = match head[3] {
        0x01 if len % 8 == 0 => Value::Structure(value),
        0x02 => Value::Integer(i32::from_be_bytes(value.try_into().ok()?)),
        0x05 => Value::Enumeration(u32::from_be_bytes(value.try_into().ok()?)),
        0x07 => Value::Text(std::str::from_utf8(value).ok()?),
        0x08 => Value::Bytes(value),
        0x03 | 0x04 | 0x06 | 0x09 | 0x0a => Value::Other,
        _ => return None,
    };
    Some((tag, value, after))
}

/// The first field of that tag in a structure's content; `None` if there is none or what
/// stands before it is malformed.
pub(super) fn find(mut content: &[u8], wanted: u32) -> Option<Value<'_>> {
    loop {
        let (tag, value, rest) = read(content)?;
        if tag == wanted {
            return Some(value);
        }
        content = rest;
    }
}

/// Writes fields into one allocation that is zeroized. `LEN_MAX` is never exceeded by
/// what this client writes; beyond it growing would leave a copy behind.
pub(super) struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    const LEN_MAX: usize = 4096;

    pub(super) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(Self::LEN_MAX)))
    }

    pub(super) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    pub(super) fn structure(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        self.head(tag, 0x01, 0);
        let start = self.0.len();
        content(self);
        let len = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
        self.0[start - 4..start].copy_from_slice(&len.to_be_bytes());
    }

    pub(super) fn integer(&mut self, tag: u32, value: i32) {
        self.field(tag, 0x02, &value.to_be_bytes());
    }

    pub(super) fn enumeration(&mut self, tag: u32, value: u32) {
        self.field(tag, 0x05, &value.to_be_bytes());
    }

    pub(super) fn text(&mut self, tag: u32, value: &str) {
        self.field(tag, 0x07, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, tag: u32, value: &[u8]) {
        self.field(tag, 0x08, value);
    }

    fn field(&mut self, tag: u32, kind: u8, value: &[u8]) {
        self.head(tag, kind, u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value);
        let padded = self.0.len().next_multiple_of(8);
        self.0.resize(padded, 0);
        debug_assert!(self.0.len() <= Self::LEN_MAX);
    }

    fn head(&mut self, tag: u32, kind: u8, len: u32) {
        self.0.extend_from_slice(&tag.to_be_bytes()[1..]);
        self.0.push(kind);
        self.0.extend_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of KMIP 1.4, section 9.1.2.
    #[test]
    fn examples_of_the_specification() {
        let hex = |text: &str| -> Vec<u8> {
            let text: String = text.split_whitespace().collect();
            (0..text.len() / 2)
                .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).expect("hex"))
                .collect()
        };
        let bytes = hex("42 00 20 02 00 00 00 04 00 00 00 08 00 00 00 00");
        assert_eq!(read(&bytes), Some((0x42_0020, Value::Integer(8), &[][..])));
        let bytes = hex("42 00 20 05 00 00 00 04 00 00 00 FF 00 00 00 00");
        assert_eq!(read(&bytes), Some((0x42_0020, Value::Enumeration(255), &[][..])));
        let bytes = hex("42 00 20 07 00 00 00 0B 48 65 6C 6C 6F 20 57 6F 72 6C 64 00 00 00 00 00");
        assert_eq!(read(&bytes), Some((0x42_0020, Value::Text("Hello World"), &[][..])));
        let bytes = hex("42 00 20 08 00 00 00 03 01 02 03 00 00 00 00 00");
        assert_eq!(read(&bytes), Some((0x42_0020, Value::Bytes(&[1, 2, 3]), &[][..])));
        let bytes = hex(
            "42 00 20 01 00 00 00 20 42 00 04 05 00 00 00 04 00 00 00 FE 00 00 00 00 42 00 05 02 \
             00 00 00 04 00 00 00 FF 00 00 00 00",
        );
        let mut writer = Writer::new();
        writer.structure(0x42_0020, |writer| {
            writer.enumeration(0x42_0004, 254);
            writer.integer(0x42_0005, 255);
        });
        assert_eq!(*writer.finish(), bytes);
        let Some((_, Value::Structure(content), _)) = read(&bytes) else { panic!("structure") };
        assert_eq!(find(content, 0x42_0005), Some(Value::Integer(255)));
        assert_eq!(find(content, 0x42_0006), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            head in prop::collection::vec(any::<u8>(), 0..8),
            len in prop::sample::select(vec![0_u32, 1, 4, 8, 16, 0x7fff_ffff, 0xffff_fff9, 0xffff_ffff]),
            rest in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = head;
            bytes.resize(4, 1);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&rest);
            if let Some((_, value, after)) = read(&bytes) {
                prop_assert!(after.len() < bytes.len());
                if let Value::Structure(content) = value {
                    let _ = find(content, 0x42_0094);
                }
            }
            drop(super::super::message::payload(&bytes));
        }

        #[test]
        fn what_is_written_is_read(text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut writer = Writer::new();
            writer.text(0x42_0001, &text);
            writer.bytes(0x42_0002, &bytes);
            let written = writer.finish();
            prop_assert_eq!(find(&written, 0x42_0001), Some(Value::Text(&text)));
            prop_assert_eq!(find(&written, 0x42_0002), Some(Value::Bytes(&bytes)));
        }
    }
}
