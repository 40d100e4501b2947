//! What decoding takes of the heap, counted: no body of the largest frame becomes far larger in memory.

#![allow(unsafe_code)] // A global allocator cannot be written without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::body::{self, BodyError};
use rialto_protocol::{limits, v1};

/// Counts what the calling thread holds, and the most it has held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // While a thread ends, its counters are gone: nobody asks for them any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

#[allow(clippy::cast_possible_wrap)]
const fn signed(bytes: usize) -> isize {
    bytes as isize
}

// SAFETY: every call is passed on to the system's allocator as it is; the counters are plain cells of the thread, whose
// access does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // Both blocks exist while the contents move.
        count(signed(bytes));
        count(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: isize = 1024 * 1024;
/// What any body of the largest frame may take at its peak, the body itself not counted.
const DECODED_MAX: isize = 24 * MIB;

/// The most that `work` holds at once.
fn peak<T>(work: impl FnOnce() -> T) -> (isize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (PEAK.get() - before, result)
}

fn length_prefixed(tag: &[u8], element: &[u8]) -> Vec<u8> {
    let mut bytes = tag.to_vec();
    prost::encoding::encode_varint(element.len() as u64, &mut bytes);
    bytes.extend_from_slice(element);
    bytes
}

/// As often as the largest frame and `elements_max` allow.
fn filled(element: &[u8], elements_max: usize) -> Bytes {
    element
        .repeat(elements_max.min(limits::FRAME_BYTES_MAX_CEILING / element.len()))
        .into()
}

/// What a message can say in the fewest bytes: lists full of empty elements.
fn dense_message() -> Vec<u8> {
    let attachment = [0x0a, 0, 0x12, 0, 0x1a, 0];
    let mut message = length_prefixed(&[0x12], &[1; limits::REPLY_TO_MAX]);
    message.extend([0x1a, 0].repeat(limits::MENTIONS_MAX));
    message.extend(length_prefixed(&[0x22], &attachment).repeat(limits::ATTACHMENTS_MAX));
    length_prefixed(&[0x8a, 0x01], &message)
}

fn assert_bounded<T: body::Body>(name: &str, body: &Bytes) {
    let (bytes, decoded) = peak(|| body::decode::<T>(body));
    assert!(
        bytes < DECODED_MAX,
        "{name}: {} bytes became {bytes}",
        body.len()
    );
    // If refused, then for its number of elements and before anything was taken.
    match decoded {
        Ok(_) => {}
        Err(BodyError::TooManyElements { .. } | BodyError::TooManyElementsInAll) => {
            assert_eq!(bytes, 0, "{name} was refused too late");
        }
        Err(other) => panic!("{name}: {other}"),
    }
}

#[test]
fn a_mebibyte_of_empty_elements_is_refused_without_taking_memory() {
    let bomb = filled(&[0x12, 0], usize::MAX);
    assert_bounded::<v1::Deliver>("events", &bomb);
    assert!(body::decode::<v1::Deliver>(&bomb).is_err());
    let (unbounded, _) = peak(|| v1::Deliver::decode(bomb.clone()));
    assert!(
        unbounded > 50 * MIB,
        "without the scan it would take {unbounded} bytes: if not, it is not needed"
    );
    assert!(body::decode::<v1::Watch>(&filled(&[0x0a, 0], usize::MAX)).is_err());
    assert_bounded::<v1::Publish>("drafts", &filled(&[0x1a, 0], usize::MAX));
    assert_bounded::<v1::Published>("receipts", &filled(&[0x0a, 0], usize::MAX));
}

#[test]
fn the_densest_bodies_that_are_accepted_stay_small() {
    let event = length_prefixed(&[0x12], &dense_message());
    for events in [limits::DELIVER_EVENTS_MAX, 2000, 500, 1] {
        assert_bounded::<v1::Deliver>("deliver", &filled(&event, events));
    }
    assert!(body::decode::<v1::Deliver>(&filled(&event, 1000)).is_ok());
    let page = length_prefixed(&[0x0a], &dense_message());
    assert_bounded::<v1::HistoryPage>("history", &filled(&page, limits::HISTORY_EVENTS_MAX));
    let draft = length_prefixed(&[0x1a], &dense_message());
    assert_bounded::<v1::Publish>("publish", &filled(&draft, limits::DRAFTS_MAX));
    assert_bounded::<v1::Deliver>(
        "empty events",
        &filled(&[0x12, 0], limits::DELIVER_EVENTS_MAX),
    );
    assert_bounded::<v1::Published>("empty receipts", &filled(&[0x0a, 0], limits::RECEIPTS_MAX));
    let refused = length_prefixed(&[0x0a], &length_prefixed(&[0x3a], &[0x12, 1, b'x']));
    assert_bounded::<v1::Published>("refusals", &filled(&refused, limits::RECEIPTS_MAX));
    let created = length_prefixed(
        &[0x82, 0x01],
        &[0x22, 0].repeat(limits::MEMBERS_PER_CREATE_MAX),
    );
    for events in [1000, 327, 326] {
        assert_bounded::<v1::Deliver>(
            "members",
            &filled(&length_prefixed(&[0x12], &created), events),
        );
    }
    let listing = length_prefixed(&[0x0a], &[0x0a, 0, 0x22, 1, b'x', 0x4a, 0, 0x52, 0]);
    assert_bounded::<v1::ConversationsPage>(
        "listings",
        &filled(&listing, limits::CONVERSATIONS_PAGE_MAX),
    );
}

#[test]
fn one_text_of_the_whole_frame_is_taken_once_and_bytes_not_at_all() {
    let whole = vec![b'x'; limits::FRAME_BYTES_MAX_CEILING];
    let text = Bytes::from(length_prefixed(&[0x0a], &whole));
    let (bytes, refresh) = peak(|| body::decode::<v1::Refresh>(&text));
    assert!(refresh.is_ok() && bytes < 2 * MIB, "{bytes}");
    let (bytes, message) = peak(|| body::decode::<v1::Message>(&text));
    assert!(
        message.is_ok() && bytes < 1024,
        "a slice, not a copy: {bytes}"
    );
}

/// The limit on all elements must never refuse what an owner may write and a broker may batch.
#[test]
fn the_densest_delivery_of_honest_events_passes() {
    let mut event = v1::Event {
        seq: 1,
        epoch: 1,
        time_ms: 1,
        ordinal: 1,
        sender: Bytes::from_static(&[1; 16]),
        device: Bytes::from_static(&[1; 16]),
        client_id: Bytes::from_static(&[1; 16]),
        content: None,
    };
    for mentions in 0..=limits::MENTIONS_MAX {
        for attachments in 0..=limits::ATTACHMENTS_MAX {
            let attachment = v1::Attachment {
                file: "f".to_owned(),
                ..Default::default()
            };
            event.content = Some(v1::event::Content::Message(v1::Message {
                reply_to: vec![1; limits::REPLY_TO_MAX],
                mentions: vec![Bytes::from_static(&[1; 16]); mentions],
                attachments: vec![attachment; attachments],
                ..Default::default()
            }));
            let element = length_prefixed(&[0x12], &event.encode_to_vec());
            let body = filled(&element, limits::DELIVER_EVENTS_MAX);
            let decoded = body::decode::<v1::Deliver>(&body);
            assert!(
                decoded.is_ok(),
                "{mentions} mentions, {attachments} attachments: {}",
                decoded.unwrap_err()
            );
        }
    }
}
