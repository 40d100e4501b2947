//! The HTTP of the operations port: few, small and short connections.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{Known, Shared, Status, metrics};

/// Connections at once; others wait to be accepted.
const CONNECTIONS_MAX: usize = 32;
/// How long one may last, all its requests together.
const CONNECTION_LASTS: Duration = Duration::from_secs(60);
/// How long a request's head may take.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of a request's head, and the least that hyper allows.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Pause after the system had no descriptor for a connection.
const PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, known: Known) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let known = Arc::clone(&known);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(CONNECTION_LASTS, serve_one(stream, known)).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the operations port");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, known: Known) {
    let service = service_fn(move |request: Request<Incoming>| {
        let known = Arc::clone(&known);
        async move { Ok::<_, Infallible>(answer(&request, known.get().map(AsRef::as_ref)).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the operations port failed");
    }
}

async fn answer(request: &Request<Incoming>, known: Option<&Shared>) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
    }
    let path = request.uri().path();
    let Some(shared) = known else {
        return answer_without_store(path);
    };
    match path {
        "/metrics" => match metrics::text(shared.figures().await) {
            Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
            Err(error) => failed(&error),
        },
        "/status" => match serde_json::to_vec(&Status::of(shared).await) {
            Ok(json) => response(StatusCode::OK, JSON, json),
            Err(error) => failed(&error),
        },
        "/health/live" => {
            health(shared.node().fate.reason().is_none() && shards_answer(shared).await)
        }
        "/health/ready" => health(shared.is_ready()),
        _ => not_found(),
    }
}

/// While the store is opened, which takes minutes after some kills: that is no reason to kill the process again.
fn answer_without_store(path: &str) -> Response<Full<Bytes>> {
    match path {
        "/health/live" => health(true),
        "/metrics" | "/status" | "/health/ready" => {
            response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "starting\n")
        }
        _ => not_found(),
    }
}

fn not_found() -> Response<Full<Bytes>> {
    response(
        StatusCode::NOT_FOUND,
        TEXT,
        "try /metrics, /status, /health/live or /health/ready\n",
    )
}

/// While they start they cannot, and that is no reason to kill the process.
async fn shards_answer(shared: &Shared) -> bool {
    shared.phase() == super::Phase::Starting || shared.figures().await.complete
}

fn health(well: bool) -> Response<Full<Bytes>> {
    if well {
        response(StatusCode::OK, TEXT, "ok\n")
    } else {
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not now\n")
    }
}

fn failed(error: &dyn std::error::Error) -> Response<Full<Bytes>> {
    tracing::error!(%error, "the operations port has no answer");
    response(
        StatusCode::INTERNAL_SERVER_ERROR,
        TEXT,
        "no answer; the log says why\n",
    )
}

fn response(
    status: StatusCode,
    content: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
