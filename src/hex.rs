//! Hexadecimal text for ids and keys given in environment variables.

/// Decodes exactly `N` bytes; `None` for another length or a character that is no digit.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    decode(text, &mut bytes).then_some(bytes)
}

/// Decodes into `out`; false for another length or a character that is no digit.
pub(crate) fn decode(text: &str, out: &mut [u8]) -> bool {
    let digits = text.as_bytes();
    if Some(digits.len()) != out.len().checked_mul(2) {
        return false;
    }
    for (pair, byte) in digits.chunks_exact(2).zip(out) {
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
            return false;
        };
        *byte = high << 4 | low;
    }
    true
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Lower-case digits.
pub(crate) fn encode(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // OK because a String takes any text.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
