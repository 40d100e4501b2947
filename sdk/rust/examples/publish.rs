//! Publishes lines: `publish ENDPOINT TOKEN CONVERSATION TEXT…`. Each TEXT becomes a message; all are sent at once, and their
//! places in the log are printed. `--insecure` before all else accepts any certificate of a broker on this machine.

use rialto_sdk::{Client, Content, ConversationId, Roots};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let insecure = args.first().is_some_and(|arg| arg == "--insecure");
    if insecure {
        args.remove(0);
    }
    let [endpoint, token, conversation, texts @ ..] = &args[..] else {
        return Err("usage: publish [--insecure] ENDPOINT TOKEN CONVERSATION TEXT…".into());
    };
    let conversation: ConversationId = conversation.parse()?;
    let mut builder = Client::builder().endpoint(endpoint).token(token);
    if insecure {
        builder = builder.roots(Roots::InsecureLoopbackOnly);
    }
    let (client, events) = builder.connect().await?;
    drop(events);

    let contents: Vec<_> = texts.iter().map(Content::text).collect();
    let mut publishings = Vec::new();
    client
        .publish_batch(conversation, &contents, &mut publishings)
        .await?;
    for (text, publishing) in texts.iter().zip(publishings) {
        match publishing.await {
            Ok(receipt) => println!("{} {} {text}", receipt.epoch, receipt.seq),
            Err(error) => println!("- {error} {:?} {text}", error.retry()),
        }
    }
    client.close().await;
    Ok(())
}
