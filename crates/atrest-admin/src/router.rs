//! The routes.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::api::{ActionRequest, ClusterInfo, ClusterSpec, CustomerAction};
use crate::cluster::Cluster;
use crate::health::Health;
use crate::info::cluster_info;
use crate::looks::in_a_thread;
use crate::operation::{self, Begun};
use crate::rpc::{Code, RpcError};
use crate::state::AdminState;

/// The OpenAPI 3 document of the routes, as `/openapi.json` serves it.
pub const OPENAPI: &str = include_str!("openapi.json");

/// Longest body: 64 region specifications with long URIs are below it.
const BODY_LEN_MAX: usize = 64 * 1024;

type Shared = Arc<AdminState>;

/// The routes `/api/v1/clusters/{cluster_id}/cmek`, `/metrics`, `/livez`, `/readyz` and
/// `/openapi.json`.
///
/// They **MUST** be served inside a tokio runtime with a timer. Nothing runs in its blocking
/// threads: operations have threads of their own, and go on when their client leaves; see
/// [`AdminState::wait_for_operations`].
pub fn router(state: impl Into<Arc<AdminState>>) -> Router {
    let state = state.into();
    let api = Router::new()
        .route("/api/v1/clusters/{cluster_id}/cmek", get(show).post(enable).put(update).patch(act))
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(state.clone(), authenticate));
    let mut metrics = Router::new()
        .route("/metrics", get(show_metrics))
        .method_not_allowed_fallback(wrong_method);
    if !state.has_public_metrics() {
        metrics = metrics.layer(from_fn_with_state(state.clone(), authenticate));
    }
    Router::new()
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/openapi.json", get(openapi))
        .merge(api)
        .merge(metrics)
        .method_not_allowed_fallback(wrong_method)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(from_fn_with_state(state.clone(), bound))
        .with_state(state)
}

/// Bounds the time of a request and completes every answer.
async fn bound(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(state.request_time_max(), next.run(request)).await
    {
        Ok(response) => response,
        Err(_) => {
            RpcError::new(Code::DeadlineExceeded, "the request took too long").into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Lets through who shows the token; nobody else learns even which clusters there are.
async fn authenticate(State(state): State<Shared>, request: Request, next: Next) -> Response {
    let mut shown = request.headers().get_all(AUTHORIZATION).into_iter();
    match (shown.next(), shown.next()) {
        (Some(value), None) if state.token().is_shown_by(value.as_bytes()) => {
            next.run(request).await
        }
        _ => RpcError::new(Code::Unauthenticated, "expected the server's bearer token")
            .into_response(),
    }
}

async fn not_found() -> RpcError {
    RpcError::new(Code::NotFound, "there is nothing at this path")
}

async fn wrong_method() -> RpcError {
    RpcError::new(Code::Unimplemented, "the path does not have this method")
        .with_http(StatusCode::METHOD_NOT_ALLOWED)
}

type ClusterId = Result<Path<String>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

async fn show(State(state): State<Shared>, id: ClusterId) -> Result<Json<ClusterInfo>, RpcError> {
    let cluster = find(&state, id)?;
    if cluster.stores.iter().any(|store| store.is_behind()) {
        let looked = cluster.clone();
        let look = cluster.archives.take(move || looked.catch_up());
        // What is known is told even if a disk hangs.
        let _ = tokio::time::timeout(state.answer_within(), look).await;
    }
    Ok(answer(&state, &cluster))
}

async fn enable(
    State(state): State<Shared>,
    id: ClusterId,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ClusterInfo>, RpcError> {
    let cluster = find(&state, id)?;
    let spec: ClusterSpec = parse(&headers, body)?;
    let begin = move |state: &_, cluster: &_| operation::enable(state, cluster, &spec);
    let end = start(&state, &cluster, begin)?;
    finish(&state, &cluster, end).await
}

async fn update(
    State(state): State<Shared>,
    id: ClusterId,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ClusterInfo>, RpcError> {
    let cluster = find(&state, id)?;
    let spec: ClusterSpec = parse(&headers, body)?;
    let begin = move |state: &_, cluster: &_| operation::update(state, cluster, &spec);
    let end = start(&state, &cluster, begin)?;
    finish(&state, &cluster, end).await
}

async fn act(
    State(state): State<Shared>,
    id: ClusterId,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ClusterInfo>, RpcError> {
    let cluster = find(&state, id)?;
    let action = parse::<ActionRequest>(&headers, body)?.action;
    let begin = move |state: &_, cluster: &_| operation::act(state, cluster, action);
    match start(&state, &cluster, begin) {
        // Keys go even so, and this thread of the runtime waits for that.
        Err(_) if action == CustomerAction::Revoke => {
            begin(&state, &cluster)?.run(state.local_uri())?;
            Ok(answer(&state, &cluster))
        }
        end => finish(&state, &cluster, end?).await,
    }
}

fn find(state: &AdminState, id: ClusterId) -> Result<Arc<Cluster>, RpcError> {
    let id = id.map_err(|_| RpcError::invalid("expected a cluster id in UTF-8"))?.0;
    let cluster = state.clusters().get(&id).cloned();
    cluster.ok_or_else(|| RpcError::new(Code::NotFound, "there is no such cluster"))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, RpcError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            RpcError::invalid(format!("expected a body of at most {BODY_LEN_MAX} bytes"))
                .with_http(StatusCode::PAYLOAD_TOO_LARGE)
        }
        _ => RpcError::invalid("the body did not arrive"),
    })?;
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or_default().trim();
    if !media.eq_ignore_ascii_case("application/json") {
        return Err(RpcError::invalid("expected the content type application/json")
            .with_http(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    serde_json::from_slice(&body).map_err(|error| {
        RpcError::invalid(format!("the body is not as expected: {}", told(&error)))
    })
}

/// What was expected, and where. What was found may be a key in the wrong place, and answers are
/// written into logs.
fn told(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(", expected ") {
        Some(at) => text[at + 2..].to_owned(),
        // "missing field" and "duplicate field" name our own fields, errors of syntax nothing.
        None => text,
    }
}

type End = oneshot::Receiver<Result<(), RpcError>>;

/// Runs an operation in a thread of its own, where it goes on without its client.
fn start(
    state: &Shared,
    cluster: &Arc<Cluster>,
    begin: impl FnOnce(&AdminState, &Arc<Cluster>) -> Result<Begun, RpcError> + Send + 'static,
) -> Result<End, RpcError> {
    let (state, cluster) = (state.clone(), cluster.clone());
    let (ended, end) = oneshot::channel();
    // Checks read the disk too.
    let work = move || begin(&state, &cluster)?.run(state.local_uri());
    in_a_thread(move || drop(ended.send(work())))?;
    Ok(end)
}

/// Answers when the operation is done, or when it takes long.
async fn finish(
    state: &AdminState,
    cluster: &Cluster,
    end: End,
) -> Result<Json<ClusterInfo>, RpcError> {
    match tokio::time::timeout(state.answer_within(), end).await {
        Ok(end) => end.unwrap_or_else(|_| Err(RpcError::panicked()))?,
        Err(_elapsed) => {}
    }
    Ok(answer(state, cluster))
}

/// The cluster as it is now, from memory alone.
fn answer(state: &AdminState, cluster: &Cluster) -> Json<ClusterInfo> {
    Json(cluster_info(cluster, state.local_uri()))
}

/// The process answers, and that is all: what keeps a store from serving is not mended by
/// another process.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(state): State<Shared>) -> Result<Response, RpcError> {
    let looked = state.clone();
    let health = state.health.take(move || Health::of(&looked)).await?;
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, format!("{}\n", health.as_str())).into_response())
}

async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn show_metrics(State(state): State<Shared>) -> Result<Response, RpcError> {
    let looked = state.clone();
    let text = state.metrics.take(move || crate::metrics::text(&looked)).await?;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
