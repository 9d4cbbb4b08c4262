//! The key's name, region and addresses, from an `aws-kms:` URI.

use atrest::kms::KmsError;

use crate::fail::misconfigured;
use crate::provider::Opening;
use crate::uri::{Parts, endpoint, is_segment};

/// Where credentials may be sent.
const DOMAINS: [&str; 3] = ["amazonaws.com", "amazonaws.com.cn", "api.aws"];

/// A key by ARN, id or alias.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyName {
    /// What requests carry as `KeyId`.
    pub id: String,
    pub region: String,
}

pub(super) struct Options {
    pub key: KeyName,
    pub endpoint: String,
    pub profile: Option<String>,
    pub ca: Option<String>,
}

pub(super) fn parse(opening: &Opening<'_>) -> Result<Options, KmsError> {
    let (environment, expected) = (opening.environment, || opening.malformed());
    let mut parts = Parts::parse(opening.uri, opening.example)?;
    let id = match parts.path.as_str() {
        "" => parts.authority.clone(),
        path => format!("{}/{path}", parts.authority),
    };
    let given = parts.take("region");
    let region = match arn_region(&id) {
        Some(region) => {
            if given.is_some_and(|given| given != region) {
                return Err(misconfigured(format!("expected the ARN's region {region}")));
            }
            region
        }
        None if id.starts_with("arn:") => return Err(expected()),
        None => given
            .or_else(|| environment.plain("AWS_REGION"))
            .or_else(|| environment.plain("AWS_DEFAULT_REGION"))
            .ok_or_else(|| misconfigured("expected a region: an ARN, region=, or AWS_REGION"))?,
    };
    let name = id.rsplit(':').next().unwrap_or(&id);
    let good_name = match name.split_once('/') {
        Some(("alias", alias)) => alias.split('/').all(is_segment),
        Some(("key", key)) => id.starts_with("arn:") && is_segment(key),
        Some(_) => false,
        None => !id.starts_with("arn:") && is_segment(name),
    };
    if !good_name || !is_segment(&region) {
        return Err(expected());
    }
    let key = KeyName { id, region };
    let endpoint = match parts.take("endpoint") {
        Some(text) => endpoint(&text, &DOMAINS)?,
        // The operator's own setting may name any host.
        None => environment.plain("AWS_ENDPOINT_URL_KMS").map_or_else(
            || format!("https://kms.{}.{}", key.region, key.domain()),
            |url| url.trim_end_matches('/').to_owned(),
        ),
    };
    let options = Options { key, endpoint, profile: parts.take("profile"), ca: parts.take("ca") };
    parts.finish()?;
    Ok(options)
}

/// The region of `arn:PARTITION:kms:REGION:ACCOUNT:...`.
fn arn_region(id: &str) -> Option<String> {
    let fields: Vec<&str> = id.split(':').collect();
    match fields[..] {
        ["arn", partition, "kms", region, account, _]
            if is_segment(partition) && is_segment(region) && is_segment(account) =>
        {
            Some(region.to_owned())
        }
        _ => None,
    }
}

impl KeyName {
    fn domain(&self) -> &'static str {
        if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
    }

    /// Where web identities become credentials, without an override.
    pub(super) fn sts_endpoint(&self) -> String {
        format!("https://sts.{}.{}", self.region, self.domain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn parsed(uri: &str) -> Result<Options, KmsError> {
        let none: [(&str, &str); 0] = [];
        let (uri, environment) = (uri.parse()?, Environment::fixed(none));
        parse(&Opening { uri: &uri, environment: &environment, example: "" })
    }

    #[test]
    fn names_and_addresses() {
        let arn = "arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-12";
        let options = parsed(&format!("aws-kms://{arn}")).expect("an ARN");
        assert_eq!(options.key.id, arn);
        assert_eq!(options.endpoint, "https://kms.cn-north-1.amazonaws.com.cn");
        let options = parsed("aws-kms://alias/app/x?region=eu-west-1").expect("an alias");
        assert_eq!(
            (options.key.id.as_str(), options.key.region.as_str()),
            ("alias/app/x", "eu-west-1")
        );
        assert_eq!(options.key.sts_endpoint(), "https://sts.eu-west-1.amazonaws.com");
        parsed("aws-kms://arn:aws:kms:eu-west-1:1:alias/x?region=eu-west-1").expect("agreeing");
    }

    #[test]
    fn what_is_refused() {
        for uri in [
            "aws-kms://alias/x",
            "aws-kms://arn:aws:kms:eu-west-1:1:key/x?region=us-east-1",
            "aws-kms://arn:aws:kms:eu-west-1:1:key",
            "aws-kms://arn:aws:s3:::bucket/x",
            "aws-kms://arn:aws:kms::1:key/x",
            "aws-kms://key/x?region=eu-west-1",
            "aws-kms://x?region=evil.example/",
            "aws-kms://x?region=eu-west-1&endpoint=https://evil.example",
            "aws-kms://x?region=eu-west-1&secret=hunter22",
        ] {
            assert!(parsed(uri).is_err(), "{uri}");
        }
    }
}
