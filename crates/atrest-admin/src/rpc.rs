//! Errors in the shape of `google.rpc.Status`.

use std::error::Error as _;

use atrest::kms::KmsErrorKind;
use atrest::{Error, ErrorKind};
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

/// A canonical code with its number and its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    FailedPrecondition,
    Aborted,
    Unimplemented,
    Internal,
    Unavailable,
    Unauthenticated,
}

impl Code {
    fn number(self) -> u8 {
        match self {
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    fn http(self) -> StatusCode {
        match self {
            Self::InvalidArgument | Self::FailedPrecondition => StatusCode::BAD_REQUEST,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::AlreadyExists | Self::Aborted => StatusCode::CONFLICT,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
        }
    }
}

/// An error as it is answered. It holds no secret.
#[derive(Clone, Debug)]
pub(crate) struct RpcError {
    code: Code,
    http: StatusCode,
    message: String,
    /// The kind of a library error, in capitals, and the region it met.
    reason: Option<(&'static str, String)>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: u8,
    message: &'a str,
    details: Vec<Value>,
}

impl RpcError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, http: code.http(), message: message.into(), reason: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    /// What a panic says stays in the server's standard error.
    pub(crate) fn panicked() -> Self {
        Self::new(Code::Internal, "the operation panicked")
    }

    /// For what HTTP has a status of its own.
    pub(crate) fn with_http(mut self, http: StatusCode) -> Self {
        self.http = http;
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What a library error, met in `region`, means to the client.
    pub(crate) fn of(region: &str, error: &Error) -> Self {
        let (code, reason) = classify(error.kind());
        let message = match error.kind() {
            // Paths of the server are not the client's business.
            ErrorKind::Io(kind) => format!("region {region}: the store's storage failed: {kind}"),
            _ => format!("region {region}: {}", sentence(error)),
        };
        let reason = Some((reason, region.to_owned()));
        Self { code, http: code.http(), message, reason }
    }
}

/// The error and, where a key service is the cause, what that said, without paths.
pub(crate) fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    if let Some(path) = error.path() {
        let prefix = format!("{}: ", path.display());
        text = text.strip_prefix(&prefix).unwrap_or(&text).to_owned();
    }
    if let (ErrorKind::Kms(_), Some(source)) = (error.kind(), error.source()) {
        text = format!("{text}: {source}");
    }
    text
}

fn classify(kind: ErrorKind) -> (Code, &'static str) {
    match kind {
        ErrorKind::Kms(kind) => match kind {
            KmsErrorKind::Unreachable => (Code::Unavailable, "KMS_UNREACHABLE"),
            KmsErrorKind::Throttled => (Code::Unavailable, "KMS_THROTTLED"),
            KmsErrorKind::Unauthenticated => (Code::FailedPrecondition, "KMS_UNAUTHENTICATED"),
            KmsErrorKind::AccessDenied => (Code::FailedPrecondition, "KMS_ACCESS_DENIED"),
            KmsErrorKind::KeyDisabled => (Code::FailedPrecondition, "KMS_KEY_DISABLED"),
            KmsErrorKind::PendingDeletion => (Code::FailedPrecondition, "KMS_PENDING_DELETION"),
            KmsErrorKind::VersionRetired => (Code::FailedPrecondition, "KMS_VERSION_RETIRED"),
            KmsErrorKind::NotFound => (Code::FailedPrecondition, "KMS_KEY_NOT_FOUND"),
            KmsErrorKind::Destroyed => (Code::FailedPrecondition, "KMS_KEY_DESTROYED"),
            KmsErrorKind::Integrity => (Code::FailedPrecondition, "KMS_WRAPPED_KEY_REFUSED"),
            KmsErrorKind::Misconfigured => (Code::FailedPrecondition, "KMS_MISCONFIGURED"),
            _ => (Code::Internal, "KMS_PROTOCOL"),
        },
        ErrorKind::CmekRevoked => (Code::FailedPrecondition, "CMEK_REVOKED"),
        ErrorKind::ReadOnly => (Code::FailedPrecondition, "READ_ONLY"),
        ErrorKind::UnsupportedFeature => (Code::Unimplemented, "UNSUPPORTED"),
        ErrorKind::InvalidArgument => (Code::InvalidArgument, "INVALID_ARGUMENT"),
        ErrorKind::KeyringExists => (Code::AlreadyExists, "KEYRING_EXISTS"),
        ErrorKind::KeyringMissing => (Code::FailedPrecondition, "KEYRING_MISSING"),
        ErrorKind::KeyringBusy => (Code::Aborted, "KEYRING_BUSY"),
        ErrorKind::KeyringConflict => (Code::Aborted, "KEYRING_CONFLICT"),
        ErrorKind::WrongStoreKey => (Code::FailedPrecondition, "WRONG_STORE_KEY"),
        ErrorKind::Poisoned => (Code::Internal, "POISONED"),
        ErrorKind::Io(_) => (Code::Internal, "STORAGE"),
        _ => (Code::Internal, "KEYRING"),
    }
}

impl IntoResponse for RpcError {
    fn into_response(self) -> Response {
        let details = self.reason.iter().map(|(reason, region)| {
            json!({
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": reason,
                "domain": "atrest",
                "metadata": { "region": region },
            })
        });
        let body =
            Body { code: self.code.number(), message: &self.message, details: details.collect() };
        let mut response = (self.http, Json(body)).into_response();
        if self.code == Code::Unauthenticated {
            let value = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, value);
        }
        response
    }
}
