//! docs/PROTOCOL.md says what the code says.
//!
//! After a change that is meant: `cargo test -p rialto-protocol --test docs -- --ignored` writes the generated parts anew.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rialto_protocol::error::ErrorCode;
use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::limits;
use rialto_protocol::v1::Retry;

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md")
}

fn proto(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("proto/rialto/v1")
        .join(file);
    let text = fs::read_to_string(path).expect("the .proto files are there");
    format!("```protobuf\n{text}```\n")
}

/// Every generated part: its mark and what stands in it.
fn parts() -> Vec<(&'static str, String)> {
    vec![
        ("kinds", kinds()),
        ("ids", ids()),
        ("errors", errors()),
        ("limits", limits_table()),
        ("lists", lists()),
        ("event.proto", proto("event.proto")),
        ("wire.proto", proto("wire.proto")),
    ]
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!(
        "| {} |\n|{}\n",
        head.join(" | "),
        " --- |".repeat(head.len())
    );
    for row in rows {
        writeln!(text, "| {} |", row.join(" | ")).expect("a String takes all");
    }
    text
}

fn kinds() -> String {
    table(
        &["kind", "name", "sent by", "what it is"],
        FrameKind::ALL.iter().map(|kind| {
            let sender = format!("{:?}", kind.sender()).to_lowercase();
            vec![
                kind.number().to_string(),
                kind.name().to_owned(),
                sender,
                meaning(*kind).to_owned(),
            ]
        }),
    )
}

fn meaning(kind: FrameKind) -> &'static str {
    match kind {
        FrameKind::Hello => "first frame; answer Welcome",
        FrameKind::Refresh => "a new token; answer Refreshed",
        FrameKind::Ping => "answer Pong",
        FrameKind::Publish => "drafts; receipts in Published",
        FrameKind::Subscribe => "answer Subscribed",
        FrameKind::Unsubscribe | FrameKind::SetPresence | FrameKind::Prefer => "answer Done",
        FrameKind::History => "answer HistoryPage",
        FrameKind::Mark => "answer Marked",
        FrameKind::Signal => "no answer unless refused",
        FrameKind::Watch => "answer Presences",
        FrameKind::Create => "answer CreatedConversation",
        FrameKind::Describe => "answer Description",
        FrameKind::Members => "answer MembersPage",
        FrameKind::Conversations => "answer ConversationsPage",
        FrameKind::Error => "answer to any request; with request id 0 about the connection",
        FrameKind::Published => "receipts of drafts; request id 0",
        FrameKind::Presences => "answer; with request id 0 a push",
        FrameKind::Deliver => "push: events of a conversation",
        FrameKind::Signalled => "push: a signal in a conversation",
        FrameKind::SubscriptionEnded => "push: nothing more of a conversation comes",
        FrameKind::GoAway => "push: connect again soon",
        FrameKind::Done
        | FrameKind::Welcome
        | FrameKind::Refreshed
        | FrameKind::Pong
        | FrameKind::Subscribed
        | FrameKind::HistoryPage
        | FrameKind::Marked
        | FrameKind::CreatedConversation
        | FrameKind::Description
        | FrameKind::MembersPage
        | FrameKind::ConversationsPage => "answer",
    }
}

fn ids() -> String {
    let (ann, bob) = (UserId::from_name("ann"), UserId::from_name("bob"));
    let row = |what: &str, id: String| vec![what.to_owned(), format!("`{id}`")];
    table(
        &["what", "id"],
        [
            row("user `ann`", ann.to_string()),
            row("user `bob`", bob.to_string()),
            row("user `Zoë`", UserId::from_name("Zoë").to_string()),
            row("self of `ann`", ConversationId::of_self(ann).to_string()),
            row("inbox of `ann`", ConversationId::of_inbox(ann).to_string()),
            row(
                "direct of `ann` and `bob`",
                ConversationId::of_direct(ann, bob).to_string(),
            ),
        ],
    )
}

fn errors() -> String {
    table(
        &["code", "name", "retry", "closes", "text"],
        ErrorCode::ALL.iter().map(|code| {
            let retry = match code.retry() {
                Retry::Safe => "safe",
                Retry::MaybeDuplicate => "maybe duplicate",
                Retry::Never => "never",
                Retry::Unspecified => unreachable!("every code says whether to retry"),
            };
            let closes = match (code.closes_connection(), code.closes_handshake()) {
                (true, _) => "always",
                (false, true) => "in answer to Hello",
                (false, false) => "no",
            };
            let texts = [code.name(), retry, closes, code.text()].map(str::to_owned);
            [vec![code.code().to_string()], texts.to_vec()].concat()
        }),
    )
}

fn limits_table() -> String {
    table(
        &["limit", "value", "of what"],
        limits::ALL.iter().map(|(name, value, meaning)| {
            vec![
                format!("`{name}`"),
                value.to_string(),
                meaning.trim().to_owned(),
            ]
        }),
    )
}

fn lists() -> String {
    table(
        &["list", "elements at most"],
        limits::REPEATED
            .iter()
            .map(|(field, max)| vec![format!("`{field}`"), max.to_string()]),
    )
}

/// Where a part's text begins and ends in the page.
fn place(page: &str, mark: &str) -> std::ops::Range<usize> {
    let open = format!("<!-- generated: {mark} -->\n");
    let start = page
        .find(&open)
        .unwrap_or_else(|| panic!("no part {mark} in the page"))
        + open.len();
    let end = page[start..].find("<!-- end -->").expect("every part ends") + start;
    start..end
}

#[test]
fn every_generated_part_of_the_page_is_what_the_code_says() {
    let page = fs::read_to_string(page()).expect("the page is there");
    for (mark, text) in parts() {
        assert_eq!(
            &page[place(&page, mark)],
            text,
            "docs/PROTOCOL.md, part {mark}: write it anew, see this file's head"
        );
    }
    assert_eq!(
        page.matches("<!-- generated: ").count(),
        parts().len(),
        "no part is left over"
    );
}

#[test]
fn every_kind_is_explained_in_prose() {
    let page = fs::read_to_string(page()).expect("the page is there");
    let prose: String = page
        .split("<!-- generated: ")
        .map(|part| part.split("<!-- end -->").last().unwrap_or(""))
        .collect();
    for kind in FrameKind::ALL {
        assert!(
            prose.contains(kind.name()),
            "{kind} is only named in a table"
        );
    }
}

/// Writes the generated parts anew.
#[test]
#[ignore = "rewrites docs/PROTOCOL.md: run it after a change of the wire that is meant"]
fn rewrite() {
    let mut text = fs::read_to_string(page()).expect("the page is there");
    for (mark, part) in parts() {
        text.replace_range(place(&text, mark), &part);
    }
    fs::write(page(), text).expect("the page can be written");
}
