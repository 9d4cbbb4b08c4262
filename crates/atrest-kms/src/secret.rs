//! Text that is never shown: tokens, passwords, PINs.

use std::fmt;

use zeroize::Zeroizing;

/// A credential: zeroized on drop, redacted in `Debug`, without `Display`.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Box<str>>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        // Copied, since shrinking a `String` may leave its old buffer behind.
        Self(Zeroizing::new(Box::from(text.as_str())))
    }

    /// The text, to send to the service it belongs to and nowhere else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(feature = "_rest")]
impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}
