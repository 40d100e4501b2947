//! Accepting TCP connections; plain ones are served at once.

use std::{io, net::SocketAddr, os::fd::AsRawFd, rc::Rc, time::Duration};

use rialto_core::{advice::retry_hint_ms, io::Transport};
use rialto_protocol::{error::ErrorCode, frame, ids::RequestId};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::{connection::Connection, pace::Pace, socket::Plain};
use crate::{
    admission::{Permit, Stranger},
    shard::{
        engine::Engine,
        figures::{Carrier, Stage},
    },
};

/// First and longest pause after the system had no descriptor or memory for a connection.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// What the kernel keeps of a connection's frames before it has sent them. The rest waits with the shard, where it counts.
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// What a client learns for which there is no room.
const REFUSAL: ErrorCode = ErrorCode::TooManyConnections;

/// Accepts and serves plain connections for as long as it is polled.
pub(crate) async fn serve(engine: Rc<Engine>, listener: TcpListener) {
    let mut pace = Pace::default();
    loop {
        let (stream, admitted) = accept(&engine, &listener, &mut pace, |stream| {
            // As much as the socket takes at once: nobody waits for a client that was refused.
            let _ = stream.try_write(&frame::error(
                RequestId::PUSH,
                REFUSAL,
                retry_hint_ms(REFUSAL),
            ));
        })
        .await;
        let registration = engine.open(Carrier::Tcp, admitted, Transport::default(), None);
        tokio::task::spawn_local(Connection::new(registration, Plain::new(stream)));
    }
}

/// The next connection that may be had. One that may not is given to `refuse` and closed.
pub(super) async fn accept(
    engine: &Rc<Engine>,
    listener: &TcpListener,
    pace: &mut Pace,
    refuse: impl Fn(&TcpStream),
) -> (TcpStream, (Permit, Stranger)) {
    let mut pause = PAUSE.0;
    loop {
        pace.keep().await;
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = PAUSE.0;
                match admit(engine, &stream, address) {
                    Some(admitted) => return (stream, admitted),
                    None => refuse(&stream),
                }
            }
            // The client left before it was accepted.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                engine.count_accept_error();
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

fn admit(
    engine: &Rc<Engine>,
    stream: &TcpStream,
    address: SocketAddr,
) -> Option<(Permit, Stranger)> {
    let descriptors_max = engine.node().config.descriptors_max;
    if usize::try_from(stream.as_raw_fd()).is_ok_and(|number| number >= descriptors_max) {
        engine.shed(Stage::Accept, "files");
        return None;
    }
    let permit = match engine.admission().admit(address.ip()) {
        Ok(permit) => permit,
        Err(refusal) => {
            engine.shed(Stage::Accept, refusal.reason());
            return None;
        }
    };
    if let Err(error) = set_up(stream) {
        tracing::debug!(%error, "a socket could not be set up");
        engine.shed(Stage::Accept, "socket");
        return None;
    }
    Some((permit, engine.admit_stranger(address.ip())?))
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    // Frames are gathered before they are written: waiting for more would only delay them.
    stream.set_nodelay(true)?;
    // Without this bound the kernel keeps up to 4 MiB for a client that does not read.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    Ok(())
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
