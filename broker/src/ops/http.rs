//! The HTTP of the operations port: few, small and short connections.

use std::{convert::Infallible, net::Ipv4Addr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue},
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

/// Who can reach the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Programs of this machine.
    Loopback,
    Network,
}

/// Serves for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, known: Known) {
    let address = listener.local_addr();
    let reach = match address.is_ok_and(|address| address.ip().to_canonical().is_loopback()) {
        true => Reach::Loopback,
        false => Reach::Network,
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let known = Arc::clone(&known);
                tokio::spawn(async move {
                    let served = serve_one(stream, known, reach);
                    let _ = tokio::time::timeout(CONNECTION_LASTS, served).await;
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

async fn serve_one(stream: TcpStream, known: Known, reach: Reach) {
    let service = service_fn(move |request: Request<Incoming>| {
        let known = Arc::clone(&known);
        async move {
            let known = known.get().map(AsRef::as_ref);
            Ok::<_, Infallible>(answer(&request, reach, known).await)
        }
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

async fn answer<B>(
    request: &Request<B>,
    reach: Reach,
    known: Option<&Shared>,
) -> Response<Full<Bytes>> {
    let another = request.headers().get_all(HOST).iter().any(names_another);
    if another && reach == Reach::Loopback {
        let text = "ask for an address or localhost\n";
        return response(StatusCode::MISDIRECTED_REQUEST, TEXT, text);
    }
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

/// Whether a name is asked for that somebody else may have made lead here (DNS rebinding): a page in a browser of this machine would
/// be shown what is for operators. Addresses, `localhost` and names without a dot are nobody's to give away.
fn names_another(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return true;
    };
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.starts_with('[') || name.parse::<Ipv4Addr>().is_ok();
    !is_address && name.contains('.') && !name.ends_with(".localhost")
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// What a request for that host is answered while the broker starts.
    fn status(reach: Reach, host: Option<&str>) -> StatusCode {
        let mut request = Request::new(());
        *request.uri_mut() = "/health/live".parse().unwrap();
        if let Some(host) = host {
            request.headers_mut().insert(HOST, host.parse().unwrap());
        }
        answer(&request, reach, None)
            .now_or_never()
            .unwrap()
            .status()
    }

    #[test]
    fn on_loopback_nobody_is_answered_who_asks_for_a_name_of_the_internet() {
        let addresses = ["127.0.0.1:4410", "[::1]:4410"].map(Some);
        let names = ["localhost:4410", "Ops.LOCALHOST.", "rialto"].map(Some);
        for host in addresses.into_iter().chain(names).chain([Some(""), None]) {
            assert_eq!(status(Reach::Loopback, host), StatusCode::OK, "{host:?}");
        }
        for host in ["example.com", "127.0.0.1.example.com.:4410"] {
            let refused = status(Reach::Loopback, Some(host));
            assert_eq!(refused, StatusCode::MISDIRECTED_REQUEST, "{host}");
            assert_eq!(status(Reach::Network, Some(host)), StatusCode::OK);
        }
    }
}
