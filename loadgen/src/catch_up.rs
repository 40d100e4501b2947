//! One reader who was away: a channel is filled, then read from its first event to its last, and every message is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, DeviceId, UserId};
use rialto_protocol::v1;
use rialto_sdk::{ClientIds, Roots};
use serde::Serialize;

use crate::counters::Counters;
use crate::progress::Progress;
use crate::target::Target;
use crate::tokens::Tokens;
use crate::wire::connection::{Connection, Identity, PING, Scratch, decode, unexpected};
use crate::wire::dial::Dialer;
use crate::wire::lost::Lost;
use crate::wire::{publish, walk};

/// Messages that wait for acknowledgement while the channel is filled; fewer if the broker takes less.
const IN_FLIGHT: u64 = 500;
/// Bytes of a body at least: the message's number.
pub const BODY_BYTES_MIN: usize = 20;

/// How long a channel, and where.
#[derive(Debug)]
pub struct Options {
    /// The broker.
    pub target: Target,
    /// Tokens of the two users.
    pub tokens: Tokens,
    /// What the broker's certificate is checked against.
    pub roots: Roots,
    /// Messages in the channel.
    pub messages: u64,
    /// Bytes of each.
    pub body_bytes: usize,
    /// How long nothing at all may happen.
    pub patience: Duration,
}

/// The report, as it is written in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where to.
    pub target: String,
    /// Messages that were published, and read again.
    pub messages: u64,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// Until all were acknowledged, seconds.
    pub fill_s: f64,
    /// From the reader's request to the last message, seconds.
    pub read_s: f64,
    /// Messages read a second.
    pub read_per_s: f64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The numbers make no sense.
    #[error("{0}")]
    Options(&'static str),
    /// The broker cannot be reached, refuses, or broke the connection.
    #[error("no connection: {0}")]
    Lost(#[from] Lost),
    /// What was read is not what was published.
    #[error("message {wanted} was to come next, and {got} came")]
    Wrong {
        /// Its number.
        wanted: u64,
        /// What came instead, in words.
        got: String,
    },
    /// Nothing happened any more, though the broker may answer Pings.
    #[error("nothing was acknowledged or delivered for {0:?}: is the broker gone?")]
    Standstill(Duration),
    /// The operating system gave no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// Fills a channel and reads it from its beginning.
///
/// # Errors
/// When the connection fails, a message is refused, the reader gets anything else than what was published, in its order, or
/// nothing more comes.
pub async fn catch_up(options: Options) -> Result<Report, CatchUpError> {
    if options.messages == 0 || options.body_bytes < BODY_BYTES_MIN {
        return Err(CatchUpError::Options(
            "there must be a message, and room in it for its number: 20 bytes",
        ));
    }
    let counters = Arc::new(Counters::default());
    let patience = options.patience;
    tokio::select! {
        report = filled_and_read(&options, &counters) => report,
        () = counters.standstill(patience) => Err(CatchUpError::Standstill(patience)),
    }
}

async fn filled_and_read(
    options: &Options,
    counters: &Arc<Counters>,
) -> Result<Report, CatchUpError> {
    let progress = Progress::show(counters.clone(), options.messages);
    let people = People {
        dialer: Dialer::new(&options.target, &options.roots).await?,
        scratch: Scratch::new(),
        tokens: &options.tokens,
    };
    let mut ids = ClientIds::new(random()?);
    let channel = ConversationId::v7(now_ms(), random()?);

    progress.stage("filling a channel");
    let begun = Instant::now();
    let mut writer = people.connect(0, "writer").await?;
    open(&mut writer, channel, &mut ids).await?;
    fill(&mut writer, channel, &mut ids, options, counters).await?;
    let fill_s = begun.elapsed().as_secs_f64();

    progress.stage("reading it");
    let mut reader = people.connect(1, "reader").await?;
    let begun = Instant::now();
    read(&mut reader, channel, options, counters).await?;
    let read_s = begun.elapsed().as_secs_f64();
    Ok(Report {
        target: options.target.to_string(),
        messages: options.messages,
        body_bytes: options.body_bytes,
        fill_s,
        read_s,
        read_per_s: options.messages as f64 / read_s,
    })
}

/// What both connections are made of.
struct People<'a> {
    dialer: Dialer,
    scratch: Scratch,
    tokens: &'a Tokens,
}

impl People<'_> {
    async fn connect(&self, number: usize, name: &str) -> Result<Connection, CatchUpError> {
        let user = UserId::from_name(&format!("catch-up {name}"));
        let identity = Identity {
            token: self.tokens.of(user),
            device: DeviceId::v4(random()?),
        };
        let opening = Connection::open(&self.dialer, &self.scratch, number, &identity);
        Ok(Box::pin(opening).await?)
    }
}

async fn open(
    writer: &mut Connection,
    channel: ConversationId,
    ids: &mut ClientIds,
) -> Result<(), Lost> {
    let create = v1::Create {
        client_id: ids.next(now_ms()).to_proto(),
        conversation: channel.to_proto(),
        kind: v1::ConversationKind::Channel.into(),
        visibility: v1::Visibility::Public.into(),
        title: "catch-up".to_owned(),
        ..v1::Create::default()
    };
    writer.put(FrameKind::Create, 1, &create);
    writer
        .until(|frame| match frame.kind {
            FrameKind::CreatedConversation => Ok(true),
            _ => Err(unexpected(frame)),
        })
        .await
}

/// Publishes the messages, each a request, with a window of them on the way.
async fn fill(
    writer: &mut Connection,
    channel: ConversationId,
    ids: &mut ClientIds,
    options: &Options,
    counters: &Counters,
) -> Result<(), Lost> {
    let fits = writer.in_flight_bytes_max() / publish::frame_bytes(options.body_bytes);
    let window = IN_FLIGHT.min(fits as u64).max(1);
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < options.messages {
        while sent < options.messages && sent - acknowledged < window {
            let request_id = u32::try_from(sent % (1 << 31)).unwrap_or(0) + 1;
            let id = ids.next(now_ms());
            let text = body(sent, options.body_bytes);
            publish::put(
                &mut writer.out,
                request_id,
                &channel,
                &id,
                text.len(),
                |out| {
                    out.extend_from_slice(text.as_bytes());
                },
            );
            sent += 1;
        }
        let mut answers = 0;
        writer
            .until(|frame| {
                answers += receipts(frame)?;
                Ok(answers > 0)
            })
            .await?;
        acknowledged += answers;
        Counters::add(&counters.published, answers);
    }
    Ok(())
}

/// How many messages a frame acknowledges.
fn receipts(frame: crate::wire::connection::Arrived<'_>) -> Result<u64, Lost> {
    if frame.kind == FrameKind::Error && frame.request_id == PING {
        return Ok(0);
    }
    if frame.kind != FrameKind::Published {
        return Err(unexpected(frame));
    }
    let (mut answers, mut refusal) = (0, None);
    walk::receipts(frame.body, |receipt| {
        answers += 1;
        refusal = refusal.or(receipt.error);
    })
    .map_err(|malformed| Lost::Protocol(malformed.to_string()))?;
    match refusal {
        Some(error) => Err(Lost::Refused(decode(error)?)),
        None => Ok(answers),
    }
}

/// Follows the channel from its beginning until its last message has come.
async fn read(
    reader: &mut Connection,
    channel: ConversationId,
    options: &Options,
    counters: &Counters,
) -> Result<(), CatchUpError> {
    let subscribe = v1::Subscribe {
        subscriptions: vec![v1::Subscription {
            conversation: channel.to_proto(),
            // Nothing has been read.
            cursor: Some(v1::Cursor { epoch: 0, seq: 0 }),
        }],
    };
    reader.put(FrameKind::Subscribe, 1, &subscribe);
    let mut log = Log::default();
    let reading = reader.until(|frame| {
        let before = log.read;
        match frame.kind {
            FrameKind::Deliver => {
                walk::deliver(frame.body, |_, event| {
                    log.take(event.seq, event.message, options.body_bytes);
                })
                .map_err(|malformed| Lost::Protocol(malformed.to_string()))?;
            }
            FrameKind::Subscribed => {
                let subscribed: v1::Subscribed = decode(frame.body)?;
                if let Some(error) = subscribed.results.into_iter().find_map(|one| one.error) {
                    return Err(Lost::Refused(error));
                }
            }
            FrameKind::Error if frame.request_id == PING => {}
            _ => return Err(unexpected(frame)),
        }
        Counters::add(&counters.delivered, log.read - before);
        Ok(log.wrong.is_some() || log.read == options.messages)
    });
    reading.await?;
    match log.wrong {
        Some(got) => Err(CatchUpError::Wrong {
            wanted: log.read,
            got,
        }),
        None => Ok(()),
    }
}

/// What the reader has seen.
#[derive(Debug, Default)]
struct Log {
    /// The last event's place.
    seq: u64,
    /// Messages that came in their order.
    read: u64,
    /// The first thing that was wrong.
    wrong: Option<String>,
}

impl Log {
    fn take(&mut self, seq: u64, message: Option<&[u8]>, body_bytes: usize) {
        if self.wrong.is_some() {
            return;
        }
        if seq != self.seq + 1 {
            self.wrong = Some(format!("seq {seq} after seq {}", self.seq));
            return;
        }
        self.seq = seq;
        let Some(message) = message else { return };
        if message.len() == body_bytes && number(message) == Some(self.read) {
            self.read += 1;
        } else {
            self.wrong = Some(format!("{:?}", String::from_utf8_lossy(message)));
        }
    }
}

/// The text of a message: its number in so many digits.
fn body(number: u64, bytes: usize) -> String {
    format!("{number:0bytes$}")
}

fn number(body: &[u8]) -> Option<u64> {
    let digits = body.last_chunk::<BODY_BYTES_MIN>()?;
    str::from_utf8(digits).ok()?.parse().ok()
}

fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_number() {
        for value in [0, 7, u64::MAX] {
            assert_eq!(number(body(value, 100).as_bytes()), Some(value));
            assert_eq!(body(value, 100).len(), 100);
        }
        assert_eq!(number(b"short"), None);
    }

    #[test]
    fn a_log_in_order_is_counted_and_anything_else_is_noticed() {
        let text = |value| body(value, 40).into_bytes();
        let mut log = Log::default();
        log.take(1, None, 40);
        log.take(2, Some(&text(0)), 40);
        log.take(3, Some(&text(1)), 40);
        assert_eq!((log.read, &log.wrong), (2, &None));
        let wrong: [(u64, Vec<u8>); 4] = [
            (5, text(2)),
            (3, text(2)),
            (4, text(3)),
            (4, body(2, 41).into_bytes()),
        ];
        for (seq, message) in wrong {
            let mut log = Log {
                seq: 3,
                read: 2,
                wrong: None,
            };
            log.take(seq, Some(&message), 40);
            assert!(log.wrong.is_some(), "seq {seq}");
            assert_eq!(log.read, 2);
        }
    }
}
