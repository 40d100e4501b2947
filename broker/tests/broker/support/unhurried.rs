//! A QUIC client that says it acknowledges late, so that the broker keeps its closed connection for long.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use quinn::{
    Side,
    crypto::{ClientConfig, Session, rustls::QuicClientConfig},
};
use quinn_proto::{ConnectError, transport_parameters::TransportParameters};

/// `max_ack_delay` (RFC 9000, section 18.2).
const MAX_ACK_DELAY: u8 = 0x0b;
/// Of a number in two bytes (RFC 9000, section 16).
const TWO_BYTES: u16 = 0x4000;

/// A handshake that announces a delay of so many milliseconds, less than 2^14.
pub(crate) struct Unhurried {
    crypto: Arc<QuicClientConfig>,
    max_ack_delay: Duration,
}

impl Unhurried {
    pub(crate) fn new(crypto: QuicClientConfig, max_ack_delay: Duration) -> Self {
        Self {
            crypto: Arc::new(crypto),
            max_ack_delay,
        }
    }
}

impl ClientConfig for Unhurried {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        let delay_ms = u16::try_from(self.max_ack_delay.as_millis()).unwrap();
        bytes.put_slice(&[MAX_ACK_DELAY, 2]);
        bytes.put_u16(TWO_BYTES | delay_ms);
        let mut bytes = Bytes::from(bytes);
        let params = TransportParameters::read(Side::Server, &mut bytes).unwrap();
        assert!(!bytes.has_remaining());
        Arc::clone(&self.crypto).start_session(version, server_name, &params)
    }
}
