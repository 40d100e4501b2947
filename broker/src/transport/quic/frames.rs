//! What a packet of a QUIC client may hold. quinn deals with its frames one by one, as soon as it comes and whoever sent it, and a
//! datagram has room for very many: pieces of a byte of a stream, which are there already, have quinn sort all pieces of it anew for
//! every 23 (1.5 ms a datagram, and 25 ms of a long one of this machine); a byte that asks for nothing is 30 ns (40 µs); and two bytes
//! that let go of a connection id make 64 that the endpoint is told. A client that means well has a few in each.
//!
//! quinn decrypts packets by keys that it is given. These look at what a packet holds before quinn does; where it is too much,
//! quinn reads that the client has closed the connection.

use std::{any::Any, sync::Arc};

use bytes::BytesMut;
use quinn::{
    ConnectionId, Side,
    crypto::{
        CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig,
        Session, UnsupportedVersion,
    },
};
use quinn_proto::{TransportError, transport_parameters::TransportParameters};

/// Frames of all kinds, without padding: the SDK may have room made on 128 streams at once.
const FRAMES_MAX: usize = 256;
/// Pieces of streams. A client has one: more than one or two of them were lost before, each in a packet of its own.
const PIECES_MAX: usize = 16;
/// Pieces of handshakes, which some cut up on purpose so that nobody on the way reads them.
const HANDSHAKE_PIECES_MAX: usize = 16;
/// Connection ids that come or go: there are eight at a time.
const IDS_MAX: usize = 16;
/// Ranges of packets that are acknowledged.
const RANGES_MAX: u64 = 256;

/// A client's end of a connection, for a violation of the protocol (RFC 9000, sections 19.19 and 20.1).
const CLOSE: [u8; 4] = [0x1c, 0x0a, 0, 0];

/// Settings of TLS whose keys look at what packets hold.
pub(super) struct Looking(Arc<dyn ServerConfig>);

impl Looking {
    pub(super) fn over(settings: Arc<dyn ServerConfig>) -> Arc<Self> {
        Arc::new(Self(settings))
    }
}

impl ServerConfig for Looking {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid).map(looking)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let session = Arc::clone(&self.0).start_session(version, params);
        Box::new(LookingSession(session))
    }
}

/// One connection's.
struct LookingSession(Box<dyn Session>);

impl Session for LookingSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        looking(self.0.initial_keys(dst_cid, side))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let (header, packet) = self.0.early_crypto()?;
        Some((header, Box::new(LookingKey(packet))))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.0.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.0.write_handshake(buf).map(looking)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys().map(looking_pair)
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}

fn looking(keys: Keys) -> Keys {
    Keys {
        header: keys.header,
        packet: looking_pair(keys.packet),
    }
}

fn looking_pair(pair: KeyPair<Box<dyn PacketKey>>) -> KeyPair<Box<dyn PacketKey>> {
    KeyPair {
        local: pair.local,
        remote: Box::new(LookingKey(pair.remote)),
    }
}

/// Decrypts what the client has sent.
struct LookingKey(Box<dyn PacketKey>);

impl PacketKey for LookingKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.0.encrypt(packet, buf, header_len);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.0.decrypt(packet, header, payload)?;
        if holds_too_much(payload) {
            tracing::debug!("a packet holds too many frames");
            payload.clear();
            payload.extend_from_slice(&CLOSE);
        }
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

/// Whether a packet holds too much, as far as it can be read: the rest is for quinn to judge, which reads no further either.
fn holds_too_much(payload: &[u8]) -> bool {
    let (mut rest, mut held) = (Rest(payload), Held::default());
    loop {
        let is_read = held.take(&mut rest).is_some();
        if held.is_too_much() {
            return true;
        }
        if !is_read || rest.0.is_empty() {
            return false;
        }
    }
}

/// What was found in a packet.
#[derive(Debug, Default)]
struct Held {
    frames: usize,
    pieces: usize,
    handshake_pieces: usize,
    ids: usize,
    ranges: u64,
}

impl Held {
    fn is_too_much(&self) -> bool {
        self.frames > FRAMES_MAX
            || self.pieces > PIECES_MAX
            || self.handshake_pieces > HANDSHAKE_PIECES_MAX
            || self.ids > IDS_MAX
            || self.ranges > RANGES_MAX
    }

    /// Takes in the next frame (RFC 9000, section 19; RFC 9221, section 4; draft-ietf-quic-ack-frequency). `None`: it is none, or has
    /// no end.
    fn take(&mut self, rest: &mut Rest<'_>) -> Option<()> {
        let kind = rest.number()?;
        if kind == 0x00 {
            rest.skip_padding();
            return Some(());
        }
        self.frames += 1;
        match kind {
            // PING, HANDSHAKE_DONE, IMMEDIATE_ACK
            0x01 | 0x1e | 0x1f => Some(()),
            // ACK
            0x02 | 0x03 => {
                rest.numbers(2)?;
                let ranges = rest.number()?;
                self.ranges = self.ranges.saturating_add(ranges);
                let counts = if kind == 0x03 { 3 } else { 0 };
                rest.numbers(ranges.saturating_mul(2).saturating_add(1 + counts))
            }
            // RESET_STREAM
            0x04 => rest.numbers(3),
            // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED
            0x05 | 0x11 | 0x15 => rest.numbers(2),
            // CRYPTO
            0x06 => {
                self.handshake_pieces += 1;
                rest.numbers(1)?;
                rest.skip_text()
            }
            // NEW_TOKEN, DATAGRAM with its length
            0x07 | 0x31 => rest.skip_text(),
            // STREAM: bits say whether it has an offset and a length.
            0x08..=0x0f => {
                self.pieces += 1;
                rest.numbers(if kind & 0x04 == 0 { 1 } else { 2 })?;
                if kind & 0x02 == 0 {
                    rest.skip_all();
                    Some(())
                } else {
                    rest.skip_text()
                }
            }
            // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED
            0x10 | 0x12..=0x14 | 0x16 | 0x17 => rest.numbers(1),
            // NEW_CONNECTION_ID: its id and a token
            0x18 => {
                self.ids += 1;
                rest.numbers(2)?;
                let id = rest.byte()?;
                rest.skip(u64::from(id) + 16)
            }
            // RETIRE_CONNECTION_ID
            0x19 => {
                self.ids += 1;
                rest.numbers(1)
            }
            // PATH_CHALLENGE, PATH_RESPONSE
            0x1a | 0x1b => rest.skip(8),
            // CONNECTION_CLOSE, of the transport and of the application
            0x1c | 0x1d => {
                rest.numbers(if kind == 0x1c { 2 } else { 1 })?;
                rest.skip_text()
            }
            // DATAGRAM up to the end
            0x30 => {
                rest.skip_all();
                Some(())
            }
            // ACK_FREQUENCY
            0xaf => rest.numbers(4),
            _ => None,
        }
    }
}

/// What is left of a packet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// RFC 9000, section 16.
    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        let more = (1 << (first >> 6)) - 1;
        let (bytes, rest) = self.0.split_at_checked(more)?;
        self.0 = rest;
        let first = u64::from(first & 0x3f);
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(bytes.iter().fold(first, add))
    }

    fn numbers(&mut self, count: u64) -> Option<()> {
        for _ in 0..count {
            self.number()?;
        }
        Some(())
    }

    fn skip(&mut self, bytes: u64) -> Option<()> {
        let bytes = usize::try_from(bytes).ok()?;
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Bytes after their length.
    fn skip_text(&mut self) -> Option<()> {
        let bytes = self.number()?;
        self.skip(bytes)
    }

    fn skip_padding(&mut self) {
        let end = self.0.iter().position(|byte| *byte != 0);
        self.0 = end.map_or(&[], |end| &self.0[end..]);
    }

    fn skip_all(&mut self) {
        self.0 = &[];
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

    use quinn::{
        ConnectionError,
        crypto::{
            ClientConfig,
            rustls::{QuicClientConfig, QuicServerConfig},
        },
    };
    use quinn_proto::ConnectError;
    use rustls_pki_types::PrivateKeyDer;

    use super::{super::tests::paired, *};

    /// So many of one frame, and another behind them.
    fn packet(frame: &[u8], count: usize) -> Vec<u8> {
        let mut packet = frame.repeat(count);
        packet.extend_from_slice(&[0x00, 0x00, 0x01]);
        packet
    }

    #[test]
    fn a_packet_holds_so_much_of_each_kind_and_no_more() {
        let of_stream: &[u8] = &[0x0e, 0x00, 0x42, 0x00, 0x01, b'?'];
        let of_handshake: &[u8] = &[0x06, 0x02, 0x01, b'?'];
        let mut new_id = vec![0x18, 0x01, 0x00, 0x08];
        new_id.extend_from_slice(&[7; 24]);
        for (frame, count) in [
            (of_stream, PIECES_MAX),
            (of_handshake, HANDSHAKE_PIECES_MAX),
            (&[0x19, 0x00], IDS_MAX),
            (&new_id, IDS_MAX),
            (&[0x01], FRAMES_MAX - 1),
            (&[0x11, 0x03, 0x80, 0, 0x10, 0], FRAMES_MAX - 1),
            (&[0x1a, 1, 2, 3, 4, 5, 6, 7, 8], FRAMES_MAX - 1),
            (&[0x40, 0xaf, 0, 1, 2, 3], FRAMES_MAX - 1),
        ] {
            assert!(!holds_too_much(&packet(frame, count)), "{frame:?}");
            assert!(holds_too_much(&packet(frame, count + 1)), "{frame:?}");
        }
    }

    #[test]
    fn ranges_that_are_acknowledged_count_and_padding_does_not() {
        let ack = |ranges: u8| {
            let mut ack = vec![0x02, 0x7f, 0xff, 0x00, 0x40, ranges, 0x00];
            ack.extend([0, 0].repeat(ranges.into()));
            ack
        };
        assert!(!holds_too_much(&packet(&ack(200), 1)));
        assert!(holds_too_much(&packet(&ack(200), 2)));
        assert!(!holds_too_much(&[0; 6_000]));
        let to_the_end = [[0x08, 0x00].as_slice(), &[0x01; 1_000]].concat();
        assert!(!holds_too_much(&to_the_end));
    }

    #[test]
    fn whatever_comes_it_is_read_no_further_than_it_goes() {
        for first in 0..=u8::MAX {
            for len in 0..40 {
                let mut packet = vec![0xff; len];
                packet.insert(0, first);
                let _ = holds_too_much(&packet);
                packet[1..].fill(0x3f);
                let _ = holds_too_much(&packet);
            }
        }
        assert!(!holds_too_much(&[]));
        // What follows something that is no frame is not read by quinn either.
        assert!(!holds_too_much(&[&[0x20][..], &[0x19; 100]].concat()));
    }

    /// A client whose packets hold something else than it wants to say, once it is told to.
    struct Hostile {
        crypto: Arc<QuicClientConfig>,
        says: Arc<AtomicBool>,
    }

    impl ClientConfig for Hostile {
        fn start_session(
            self: Arc<Self>,
            version: u32,
            server_name: &str,
            params: &TransportParameters,
        ) -> Result<Box<dyn Session>, ConnectError> {
            let crypto = Arc::clone(&self.crypto);
            Ok(Box::new(HostileSession {
                session: crypto.start_session(version, server_name, params)?,
                says: Arc::clone(&self.says),
                keys: AtomicUsize::new(0),
            }))
        }
    }

    struct HostileSession {
        session: Box<dyn Session>,
        says: Arc<AtomicBool>,
        /// Those of the handshake are the first.
        keys: AtomicUsize,
    }

    impl Session for HostileSession {
        fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
            self.session.initial_keys(dst_cid, side)
        }

        fn handshake_data(&self) -> Option<Box<dyn Any>> {
            self.session.handshake_data()
        }

        fn peer_identity(&self) -> Option<Box<dyn Any>> {
            self.session.peer_identity()
        }

        fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
            self.session.early_crypto()
        }

        fn early_data_accepted(&self) -> Option<bool> {
            self.session.early_data_accepted()
        }

        fn is_handshaking(&self) -> bool {
            self.session.is_handshaking()
        }

        fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
            self.session.read_handshake(buf)
        }

        fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
            self.session.transport_parameters()
        }

        fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
            let keys = self.session.write_handshake(buf)?;
            if self.keys.fetch_add(1, Relaxed) == 0 {
                return Some(keys);
            }
            let says = Arc::clone(&self.says);
            let key = keys.packet.local;
            Some(Keys {
                header: keys.header,
                packet: KeyPair {
                    local: Box::new(HostileKey { key, says }),
                    remote: keys.packet.remote,
                },
            })
        }

        fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
            self.session.next_1rtt_keys()
        }

        fn is_valid_retry(&self, cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
            self.session.is_valid_retry(cid, header, payload)
        }

        fn export_keying_material(
            &self,
            output: &mut [u8],
            label: &[u8],
            context: &[u8],
        ) -> Result<(), ExportKeyingMaterialError> {
            self.session.export_keying_material(output, label, context)
        }
    }

    struct HostileKey {
        key: Box<dyn PacketKey>,
        says: Arc<AtomicBool>,
    }

    impl PacketKey for HostileKey {
        fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
            if self.says.load(Relaxed) {
                let end = buf.len() - self.key.tag_len();
                for frame in buf[header_len..end].chunks_exact_mut(2) {
                    frame.copy_from_slice(&[0x19, 0x00]);
                }
            }
            self.key.encrypt(packet, buf, header_len);
        }

        fn decrypt(&self, _: u64, _: &[u8], _: &mut BytesMut) -> Result<(), CryptoError> {
            Err(CryptoError)
        }

        fn tag_len(&self) -> usize {
            self.key.tag_len()
        }

        fn confidentiality_limit(&self) -> u64 {
            self.key.confidentiality_limit()
        }

        fn integrity_limit(&self) -> u64 {
            self.key.integrity_limit()
        }
    }

    #[tokio::test]
    async fn who_sends_a_packet_full_of_frames_is_taken_to_have_closed_the_connection() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let tls = Arc::new(QuicServerConfig::try_from(tls).unwrap());
        let server = quinn::ServerConfig::with_crypto(Looking::over(tls));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let says = Arc::new(AtomicBool::new(false));
        let hostile = Hostile {
            crypto: Arc::new(QuicClientConfig::try_from(tls).unwrap()),
            says: Arc::clone(&says),
        };
        let config = quinn::ClientConfig::new(Arc::new(hostile));
        let (connected, connection) = paired(server, config).await;
        let (mut sending, _receiving) = connected.open_bi().await.unwrap();
        sending.write_all(&[7; 1_000]).await.unwrap();
        let (_send, mut recv) = connection.accept_bi().await.unwrap();
        recv.read_exact(&mut [0; 1_000]).await.unwrap();
        says.store(true, Relaxed);
        sending.write_all(&[7; 1_000]).await.unwrap();
        let closed = connection.closed().await;
        assert!(
            matches!(closed, ConnectionError::ConnectionClosed(_)),
            "{closed}"
        );
        assert_eq!(connection.stats().frame_rx.retire_connection_id, 0);
    }
}
