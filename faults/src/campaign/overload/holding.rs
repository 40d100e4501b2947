//! Attacks that hold what the broker gave them: handshakes and frames that are begun and never end.

use std::rc::Rc;
use std::time::Duration;

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::ConversationId;
use rialto_protocol::limits::FRAME_BYTES_MAX_DEFAULT;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

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
    let whole = rialto_protocol::frame::wrap(
        FrameKind::Publish,
        rialto_protocol::ids::RequestId(2),
        &vec![0; FRAME_BYTES_MAX_DEFAULT - 64],
    );
    site.each(|site, number| {
        let begun = whole.slice(..BEGUN_BYTES);
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
