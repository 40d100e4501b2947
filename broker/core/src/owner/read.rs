//! Reading: history, catch-up, descriptions and lists. A reader is judged before the read and once more after it.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind, HEADER_BYTES},
    ids::{ConversationId, Cursor, Epoch, RequestId, Seq, UserId},
    record::Table,
    v1::{self, MemberState},
};

use crate::{
    advice::{read_failure, retry_hint_ms},
    effects::Effects,
    io::{Answer, ConnId, Query},
    message::{Message, Origin, ToEdge, ToOwner},
    topology::ShardId,
};

use super::{
    conversation::Conversation,
    describe::{Viewer, describe},
    desk::{Desk, Stop},
    entry::Waiting,
    page::{continued, page_down, page_up, seq_of},
    rules,
    work::{Load, Need, Work},
};

/// What a page holds beside its events, with room to spare.
const PAGE_OVERHEAD_BYTES: usize = HEADER_BYTES + 64;

/// A read that is the answer itself.
#[derive(Debug)]
pub(super) enum ReadJob {
    CatchUp {
        edge: ShardId,
        conn: ConnId,
        user: UserId,
        from: Seq,
        /// The first that was asked for.
        first: Seq,
        verify: Option<Epoch>,
        budget: usize,
    },
    History {
        origin: Origin,
        user: UserId,
        backward: bool,
        /// First and last that were asked for.
        range: (Seq, Seq),
        end: Seq,
        oldest: Seq,
        head: Cursor,
        budget: usize,
    },
    Members {
        origin: Origin,
        viewer: Viewer,
        limit: usize,
    },
    Conversations {
        origin: Origin,
        limit: usize,
    },
}

impl Desk {
    /// Judges a reader, and reads.
    pub(super) fn read(
        &mut self,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let user = work.user();
        let (profile, member) = conversation.parties(&user)?;
        let may_read = rules::may_read(profile, member);
        match &work.ask {
            ToOwner::Describe { origin, .. } => {
                // Whoever is invited may see into what.
                if member.row.state() != MemberState::Invited {
                    may_read?;
                }
                self.require_oldest(conversation)?;
                let body = describe(conversation, &user)?;
                self.answer(conversation, *origin, FrameKind::Description, &body, fx);
            }
            ToOwner::CatchUp { .. } => {
                may_read?;
                self.require_oldest(conversation)?;
                self.catch_up(conversation, work, fx);
            }
            ToOwner::History { .. } => {
                may_read?;
                self.require_oldest(conversation)?;
                self.history(conversation, work, fx);
            }
            ToOwner::Members {
                origin,
                user,
                after,
                limit,
                ..
            } => {
                may_read?;
                let viewer = Viewer::new(*user, profile, member);
                let after = after.map_or_else(Bytes::new, |after| after.to_proto());
                let limit = *limit as usize;
                let query = Query::Scan {
                    conversation: conversation.id,
                    table: Table::Member,
                    after,
                    limit: limit + 1,
                };
                self.load(
                    *user,
                    conversation.id,
                    Load::Read(ReadJob::Members {
                        origin: *origin,
                        viewer,
                        limit,
                    }),
                    query,
                    fx,
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// The oldest event that is kept must be known as of the last time that some were dropped.
    pub(super) fn require_oldest(&self, conversation: &Conversation) -> Result<(), Stop> {
        if conversation.knows_oldest(self.drops) {
            Ok(())
        } else {
            Err(Need::Oldest(self.drops).into())
        }
    }

    fn catch_up(&mut self, conversation: &Conversation, work: &Work, fx: &mut Effects) {
        let ToOwner::CatchUp {
            edge,
            conn,
            user,
            from,
            verify,
            bytes_max,
            ..
        } = &work.ask
        else {
            return;
        };
        let end = conversation.visible().seq;
        // The event before the first wanted one shows whether the reader's log is this log.
        let start = if verify.is_some() && from.0 > 1 {
            Seq(from.0 - 1)
        } else {
            *from
        };
        let verify = verify.filter(|_| start < *from && start >= conversation.oldest);
        let start = start.max(conversation.oldest);
        if start > end {
            let message = caught_up(*conn, conversation.id, *from, Ok(Vec::new()));
            self.tell_reader(Some(conversation), user, *edge, message, fx);
            return;
        }
        let job = ReadJob::CatchUp {
            edge: *edge,
            conn: *conn,
            user: *user,
            from: *from,
            first: start,
            verify,
            budget: *bytes_max,
        };
        // The one that is only looked at must leave room for one that is wanted.
        let bytes_max = if verify.is_some() {
            bytes_max + self.config.frame_bytes_max
        } else {
            *bytes_max
        };
        let query = Query::Events {
            conversation: conversation.id,
            from: start,
            to: end,
            bytes_max,
            backward: false,
        };
        self.load(*user, conversation.id, Load::Read(job), query, fx);
    }

    fn history(&mut self, conversation: &Conversation, work: &Work, fx: &mut Effects) {
        let ToOwner::History {
            origin,
            user,
            from,
            backward,
            limit,
            bytes_max,
            ..
        } = &work.ask
        else {
            return;
        };
        let (head, oldest) = (conversation.visible(), conversation.oldest);
        let count = u64::from(*limit).saturating_sub(1);
        let (first, last) = if *backward {
            let last = if from.0 == 0 {
                head.seq
            } else {
                head.seq.min(*from)
            };
            (Seq(last.0.saturating_sub(count)).max(oldest), last)
        } else {
            let first = (*from).max(oldest);
            (first, Seq(first.0.saturating_add(count)).min(head.seq))
        };
        if first > last {
            let page = frame::history_page(RequestId::PUSH, [].iter(), head, oldest, true);
            self.tell_reader(
                Some(conversation),
                user,
                origin.edge,
                page_answer(*origin, &page),
                fx,
            );
            return;
        }
        let end = if *backward { oldest } else { head.seq };
        let budget = (*bytes_max).min(
            self.config
                .frame_bytes_max
                .saturating_sub(PAGE_OVERHEAD_BYTES),
        );
        let (origin, user, backward) = (*origin, *user, *backward);
        let job = ReadJob::History {
            origin,
            user,
            backward,
            range: (first, last),
            end,
            oldest,
            head,
            budget,
        };
        let query = Query::Events {
            conversation: conversation.id,
            from: first,
            to: last,
            bytes_max: budget,
            backward,
        };
        self.load(user, conversation.id, Load::Read(job), query, fx);
    }

    /// A read came back. The conversation or the reader may have left memory since; that does no harm, because nothing was
    /// asked for beyond the end of the log as it was when the reader was judged.
    pub(super) fn finish_read(
        &mut self,
        conversation: Option<&mut Conversation>,
        id: ConversationId,
        job: ReadJob,
        answer: Option<Answer>,
        fx: &mut Effects,
    ) {
        let conversation = conversation.map(|conversation| {
            if job.lacks_oldest(answer.as_ref()) {
                conversation.forget_oldest();
            }
            &*conversation
        });
        let still_may = |user: &UserId| {
            let parties = conversation.and_then(|conversation| conversation.parties(user).ok());
            parties.map_or(Ok(()), |(profile, member)| rules::may_read(profile, member))
        };
        match (job, answer) {
            (
                ReadJob::CatchUp {
                    edge,
                    conn,
                    user,
                    from,
                    verify,
                    budget,
                    ..
                },
                answer,
            ) => {
                let result =
                    still_may(&user).and_then(|()| continued(answer, from, verify, budget));
                self.tell_reader(
                    conversation,
                    &user,
                    edge,
                    caught_up(conn, id, from, result),
                    fx,
                );
            }
            (
                ReadJob::History {
                    origin,
                    user,
                    backward,
                    range: (first, last),
                    end,
                    oldest,
                    head,
                    budget,
                },
                Some(Answer::Events { events, tombstones }),
            ) => {
                if let Err(code) = still_may(&user) {
                    self.tell_reader(conversation, &user, origin.edge, refused(origin, code), fx);
                    return;
                }
                let events = if backward {
                    page_down(events, &tombstones, budget)
                } else {
                    page_up(events, &tombstones, budget)
                };
                let found = events.first().and_then(seq_of);
                let oldest = found
                    .filter(|seq| !backward && *seq > first)
                    .unwrap_or(oldest);
                let reached = if backward {
                    events.first()
                } else {
                    events.last()
                };
                let reached = reached.and_then(seq_of);
                // Where nothing is left of what was asked for, there is nothing below it either, but perhaps above it.
                let done = reached.map_or(backward || last == end, |seq| seq == end);
                let page = frame::history_page(RequestId::PUSH, events.iter(), head, oldest, done);
                self.tell_reader(
                    conversation,
                    &user,
                    origin.edge,
                    page_answer(origin, &page),
                    fx,
                );
            }
            (
                ReadJob::Members {
                    origin,
                    viewer,
                    limit,
                },
                Some(Answer::Scan(rows)),
            ) => {
                let user = viewer.user();
                if let Err(code) = still_may(&user) {
                    self.tell_reader(conversation, &user, origin.edge, refused(origin, code), fx);
                    return;
                }
                let parties = conversation.and_then(|it| it.parties(&user).ok());
                let viewer = parties.map_or(viewer, |(profile, member)| {
                    Viewer::new(user, profile, member)
                });
                let page = members_page(&rows, limit, &viewer, conversation);
                let message = answered(origin, FrameKind::MembersPage, &page);
                match conversation {
                    Some(conversation) => self.reply(conversation, origin.edge, message, fx),
                    None => fx.send(origin.edge, message),
                }
            }
            (ReadJob::Conversations { origin, limit }, Some(Answer::Scan(mut rows))) => {
                let end = rows.len() <= limit;
                rows.truncate(limit);
                let listings = rows
                    .iter()
                    .filter_map(|(_, row)| v1::Listing::decode(row.clone()).ok())
                    .collect();
                let page = v1::ConversationsPage { listings, end };
                fx.send(
                    origin.edge,
                    answered(origin, FrameKind::ConversationsPage, &page),
                );
            }
            (
                ReadJob::History { origin, .. }
                | ReadJob::Members { origin, .. }
                | ReadJob::Conversations { origin, .. },
                answer,
            ) => {
                let code = read_failure(answer.as_ref());
                fx.send(origin.edge, refused(origin, code));
            }
        }
    }

    /// Tells a reader what he gets, or why not, once the change of his membership is durable that this may rest on.
    fn tell_reader(
        &mut self,
        conversation: Option<&Conversation>,
        user: &UserId,
        edge: ShardId,
        message: Message,
        fx: &mut Effects,
    ) {
        let changed = conversation.and_then(|conversation| {
            Some((conversation.lane, conversation.member(user)?.membership))
        });
        match changed {
            Some((lane, position)) if !self.is_durable(lane, position) => {
                self.lanes
                    .wait(lane, position, Waiting::Message(edge, message));
            }
            _ => fx.send(edge, message),
        }
    }
}

impl ReadJob {
    /// Whether the answer lacks the first event that was asked for, or all of them: they have been dropped meanwhile.
    fn lacks_oldest(&self, answer: Option<&Answer>) -> bool {
        let Some(Answer::Events { events, .. }) = answer else {
            return false;
        };
        let found = events.first().and_then(seq_of);
        match *self {
            Self::CatchUp { first, .. }
            | Self::History {
                backward: false,
                range: (first, _),
                ..
            } => found != Some(first),
            // Where a page was cut its first event is another one.
            Self::History { backward: true, .. } => found.is_none(),
            Self::Members { .. } | Self::Conversations { .. } => false,
        }
    }
}

/// What the viewer may see of the members that were read, of which one is more than the page may hold.
fn members_page(
    rows: &[(Bytes, Bytes)],
    limit: usize,
    viewer: &Viewer,
    conversation: Option<&Conversation>,
) -> v1::MembersPage {
    let looked_at = &rows[..rows.len().min(limit)];
    let members = looked_at.iter().filter_map(|(key, row)| {
        let user = UserId::from_slice(key).ok()?;
        viewer.show(user, row, conversation)
    });
    v1::MembersPage {
        members: members.collect(),
        end: rows.len() <= limit,
        last_user: looked_at
            .last()
            .map_or_else(Bytes::new, |(key, _)| key.clone()),
    }
}

fn page_answer(origin: Origin, page: &Bytes) -> Message {
    let body = page.slice(HEADER_BYTES..);
    Message::ToEdge(ToEdge::Answered {
        origin,
        kind: FrameKind::HistoryPage,
        body,
    })
}

fn answered<M: prost::Message>(origin: Origin, kind: FrameKind, body: &M) -> Message {
    let body = Bytes::from(body.encode_to_vec());
    Message::ToEdge(ToEdge::Answered { origin, kind, body })
}

fn caught_up(
    conn: ConnId,
    conversation: ConversationId,
    from: Seq,
    result: Result<Vec<Bytes>, ErrorCode>,
) -> Message {
    Message::ToEdge(ToEdge::CaughtUp {
        conn,
        conversation,
        from,
        result,
    })
}

fn refused(origin: Origin, code: ErrorCode) -> Message {
    Message::ToEdge(ToEdge::Refused {
        origin,
        code,
        retry_after_ms: retry_hint_ms(code),
    })
}
