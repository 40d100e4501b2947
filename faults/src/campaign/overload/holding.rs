//! Attacks that hold what the broker gave them: handshakes, records and frames that are begun and never end.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rialto_protocol::frame::{self, FrameKind};
use rialto_protocol::ids::{ConversationId, RequestId};
use rialto_protocol::limits::FRAME_BYTES_MAX_DEFAULT;
use rialto_sdk::Roots;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::line::{self, Caller, Hearing, Line};
use super::site::Site;

/// A record that announces 512 bytes of ClientHello (RFC 8446, sections 4 and 5.1), and the beginning of it.
const CLIENT_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
/// Between two bytes of a handshake.
const SLOWLY: Duration = Duration::from_secs(1);
/// Between two bytes of a frame.
const DRIBBLE: Duration = Duration::from_millis(20);
/// What has come of a frame of 256 KiB.
const BEGUN_BYTES: usize = 200 << 10;
/// Bytes of a record behind its header at most, without what encryption adds, and what has come of one (RFC 8446, section 5.1).
const RECORD_BYTES: u16 = 16 << 10;
const BEGUN_RECORD_BYTES: usize = 15 << 10;
const HEADER_BYTES: usize = 5;
/// Kinds of records.
const HANDSHAKE: u8 = 22;
const CONTENT: u8 = 23;

/// A third says nothing, a third a byte a second, a third is stuck in a TLS handshake.
pub(super) async fn slow_handshakes(site: &Rc<Site>) {
    site.each(|site, number| async move {
        let hello = line::hello(Line::user(number), Caller::User);
        let (port, at_once, later) = match number % 3 {
            0 => (site.ports.tcp, &[][..], &[][..]),
            1 => (site.ports.tcp, &[][..], &hello[..]),
            _ => (site.ports.tls, &CLIENT_HELLO[..], &[0; 500][..]),
        };
        loop {
            let opened = {
                let _turn = site.opening.acquire().await;
                line::open(&site, port, number, Hearing::Usual).await
            };
            if let Ok(mut stream) = opened
                && stream.write_all(at_once).await.is_ok()
            {
                dribble(&mut stream, later, SLOWLY).await;
            }
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// A frame, byte by byte.
pub(super) async fn slow_senders(site: &Rc<Site>) {
    site.each(|site, number| async move {
        loop {
            let mut line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
            let frame = line::publish(ConversationId::of_self(line.user), 2, 20_000);
            dribble(&mut line.stream, &frame, DRIBBLE).await;
            line::turned_away(&site).await;
        }
    })
    .await;
}

/// Most of a frame of 256 KiB, and nothing more.
pub(super) async fn begun_frames(site: &Rc<Site>) {
    let begun = begun_frame();
    site.each(|site, number| {
        let begun = begun.clone();
        async move {
            loop {
                let mut line = Line::enter(&site, number, Caller::User, Hearing::Usual).await;
                if line.send(&begun).await.is_ok() {
                    dribble(&mut line.stream, &[], SLOWLY).await;
                }
                line::turned_away(&site).await;
            }
        }
    })
    .await;
}

/// Most of a frame of 256 KiB.
pub(super) fn begun_frame() -> Bytes {
    let whole = frame::wrap(
        FrameKind::Publish,
        RequestId(2),
        &vec![0; FRAME_BYTES_MAX_DEFAULT - 64],
    );
    whole.slice(..BEGUN_BYTES)
}

/// Over TLS, in half of the cases as much of a ClientHello as is kept, and nothing more; in the other half most of a record of a
/// session.
pub(super) async fn begun_records(site: &Rc<Site>) {
    let config = match Roots::InsecureLoopbackOnly.client_config() {
        Ok(config) => config,
        Err(error) => return site.tally.fail(format!("no TLS: {error}")),
    };
    let connector = TlsConnector::from(config);
    site.each(|site, number| {
        let connector = connector.clone();
        async move {
            loop {
                let stranger = number.is_multiple_of(2);
                let mut stream = line::until_in(&site, async || {
                    let stream = line::open(&site, site.ports.tls, number, Hearing::Usual).await?;
                    if stranger {
                        Ok(stream)
                    } else {
                        session(&connector, stream, number).await
                    }
                })
                .await;
                let begun = if stranger {
                    client_hello()
                } else {
                    record(CONTENT, &[], BEGUN_RECORD_BYTES)
                };
                if stream.write_all(&begun).await.is_ok() {
                    dribble(&mut stream, &[], SLOWLY).await;
                }
                line::turned_away(&site).await;
            }
        }
    })
    .await;
}

/// What a session over TLS goes on from.
async fn session(
    connector: &TlsConnector,
    stream: TcpStream,
    number: usize,
) -> io::Result<TcpStream> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut stream = connector.connect(name, stream).await?;
    line::greet(&mut stream, Line::user(number), Caller::User).await?;
    let (stream, _) = stream.into_inner();
    Ok(stream)
}

/// A record of the greatest length, of this kind and with this beginning, as far as that (RFC 8446, section 5.1).
fn record(kind: u8, beginning: &[u8], bytes: usize) -> Vec<u8> {
    let [high, low] = RECORD_BYTES.to_be_bytes();
    let mut record = vec![kind, 3, 3, high, low];
    record.extend(beginning);
    record.resize(HEADER_BYTES + bytes, 0);
    record
}

/// A whole record and most of the next one, of a message that would have more than those two (RFC 8446, section 4).
fn client_hello() -> Vec<u8> {
    let [high, low] = (RECORD_BYTES * 3).to_be_bytes();
    let mut begun = record(HANDSHAKE, &[1, 0, high, low], RECORD_BYTES.into());
    begun.extend(record(HANDSHAKE, &[], BEGUN_RECORD_BYTES));
    begun
}

/// One byte after the other, then silence, until the broker ends it.
async fn dribble(stream: &mut TcpStream, bytes: &[u8], pause: Duration) {
    let (mut read, mut write) = stream.split();
    let speak = async {
        for byte in bytes {
            sleep(pause).await;
            if write.write_all(std::slice::from_ref(byte)).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut heard = [0; 512];
    let hear = async { while read.read(&mut heard).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = speak => {}
        () = hear => {}
    }
}
