//! What a user's devices appended to a conversation. Places tell which of them have the newest events; only what these said is read.

use std::{cmp::Reverse, ops::Range, sync::Arc};

use rialto_protocol::{event::EventHead, ids::UserId};

use super::{
    check::Checksums,
    chunk::{Chunk, EventPlace},
    open::OpenSender,
    peek,
    read::{Located, read_one},
};
use crate::{
    embedded::log::Segment,
    views::{SENT_DEVICES_MAX, Sent, SentDevices, ViewsError},
};

/// What may be the user's.
#[derive(Default)]
pub(super) struct Senders {
    /// With the segment of each chunk.
    pub(super) frozen: Vec<(Arc<Segment>, Arc<Chunk>, Range<usize>)>,
    pub(super) open: Option<(Arc<Segment>, Vec<OpenSender>)>,
}

/// What a device appended in a part of a segment.
struct Sender<'s> {
    segment: &'s Arc<Segment>,
    /// Hash of conversation, user and device.
    device: u32,
    /// Its last event.
    last: &'s EventPlace,
    /// The event with its greatest client id.
    newest: &'s EventPlace,
}

impl Senders {
    fn of(&self, conversation: u64) -> Vec<Sender<'_>> {
        let frozen = self.frozen.iter().flat_map(|(segment, chunk, range)| {
            chunk.senders[range.clone()]
                .iter()
                .map(move |sender| Sender {
                    segment,
                    device: sender.device,
                    last: &chunk.events[usize::from(sender.last)],
                    newest: &chunk.events[usize::from(sender.newest)],
                })
        });
        let open = self.open.iter().flat_map(|(segment, senders)| {
            senders.iter().map(move |sender| Sender {
                segment,
                device: sender.device,
                last: &sender.last,
                newest: &sender.newest,
            })
        });
        // A user's hash may be that of another one, in another conversation.
        frozen
            .chain(open)
            .filter(|sender| sender.last.conversation() == conversation)
            .collect()
    }

    /// Reads what the devices with the newest events said.
    ///
    /// # Errors
    /// [`ViewsError`] when an event cannot be read.
    pub(super) fn read(
        &self,
        conversation: u64,
        user: &UserId,
        checksums: Checksums,
    ) -> Result<SentDevices, ViewsError> {
        let mut senders = self.of(conversation);
        // Those of a device together, the last one first.
        senders.sort_unstable_by_key(|sender| (sender.device, Reverse(sender.last.seq())));
        let devices = senders.chunk_by(|a, b| a.device == b.device);
        let mut devices: Vec<&[Sender<'_>]> = devices.collect();
        devices.sort_unstable_by_key(|senders| Reverse(senders[0].last.seq()));
        let mut sent = SentDevices::default();
        for senders in devices {
            if sent.devices.len() >= SENT_DEVICES_MAX {
                sent.more = true;
                break;
            }
            for sender in senders {
                read_sender(sender, user, checksums, &mut sent.devices)?;
            }
        }
        sent.cut();
        Ok(sent)
    }
}

/// Joins it to what the device said after it. Hashes may be another device's too, and another user's.
fn read_sender(
    sender: &Sender<'_>,
    user: &UserId,
    checksums: Checksums,
    devices: &mut Vec<Sent>,
) -> Result<(), ViewsError> {
    let head = |place: &EventPlace| -> Result<EventHead, ViewsError> {
        let located = Located::new(sender.segment, place);
        peek(&read_one(&located, checksums)?)
    };
    let newest = head(sender.newest)?;
    if newest.sender != *user {
        return Ok(());
    }
    if let Some(sent) = devices.iter_mut().find(|sent| sent.device == newest.device) {
        sent.newest = sent.newest.max(newest.client_id);
        return Ok(());
    }
    let last = if sender.last.offset == sender.newest.offset {
        newest
    } else {
        head(sender.last)?
    };
    devices.push(Sent {
        device: last.device,
        newest: newest.client_id,
        seq: last.seq,
        ordinal: last.ordinal,
    });
    Ok(())
}
