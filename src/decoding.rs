//! Decoding a record in the bincode format, with memory in proportion to what is there.
//!
//! A list says its own length in front of it, and room for all of it is made at once. What a
//! short input may ask for is bounded by its own length in three steps, what a longer one may
//! ask for by `$len_max`, the greatest length of the record.

/// Longest input of the first step, which may ask for four times as much at once.
pub(crate) const SHORT_LEN_MAX: usize = 16 << 10;
/// Of the second one.
pub(crate) const MIDDLE_LEN_MAX: usize = 1 << 20;
/// Of the third one.
pub(crate) const LONG_LEN_MAX: usize = 16 << 20;

/// Decodes all of `$bytes`. No list of a record is in memory over three times as long as in
/// bytes: that of a list of empty lists. A macro, since the bound is a constant of the
/// decoder's type.
macro_rules! decode_exact {
    ($bytes:expr, $len_max:expr) => {{
        use wincode::config::{Configuration, deserialize_exact};
        use $crate::decoding::{LONG_LEN_MAX, MIDDLE_LEN_MAX, SHORT_LEN_MAX};
        const fn least(one: usize, other: usize) -> usize {
            if one < other { one } else { other }
        }
        const SHORT: usize = least(4 * SHORT_LEN_MAX, $len_max);
        const MIDDLE: usize = least(4 * MIDDLE_LEN_MAX, $len_max);
        const LONG: usize = least(4 * LONG_LEN_MAX, $len_max);
        let (bytes, config): (&[u8], _) = ($bytes, Configuration::default());
        match bytes.len() {
            ..=SHORT_LEN_MAX => {
                deserialize_exact(bytes, config.with_preallocation_size_limit::<SHORT>())
            }
            ..=MIDDLE_LEN_MAX => {
                deserialize_exact(bytes, config.with_preallocation_size_limit::<MIDDLE>())
            }
            ..=LONG_LEN_MAX => {
                deserialize_exact(bytes, config.with_preallocation_size_limit::<LONG>())
            }
            _ => deserialize_exact(bytes, config.with_preallocation_size_limit::<{ $len_max }>()),
        }
    }};
}
pub(crate) use decode_exact;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use wincode::{ReadError, ReadResult, config};

    use super::*;

    const LEN_MAX: usize = 1 << 30;

    fn limit_of(len: usize) -> usize {
        // A list of more than there can be, and nothing in it.
        let mut bytes = vec![0; len];
        bytes[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        let read: ReadResult<Vec<u64>> = decode_exact!(&bytes, LEN_MAX);
        match read {
            Err(ReadError::PreallocationSizeLimit { limit, .. }) => limit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_short_input_asks_for_no_memory_that_it_cannot_fill() {
        let lens = [8, SHORT_LEN_MAX, SHORT_LEN_MAX + 1, MIDDLE_LEN_MAX, LONG_LEN_MAX];
        assert_eq!(lens.map(limit_of), [64 << 10, 64 << 10, 4 << 20, 4 << 20, 64 << 20]);
        assert_eq!(limit_of(LONG_LEN_MAX + 1), LEN_MAX);
    }

    #[test]
    fn a_list_of_empty_lists_of_any_length_is_read() {
        let config = config::Configuration::default().with_preallocation_size_limit::<LEN_MAX>();
        for len in [SHORT_LEN_MAX, MIDDLE_LEN_MAX, LONG_LEN_MAX] {
            let lists: Vec<Vec<u8>> = vec![Vec::new(); len / 8 - 1];
            let bytes = config::serialize(&lists, config).unwrap();
            assert_eq!(bytes.len(), len);
            let read: ReadResult<Vec<Vec<u8>>> = decode_exact!(&bytes, LEN_MAX);
            assert_eq!(read.unwrap().len(), lists.len());
        }
    }
}
