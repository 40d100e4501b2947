//! From nothing to a session: the endpoints in their order, Hello, Welcome.

use std::time::Duration;

use bytes::Bytes;
use rialto_protocol::body;
use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{DeviceId, RequestId, SessionId, UserId};
use rialto_protocol::{limits, v1};
use v1::Capability;

use crate::endpoint::{Endpoint, Transport};
use crate::error::{ConnectError, EndpointFailure, Retry, ServerError, TransportError};
use crate::token::TokenSource;
use crate::transport::{Connected, Connector};
use crate::wire;

/// Longest that an endpoint is tried whose way may be blocked without a word, when there is another one.
const BLOCKED: Duration = Duration::from_secs(3);

/// What every session of a client begins with.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) device: DeviceId,
    pub(crate) sdk_name: String,
    pub(crate) compression: bool,
    pub(crate) connect_timeout: Duration,
}

/// A session that has begun.
pub(crate) struct Welcomed {
    pub(crate) connected: Connected,
    pub(crate) endpoint: Endpoint,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) welcome: v1::Welcome,
    pub(crate) limits: v1::Limits,
}

impl Welcomed {
    /// Whether the server will use catch-up streams.
    pub(crate) fn catch_up_streams(&self) -> bool {
        self.connected.side.exists()
            && self
                .welcome
                .capabilities()
                .any(|one| one == Capability::CatchUpStreams)
    }
}

/// Gets a token and tries each endpoint once, in order, until one accepts or refuses for all. A token that has expired is
/// replaced once.
pub(crate) async fn connect(
    connector: &Connector,
    identity: &Identity,
    tokens: &TokenSource,
    endpoints: &[Endpoint],
) -> Result<Welcomed, ConnectError> {
    let attempt = async || {
        let token = tokens.get(identity.connect_timeout).await;
        let token = token.map_err(ConnectError::Token)?;
        try_all(connector, identity, &token, endpoints).await
    };
    match attempt().await {
        Err(error) if says_expired(&error) && !tokens.is_fixed() => attempt().await,
        other => other,
    }
}

/// Whether a server has refused the token because it has expired.
fn says_expired(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused(error) => error.is(ErrorCode::TokenExpired),
        ConnectError::Unreachable(failures) => failures
            .iter()
            .filter_map(|failure| failure.error.refusal())
            .any(|error| error.is(ErrorCode::TokenExpired)),
        _ => false,
    }
}

async fn try_all(
    connector: &Connector,
    identity: &Identity,
    token: &str,
    endpoints: &[Endpoint],
) -> Result<Welcomed, ConnectError> {
    let mut failures = Vec::new();
    let mut refusal = None;
    for (index, endpoint) in endpoints.iter().enumerate() {
        let last = index + 1 == endpoints.len();
        let mut patience = identity.connect_timeout;
        if endpoint.transport() == Transport::Quic && !last {
            patience = patience.min(BLOCKED);
        }
        let attempt = tokio::time::timeout(patience, begin(connector, identity, token, endpoint));
        let error = match attempt.await {
            Ok(Ok(welcomed)) => return Ok(welcomed),
            Ok(Err(TransportError::Refused(error))) if refuses_everywhere(&error) => {
                return Err(ConnectError::Refused(error));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                TransportError::Timeout(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX))
            }
        };
        tracing::debug!(%endpoint, %error, "endpoint not reached");
        if let TransportError::Refused(error) = &error
            && error.retry() == Retry::Never
        {
            refusal.get_or_insert_with(|| error.clone());
        }
        failures.push(EndpointFailure {
            endpoint: endpoint.clone(),
            error,
        });
    }
    // It is for good where no other endpoint may serve later. Where one may, both are told.
    if let Some(refusal) = refusal
        && failures.iter().all(|failure| failure.error.is_final())
    {
        return Err(ConnectError::Refused(refusal));
    }
    // Of one endpoint alone, its refusal says more than that nothing was reached.
    match <[EndpointFailure; 1]>::try_from(failures) {
        Ok(
            [
                EndpointFailure {
                    error: TransportError::Refused(error),
                    ..
                },
            ],
        ) => Err(ConnectError::Refused(error)),
        Ok([failure]) => Err(ConnectError::Unreachable(vec![failure])),
        Err(failures) => Err(ConnectError::Unreachable(failures)),
    }
}

/// Whether every endpoint would refuse the same. Which tokens it takes, and by which clock, is for each server to say (2xx), and
/// another one may speak the protocol as this client does (1xx).
fn refuses_everywhere(error: &ServerError) -> bool {
    error.retry() == Retry::Never && !(100..300).contains(&error.code())
}

async fn begin(
    connector: &Connector,
    identity: &Identity,
    token: &str,
    endpoint: &Endpoint,
) -> Result<Welcomed, TransportError> {
    let mut connected = connector.connect(endpoint).await?;
    let hello = hello(identity, token, connected.side.exists());
    wire::put_frame(
        &mut connected.writer.out,
        FrameKind::Hello,
        RequestId(1),
        &hello,
    );
    connected.writer.write().await?;
    let frame = loop {
        if let Some(frame) = connected
            .reader
            .next()
            .map_err(|error| TransportError::Protocol(error.to_string()))?
        {
            break frame;
        }
        if connected.reader.read().await? == 0 {
            return Err(TransportError::Closed);
        }
    };
    let malformed = |error: body::BodyError| TransportError::Protocol(error.to_string());
    match frame.kind {
        FrameKind::Welcome => {
            let welcome: v1::Welcome = body::decode(&frame.body).map_err(malformed)?;
            let not_an_id = |_| TransportError::Protocol("Welcome holds no ids".to_owned());
            Ok(Welcomed {
                connected,
                endpoint: endpoint.clone(),
                user: UserId::from_slice(&welcome.user).map_err(not_an_id)?,
                session: SessionId::from_slice(&welcome.session).map_err(not_an_id)?,
                limits: known_limits(welcome.limits),
                welcome,
            })
        }
        FrameKind::Error => Err(TransportError::Refused(
            body::decode::<v1::Error>(&frame.body)
                .map_err(malformed)?
                .into(),
        )),
        other => Err(TransportError::Protocol(format!(
            "{other} instead of Welcome"
        ))),
    }
}

fn hello(identity: &Identity, token: &str, side: bool) -> Bytes {
    let mut capabilities = Vec::new();
    if identity.compression {
        capabilities.push(Capability::Zstd.into());
    }
    if side {
        capabilities.push(Capability::CatchUpStreams.into());
        capabilities.push(Capability::SignalDatagrams.into());
    }
    wire::encode(&v1::Hello {
        token: token.to_owned(),
        device: identity.device.to_proto(),
        sdk: identity.sdk_name.clone(),
        capabilities,
    })
}

/// The limits of the connection; what the server does not name is as by default.
fn known_limits(named: Option<v1::Limits>) -> v1::Limits {
    let or = |value: u32, default: usize| {
        if value == 0 {
            u32::try_from(default).unwrap_or(u32::MAX)
        } else {
            value
        }
    };
    let named = named.unwrap_or_default();
    v1::Limits {
        frame_bytes_max: or(named.frame_bytes_max, limits::FRAME_BYTES_MAX_DEFAULT),
        body_bytes_max: or(named.body_bytes_max, limits::BODY_BYTES_MAX_DEFAULT),
        in_flight_bytes_max: or(named.in_flight_bytes_max, limits::FRAME_BYTES_MAX_CEILING),
        subscriptions_max: or(
            named.subscriptions_max,
            limits::SUBSCRIPTIONS_PER_REQUEST_MAX,
        ),
        drafts_max: or(named.drafts_max, limits::DRAFTS_MAX),
        ..named
    }
}
