//! The key's name, region and addresses, from an `aws-kms:` URI.

use atrest::kms::KmsError;

use crate::environment::Environment;
use crate::fail::misconfigured;
use crate::provider::Opening;
use crate::uri::{Parts, endpoint, is_segment};

/// Where credentials may be sent, to a host of KMS.
const DOMAINS: [&str; 5] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "api.amazonwebservices.com.cn",
];

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
        Some(text) => of_kms(endpoint(&text, &DOMAINS)?, &key.region)?,
        // The operator's own setting may name any host.
        None => match environment.plain("AWS_ENDPOINT_URL_KMS") {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => key.endpoint("kms", fips(environment)),
        },
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

/// An endpoint of KMS in the key's region, or on this machine: `kms.REGION.`, `kms-fips.REGION.`
/// or a VPC endpoint. Other hosts of AWS answer in the name of whoever rents them, and a bucket may
/// be named `kms`.
fn of_kms(endpoint: String, region: &str) -> Result<String, KmsError> {
    let address = endpoint.split_once("://").map_or("", |(_, address)| address);
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let below_aws = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain));
    let is_kms = |labels: &str| {
        let service = labels.strip_suffix('.').and_then(|labels| labels.strip_suffix(region));
        matches!(service, Some("kms." | "kms-fips."))
    };
    let is_kms = |labels: &str| match labels.strip_suffix("vpce.") {
        Some(rest) => rest.split_once('.').is_some_and(|(_, labels)| is_kms(labels)),
        None => is_kms(labels),
    };
    if below_aws.is_none_or(is_kms) {
        return Ok(endpoint);
    }
    let what = "expected an endpoint of KMS in the key's region, such as kms.REGION.amazonaws.com \
                or VPCE.kms.REGION.vpce.amazonaws.com";
    Err(misconfigured(what))
}

/// Whether the operator wants endpoints with validated cryptography.
fn fips(environment: &Environment) -> bool {
    environment.plain("AWS_USE_FIPS_ENDPOINT").is_some_and(|set| set.eq_ignore_ascii_case("true"))
}

impl KeyName {
    /// A service's address in the key's region, by the region's partition.
    fn endpoint(&self, service: &str, fips: bool) -> String {
        let domain = match self.region.split('-').next() {
            Some("cn") => "amazonaws.com.cn",
            Some("eusc") => "amazonaws.eu",
            _ => "amazonaws.com",
        };
        let fips = if fips { "-fips" } else { "" };
        format!("https://{service}{fips}.{}.{domain}", self.region)
    }

    /// Where web identities become credentials, without an override.
    pub(super) fn sts_endpoint(&self, environment: &Environment) -> String {
        // Those of GovCloud have no other name.
        self.endpoint("sts", fips(environment) && !self.region.starts_with("us-gov-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let none: [(&str, &str); 0] = [];
        let sts = options.key.sts_endpoint(&Environment::fixed(none));
        assert_eq!(sts, "https://sts.eu-west-1.amazonaws.com");
        parsed("aws-kms://arn:aws:kms:eu-west-1:1:alias/x?region=eu-west-1").expect("agreeing");
    }

    #[test]
    fn partitions_fips_and_vpc_endpoints() {
        let fips = Environment::fixed([("AWS_USE_FIPS_ENDPOINT", "true")]);
        for (region, kms, sts) in [
            ("eu-west-1", "kms-fips.eu-west-1.amazonaws.com", "sts-fips.eu-west-1.amazonaws.com"),
            (
                "us-gov-west-1",
                "kms-fips.us-gov-west-1.amazonaws.com",
                "sts.us-gov-west-1.amazonaws.com",
            ),
        ] {
            let uri = format!("aws-kms://alias/x?region={region}").parse().expect("a URI");
            let opening = Opening { uri: &uri, environment: &fips, example: "" };
            let options = parse(&opening).expect("well formed");
            assert_eq!(options.endpoint, format!("https://{kms}"));
            assert_eq!(options.key.sts_endpoint(&fips), format!("https://{sts}"));
        }
        let at = |uri: &str| parsed(uri).expect(uri).endpoint;
        for (arn, host) in [
            ("arn:aws-us-gov:kms:us-gov-east-1:1:key/x", "kms.us-gov-east-1.amazonaws.com"),
            ("arn:aws-cn:kms:cn-northwest-1:1:key/x", "kms.cn-northwest-1.amazonaws.com.cn"),
            ("arn:aws-eusc:kms:eusc-de-east-1:1:key/x", "kms.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(at(&format!("aws-kms://{arn}")), format!("https://{host}"));
        }
        for host in [
            "vpce-0a1b-c2d3.kms.eu-west-1.vpce.amazonaws.com",
            "vpce-0a1b-c2d3-eu-west-1a.kms-fips.eu-west-1.vpce.amazonaws.com",
            "kms.eu-west-1.api.aws",
            "kms-fips.eu-west-1.amazonaws.com",
        ] {
            let uri = format!("aws-kms://x?region=eu-west-1&endpoint=https://{host}");
            assert_eq!(at(&uri), format!("https://{host}:443"));
            let uri =
                format!("aws-kms://x?region=eu-west-1&endpoint=https://{}", host.to_uppercase());
            assert_eq!(at(&uri), format!("https://{host}:443"));
        }
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
            "aws-kms://x?region=eu-west-1&endpoint=https://evil.execute-api.eu-west-1.amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://evil.execute-api.eu-west-1.AMAZONAWS.COM",
            "aws-kms://x?region=eu-west-1&endpoint=https://evil-kms.s3.amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://kms.s3.amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://kms.s3-website-eu-west-1.amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://kms.eu-west-1.s3.amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://a.kms.eu-west-1.amazonaws.com",
            "aws-kms://x?region=eu-west-1&endpoint=https://kms.us-east-1.amazonaws.com",
            "aws-kms://x?region=eu-west-1&secret=hunter22",
        ] {
            assert!(parsed(uri).is_err(), "{uri}");
        }
    }
}
