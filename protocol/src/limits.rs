//! Every limit of the wire, in relation to each other. What a node may be configured to is bounded by these; what a single
//! connection is told stands in `Welcome.limits`.

macro_rules! limits {
    ($(#[doc = $doc:literal] $name:ident: $integer:ty = $value:expr;)+) => {
        $(#[doc = $doc] pub const $name: $integer = $value;)+

        /// All of them: name, value, and of what. For documentation that is checked against the code.
        pub const ALL: &[(&str, u64, &str)] = &[$((stringify!($name), $name as u64, $doc)),+];
    };
}

limits! {
    /// Bytes of a frame, header included, before the client has authenticated.
    FRAME_BYTES_MAX_UNAUTHENTICATED: usize = 4 * 1024;
    /// Bytes of a frame, header included, unless configured otherwise.
    FRAME_BYTES_MAX_DEFAULT: usize = 256 * 1024;
    /// Least that a node may be configured to: every answer fits into a frame.
    FRAME_BYTES_MAX_FLOOR: usize = 192 * 1024;
    /// Most that a node may be configured to.
    FRAME_BYTES_MAX_CEILING: usize = 1024 * 1024;
    /// Bytes of a message's body, unless configured otherwise.
    BODY_BYTES_MAX_DEFAULT: usize = 64 * 1024;
    /// Least bytes of a frame that may be compressed.
    COMPRESS_BYTES_MIN: usize = 1024;
    /// Most bytes that one compressed byte may become.
    COMPRESS_RATIO_MAX: usize = 100;
    /// Largest window of a compressed body, as a power of two (RFC 8878 recommends 8 MiB).
    COMPRESS_WINDOW_LOG_MAX: usize = 23;

    /// How deep messages stand in each other, the body itself counted.
    BODY_DEPTH_MAX: usize = 8;
    /// Elements of all repeated fields of one body together.
    ELEMENTS_PER_BODY_MAX: usize = 160 * 1024;

    /// Bytes of an access token.
    TOKEN_BYTES_MAX: usize = 2048;
    /// Bytes of the SDK's name and version.
    SDK_BYTES_MAX: usize = 128;
    /// Capabilities that one side names.
    CAPABILITIES_MAX: usize = 64;
    /// Time from the connection to a valid Hello, unless configured otherwise.
    HANDSHAKE_MS_DEFAULT: u64 = 5_000;
    /// Silence after which a client sends Ping, unless configured otherwise.
    KEEP_ALIVE_MS_DEFAULT: u64 = 50_000;
    /// Keep-alive times of silence after which the server closes.
    KEEP_ALIVE_PATIENCE: u64 = 3;
    /// Silence after which a client has QUIC show that the path works: below the 30 s after which many NATs forget a UDP flow.
    QUIC_KEEP_ALIVE_MS: u64 = 25_000;
    /// Largest UDP payload of QUIC between two programs on one machine; elsewhere it is what Ethernet carries.
    QUIC_LOOPBACK_PAYLOAD_BYTES: u16 = 6_500;

    /// Drafts of one Publish.
    DRAFTS_MAX: usize = 256;
    /// Receipts of one Published.
    RECEIPTS_MAX: usize = 4096;
    /// Subscriptions of one Subscribe, and conversations of one Unsubscribe.
    SUBSCRIPTIONS_PER_REQUEST_MAX: usize = 256;
    /// Events of one Deliver.
    DELIVER_EVENTS_MAX: usize = 4096;
    /// Events of one page of history.
    HISTORY_EVENTS_MAX: usize = 1000;
    /// Events of a page of history when the request names no number.
    HISTORY_EVENTS_DEFAULT: usize = 50;
    /// Members of one page.
    MEMBERS_PAGE_MAX: usize = 500;
    /// Members of a page when the request names no number.
    MEMBERS_PAGE_DEFAULT: usize = 100;
    /// Conversations of one page.
    CONVERSATIONS_PAGE_MAX: usize = 500;
    /// Conversations of a page when the request names no number.
    CONVERSATIONS_PAGE_DEFAULT: usize = 100;
    /// Users whose presence a session watches, and presences of one frame.
    WATCHED_USERS_MAX: usize = 1000;
    /// Bytes of an application's own signal.
    CUSTOM_SIGNAL_BYTES_MAX: usize = 1024;
    /// Time after which typing ends by itself.
    TYPING_EXPIRES_MS: u64 = 6000;
    /// Endpoints of one GoAway.
    ENDPOINTS_MAX: usize = 16;

    /// Members that a conversation is created with.
    MEMBERS_PER_CREATE_MAX: usize = 500;
    /// Bytes of a conversation's title.
    TITLE_BYTES_MAX: usize = 200;
    /// Bytes of a conversation's topic.
    TOPIC_BYTES_MAX: usize = 2000;
    /// Longest slow mode, seconds.
    SLOW_MODE_S_MAX: usize = 21_600;
    /// Bytes of the reason of a deletion or of a membership change.
    REASON_BYTES_MAX: usize = 200;
    /// Users mentioned in one message.
    MENTIONS_MAX: usize = 50;
    /// Events that one message answers.
    REPLY_TO_MAX: usize = 16;
    /// Attachments of one message.
    ATTACHMENTS_MAX: usize = 10;
    /// Bytes of an attachment's file id; at least 1.
    FILE_BYTES_MAX: usize = 128;
    /// Bytes of an attachment's media type.
    MEDIA_TYPE_BYTES_MAX: usize = 128;
    /// Bytes of an attachment's name.
    FILE_NAME_BYTES_MAX: usize = 255;
    /// Bytes of an envelope's protocol; at least 1.
    ENVELOPE_PROTOCOL_BYTES_MAX: usize = 64;
    /// Bytes of an envelope's header.
    ENVELOPE_HEADER_BYTES_MAX: usize = 4096;
    /// Bytes of a reaction's emoji; at least 1.
    EMOJI_BYTES_MAX: usize = 64;
    /// Where the count of unread mentions stops.
    UNREAD_MENTIONS_MAX: usize = 100;
    /// Bytes of the text of an error.
    ERROR_TEXT_BYTES_MAX: usize = 160;
}

/// How many elements each repeated field may have, by `Message.field`. A repeated field that is missing here does not compile.
pub const REPEATED: &[(&str, usize)] = &[
    ("Created.members", MEMBERS_PER_CREATE_MAX),
    ("Message.reply_to", REPLY_TO_MAX),
    ("Message.mentions", MENTIONS_MAX),
    ("Message.attachments", ATTACHMENTS_MAX),
    ("Edit.mentions", MENTIONS_MAX),
    ("Hello.capabilities", CAPABILITIES_MAX),
    ("Welcome.capabilities", CAPABILITIES_MAX),
    ("Publish.drafts", DRAFTS_MAX),
    ("Published.receipts", RECEIPTS_MAX),
    ("Subscribe.subscriptions", SUBSCRIPTIONS_PER_REQUEST_MAX),
    ("Subscribed.results", SUBSCRIPTIONS_PER_REQUEST_MAX),
    ("Unsubscribe.conversations", SUBSCRIPTIONS_PER_REQUEST_MAX),
    ("Deliver.events", DELIVER_EVENTS_MAX),
    ("HistoryPage.events", HISTORY_EVENTS_MAX),
    ("Watch.users", WATCHED_USERS_MAX),
    ("Presences.presences", WATCHED_USERS_MAX),
    ("Create.members", MEMBERS_PER_CREATE_MAX),
    ("MembersPage.members", MEMBERS_PAGE_MAX),
    ("ConversationsPage.listings", CONVERSATIONS_PAGE_MAX),
    ("GoAway.endpoints", ENDPOINTS_MAX),
];

/// The limit of a repeated field; evaluated at compile time by the generated tables.
pub(crate) const fn repeated_max(field: &str) -> usize {
    let mut index = 0;
    while index < REPEATED.len() {
        if same(REPEATED[index].0.as_bytes(), field.as_bytes()) {
            return REPEATED[index].1;
        }
        index += 1;
    }
    panic!("a repeated field has no limit: add it to limits::REPEATED");
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

/// Bytes of an id in a message: tag, length and 16 bytes.
const ID_FIELD: usize = 18;
/// Most bytes of a number in a message: tag of up to 2 bytes and a varint.
const NUMBER_FIELD: usize = 12;
/// Most bytes before a nested message or a text: tag of up to 2 bytes and a length.
const PREFIX: usize = 6;

/// Most bytes of what a message says, its text aside.
pub const MESSAGE_OVERHEAD_BYTES_MAX: usize = PREFIX * 4
    + REPLY_TO_MAX * NUMBER_FIELD
    + MENTIONS_MAX * ID_FIELD
    + ATTACHMENTS_MAX
        * (4 * PREFIX + FILE_BYTES_MAX + MEDIA_TYPE_BYTES_MAX + FILE_NAME_BYTES_MAX + NUMBER_FIELD)
    + 2 * PREFIX
    + ENVELOPE_PROTOCOL_BYTES_MAX
    + ENVELOPE_HEADER_BYTES_MAX;
/// Most bytes of an event's head.
pub const EVENT_HEAD_BYTES_MAX: usize = 4 * NUMBER_FIELD + 3 * ID_FIELD;
/// Most bytes of one event, with a text of the default limit.
pub const EVENT_BYTES_MAX_DEFAULT: usize =
    EVENT_HEAD_BYTES_MAX + BODY_BYTES_MAX_DEFAULT + MESSAGE_OVERHEAD_BYTES_MAX;

const ERROR_BYTES: usize = PREFIX + ERROR_TEXT_BYTES_MAX + 3 * NUMBER_FIELD;
const MARKER_BYTES: usize = PREFIX + 3 * NUMBER_FIELD;
const CURSOR_BYTES: usize = PREFIX + 2 * NUMBER_FIELD;
/// A result says either where the reader stands or why he is denied.
const RESULT_BYTES: usize = PREFIX
    + ID_FIELD
    + 3 * NUMBER_FIELD
    + if ERROR_BYTES > CURSOR_BYTES + MARKER_BYTES + 4 * NUMBER_FIELD {
        ERROR_BYTES
    } else {
        CURSOR_BYTES + MARKER_BYTES + 4 * NUMBER_FIELD
    };
const LISTING_BYTES: usize =
    PREFIX + 2 * ID_FIELD + PREFIX + TITLE_BYTES_MAX + 6 * NUMBER_FIELD + MARKER_BYTES;
const MEMBER_BYTES: usize = PREFIX + ID_FIELD + 5 * NUMBER_FIELD + MARKER_BYTES;
const HELLO_BYTES: usize =
    12 + 2 * PREFIX + TOKEN_BYTES_MAX + SDK_BYTES_MAX + ID_FIELD + CAPABILITIES_MAX * NUMBER_FIELD;

const _: () = {
    assert!(
        FRAME_BYTES_MAX_UNAUTHENTICATED < FRAME_BYTES_MAX_FLOOR
            && FRAME_BYTES_MAX_FLOOR <= FRAME_BYTES_MAX_DEFAULT
            && FRAME_BYTES_MAX_DEFAULT <= FRAME_BYTES_MAX_CEILING
    );
    assert!(
        HELLO_BYTES <= FRAME_BYTES_MAX_UNAUTHENTICATED,
        "the largest Hello fits before authentication"
    );
    assert!(
        2 * EVENT_BYTES_MAX_DEFAULT < FRAME_BYTES_MAX_DEFAULT,
        "a frame holds more than one of the largest events"
    );
    assert!(
        EVENT_HEAD_BYTES_MAX + FRAME_BYTES_MAX_FLOOR / 2 + MESSAGE_OVERHEAD_BYTES_MAX + 4 * PREFIX
            < FRAME_BYTES_MAX_FLOOR,
        "a frame holds an event whose text has half of it, which is the most that may be configured"
    );
    assert!(
        SUBSCRIPTIONS_PER_REQUEST_MAX * (PREFIX + ID_FIELD + CURSOR_BYTES) < FRAME_BYTES_MAX_FLOOR
    );
    assert!(
        SUBSCRIPTIONS_PER_REQUEST_MAX * RESULT_BYTES < FRAME_BYTES_MAX_FLOOR,
        "every Subscribe can be answered"
    );
    assert!(
        DRAFTS_MAX * (RESULT_BYTES + 3 * NUMBER_FIELD) < FRAME_BYTES_MAX_FLOOR,
        "every Publish can be answered"
    );
    assert!(CONVERSATIONS_PAGE_MAX * LISTING_BYTES < FRAME_BYTES_MAX_FLOOR);
    assert!(MEMBERS_PAGE_MAX * MEMBER_BYTES < FRAME_BYTES_MAX_FLOOR);
    assert!(WATCHED_USERS_MAX * (PREFIX + ID_FIELD + 2 * NUMBER_FIELD) < FRAME_BYTES_MAX_FLOOR);
    assert!(
        MEMBERS_PER_CREATE_MAX * ID_FIELD + TITLE_BYTES_MAX + EVENT_HEAD_BYTES_MAX
            < FRAME_BYTES_MAX_FLOOR / 2
    );
    assert!(DRAFTS_MAX <= RECEIPTS_MAX && HISTORY_EVENTS_MAX <= DELIVER_EVENTS_MAX);
    assert!(HISTORY_EVENTS_DEFAULT <= HISTORY_EVENTS_MAX);
    assert!(
        MEMBERS_PAGE_DEFAULT <= MEMBERS_PAGE_MAX
            && CONVERSATIONS_PAGE_DEFAULT <= CONVERSATIONS_PAGE_MAX
    );
    assert!(
        1 << COMPRESS_WINDOW_LOG_MAX >= FRAME_BYTES_MAX_CEILING,
        "every body may be compressed in one window"
    );
    assert!(
        CUSTOM_SIGNAL_BYTES_MAX + 64 <= 1200,
        "a signal fits a datagram of the least packet that QUIC allows"
    );
};
