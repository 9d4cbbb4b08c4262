//! Keys by which anybody may wrap.

/// Whether wrapping by the key of this URI needs no secret, as by the public half of an RSA
/// key in a vault of Azure's. Then whoever can write to a store's directory can put a store
/// of his own there: its id is to be pinned
/// ([`Options::store_id`](atrest::Options::store_id)), or the key's URI asks for a proof
/// (`proof=PS256`). Judge the URI that is given, not only that of a slot: whoever writes the
/// keyring writes the latter.
pub fn wraps_for_anybody(key_uri: &str) -> bool {
    let Some((scheme, rest)) = key_uri.split_once("://") else { return false };
    if !scheme.eq_ignore_ascii_case("azure-kms") {
        return false;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let option = |name| query.split('&').find_map(|part: &str| part.strip_prefix(name));
    let algorithm = option("alg=");
    if option("proof=") == Some("PS256") {
        return false;
    }
    let host = place.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let is_symmetric_there = host.contains(".managedhsm.");
    algorithm.map_or(!is_symmetric_there, |algorithm| algorithm != "A256GCM")
}

#[cfg(test)]
mod tests {
    use super::wraps_for_anybody;

    #[test]
    fn only_rsa_keys_wrap_for_anybody() {
        for uri in [
            "azure-kms://a.vault.azure.net/keys/k",
            "azure-kms://a.vault.azure.net/keys/k/1?alg=RSA-OAEP-256",
            "azure-kms://a.managedhsm.azure.net/keys/k?ca=x&alg=RSA-OAEP-256",
        ] {
            assert!(wraps_for_anybody(uri), "{uri}");
        }
        for uri in [
            "azure-kms://a.managedhsm.azure.net/keys/k",
            "azure-kms://a.vault.azure.net/keys/k?alg=A256GCM",
            "azure-kms://a.vault.azure.net/keys/k?ca=x&proof=PS256",
            "aws-kms://arn:aws:kms:eu-central-1:111122223333:key/ID1",
            "file:///azure-kms://a.vault.azure.net/keys/k",
        ] {
            assert!(!wraps_for_anybody(uri), "{uri}");
        }
    }
}
