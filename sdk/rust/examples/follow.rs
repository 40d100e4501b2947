//! Follows conversations from their first event on: `follow ENDPOINT TOKEN CONVERSATION…`. Restart the broker while it runs:
//! no event is missed, none comes twice. `--insecure` before all else accepts any certificate of a broker on this machine.

use rialto_sdk::v1::event::Content;
use rialto_sdk::{Client, ConversationId, Event, Roots, Start, UserId};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let insecure = args.first().is_some_and(|arg| arg == "--insecure");
    if insecure {
        args.remove(0);
    }
    let [endpoint, token, conversations @ ..] = &args[..] else {
        return Err("usage: follow [--insecure] ENDPOINT TOKEN CONVERSATION…".into());
    };
    let mut builder = Client::builder().endpoint(endpoint).token(token);
    if insecure {
        builder = builder.roots(Roots::InsecureLoopbackOnly);
    }
    let (client, mut events) = builder.connect().await?;

    let starts: Result<Vec<_>, _> = conversations
        .iter()
        .map(|text| {
            text.parse::<ConversationId>()
                .map(|id| (id, Start::Beginning))
        })
        .collect();
    for outcome in client.subscribe(starts?).await? {
        println!(
            "{}: {:?}, head {}",
            outcome.conversation, outcome.status, outcome.head.seq
        );
    }
    while let Some(event) = events.next().await {
        match event {
            Event::Delivered {
                conversation,
                events,
            } => {
                for event in events {
                    let sender = UserId::from_slice(&event.sender)?;
                    let text = match &event.content {
                        Some(Content::Message(message)) => {
                            String::from_utf8_lossy(&message.body).into_owned()
                        }
                        other => format!("{other:?}"),
                    };
                    println!("{conversation} {} {sender}: {text}", event.seq);
                }
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
