//! A chat in the terminal: `chat ENDPOINT TOKEN CHANNEL`. CHANNEL is a name: whoever comes first opens the channel, everybody
//! else joins it. What is typed is sent; an empty line or the end of input leaves the program. `--insecure` before all
//! else accepts any certificate of a broker on this machine.

use rialto_sdk::v1::event::Content as Said;
use rialto_sdk::{
    Client, Content, ConversationId, Create, ErrorCode, Event, Events, Roots, Seq, Start, UserId,
};
use tokio::io::{AsyncBufReadExt, BufReader};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let insecure = args.first().is_some_and(|arg| arg == "--insecure");
    if insecure {
        args.remove(0);
    }
    let [endpoint, token, channel] = &args[..] else {
        return Err("usage: chat [--insecure] ENDPOINT TOKEN CHANNEL".into());
    };
    let mut builder = Client::builder().endpoint(endpoint).token(token);
    if insecure {
        builder = builder.roots(Roots::InsecureLoopbackOnly);
    }
    let (client, events) = builder.connect().await?;
    let room = enter(&client, channel).await?;
    let me = client.user();
    let shown = tokio::spawn(show(events, me));
    let head = client.describe(room).await?.head.unwrap_or_default();
    // The last twenty events, then what is said from now on.
    let start = match head.seq.saturating_sub(20) {
        0 => Start::Beginning,
        after => {
            let page = client
                .history(room, rialto_sdk::HistoryQuery::from(Seq(after)).limit(1))
                .await?;
            page.events.first().map_or(Start::Live, Start::after)
        }
    };
    client.subscribe(vec![(room, start)]).await?;

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await?.filter(|line| !line.is_empty()) {
        let publishing = client.publish(room, Content::text(line)).await?;
        tokio::spawn(async move {
            if let Err(error) = publishing.await {
                println!("not sent: {error}");
            }
        });
    }
    client.close().await;
    shown.await?;
    Ok(())
}

/// Opens the channel of this name, or joins it.
async fn enter(client: &Client, channel: &str) -> Result<ConversationId, Failure> {
    let id = channel_id(channel);
    let opened = client.create(Create::channel(channel).id(id)).await;
    match opened {
        Ok(_) => return Ok(id),
        Err(error)
            if error
                .refusal()
                .is_some_and(|refusal| refusal.is(ErrorCode::ConversationExists)) => {}
        Err(error) => return Err(error.into()),
    }
    match client.join(id).await?.await {
        Ok(_) => {}
        Err(error)
            if error
                .refusal()
                .is_some_and(|refusal| refusal.is(ErrorCode::MembershipUnchanged)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(id)
}

/// The same id for the same name, so that nobody has to hand ids around: a UUIDv7 of the year 1970 from the name's hash.
fn channel_id(channel: &str) -> ConversationId {
    let hash = UserId::from_name(channel);
    let mut entropy = [0; 10];
    entropy.copy_from_slice(&hash.as_bytes()[6..]);
    ConversationId::v7(1, entropy)
}

async fn show(mut events: Events, me: UserId) {
    while let Some(event) = events.next().await {
        match event {
            Event::Delivered { events, .. } => {
                for event in events {
                    let sender = UserId::from_slice(&event.sender).unwrap_or(UserId::SYSTEM);
                    let name = if sender == me {
                        "you".to_owned()
                    } else {
                        sender.to_string()[..8].to_owned()
                    };
                    match event.content {
                        Some(Said::Message(message)) => {
                            println!("{name}: {}", String::from_utf8_lossy(&message.body));
                        }
                        Some(Said::Membership(membership)) => {
                            println!("* {name}: {:?}", membership.action());
                        }
                        Some(Said::Created(created)) => {
                            println!("* {name} opened {}", created.title);
                        }
                        _ => {}
                    }
                }
            }
            Event::Connection(state) => println!("* {state:?}"),
            _ => {}
        }
    }
}
