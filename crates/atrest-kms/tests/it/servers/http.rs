//! The administrator's HTTP client: independent of the one under test.

use std::time::Duration;

use serde_json::Value;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Sends a request; answers status and JSON (`Null` if there is none).
///
/// # Panics
/// Without an answer.
pub(crate) fn send(
    method: &str,
    url: &str,
    ca: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, Value) {
    try_send(method, url, ca, headers, body).unwrap_or_else(|why| panic!("{method} {url}: {why}"))
}

pub(crate) fn try_send(
    method: &str,
    url: &str,
    ca: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(u16, Value), String> {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)));
    if let Some(ca) = ca {
        let pem = std::fs::read(ca).map_err(|e| e.to_string())?;
        let roots = vec![Certificate::from_pem(&pem).map_err(|e| e.to_string())?];
        let roots = RootCerts::new_with_certs(&roots);
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body).map_err(|e| e.to_string())?;
    let mut response = config.build().new_agent().run(request).map_err(|e| e.to_string())?;
    let text = response.body_mut().read_to_string().map_err(|e| e.to_string())?;
    let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok((response.status().as_u16(), json))
}
