//! What a publisher does before the load: opens its conversations, and enters those of others. All of it may be done twice.

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::ClientId;
use rialto_protocol::v1;

use super::plan::Plan;
use crate::wire::connection::{Connection, decode, unexpected};
use crate::wire::lost::Lost;
use crate::wire::walk;

/// Requests that wait for their answers at the same time.
const AT_ONCE: usize = 256;

/// Opens conversations; each under the same client id however often.
pub(super) async fn open(
    connection: &mut Connection,
    plan: &Plan,
    places: &[(usize, ClientId)],
) -> Result<(), Lost> {
    for places in places.chunks(AT_ONCE) {
        for (request_id, (place, client_id)) in (1..).zip(places) {
            let create = v1::Create {
                client_id: client_id.to_proto(),
                ..plan.create(*place)
            };
            connection.put(FrameKind::Create, request_id, &create);
        }
        let mut answers = 0;
        connection
            .until(|frame| match frame.kind {
                FrameKind::CreatedConversation => {
                    answers += 1;
                    Ok(answers == places.len())
                }
                _ => Err(unexpected(frame)),
            })
            .await?;
    }
    Ok(())
}

/// Enters conversations that are open.
pub(super) async fn join(
    connection: &mut Connection,
    plan: &Plan,
    places: &[(usize, ClientId)],
) -> Result<(), Lost> {
    for places in places.chunks(AT_ONCE) {
        for (request_id, (place, client_id)) in (1..).zip(places) {
            let join = v1::Membership {
                action: v1::MembershipAction::Join.into(),
                ..v1::Membership::default()
            };
            let publish = v1::Publish {
                target: Some(v1::publish::Target::Conversation(
                    plan.id(*place).to_proto(),
                )),
                drafts: vec![v1::Draft {
                    client_id: client_id.to_proto(),
                    content: Some(v1::draft::Content::Membership(join)),
                }],
                ..v1::Publish::default()
            };
            connection.put(FrameKind::Publish, request_id, &publish);
        }
        let mut answers = 0;
        connection
            .until(|frame| {
                if frame.kind != FrameKind::Published {
                    return Err(unexpected(frame));
                }
                let mut refusal = None;
                walk::receipts(frame.body, |receipt| {
                    answers += 1;
                    refusal = refusal.or(receipt.error);
                })
                .map_err(|malformed| Lost::Protocol(malformed.to_string()))?;
                match refusal {
                    Some(error) => Err(Lost::Refused(decode(error)?)),
                    None => Ok(answers == places.len()),
                }
            })
            .await?;
    }
    Ok(())
}
