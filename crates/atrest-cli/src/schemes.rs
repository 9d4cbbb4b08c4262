//! What the help of `--cmek` says of key URIs, from the registry of atrest-kms.

use std::fmt::Write as _;

use atrest_kms::Scheme;

/// The schemes, in one line.
pub(crate) fn help() -> String {
    let names: Vec<_> = built().map(|scheme| format!("{}:", scheme.name())).collect();
    format!("The customer's key, as a URI: {}", names.join(", "))
}

/// Each scheme with an example, and `more`.
pub(crate) fn long_help(more: &str) -> String {
    let mut text = "The customer's key, as a URI of one of these forms:\n".to_owned();
    for scheme in built() {
        // OK because a String takes any text.
        let _ = write!(text, "\n  {}\n      {}", scheme.example(), scheme.about());
    }
    if !more.is_empty() {
        text = format!("{text}\n\n{more}");
    }
    text
}

fn built() -> impl Iterator<Item = &'static Scheme> {
    atrest_kms::schemes().iter().filter(|scheme| scheme.is_built())
}

#[cfg(test)]
mod tests;
