use std::future::{pending, ready};

use tokio::{
    io::duplex,
    task::JoinHandle,
    time::{timeout, timeout_at},
};

use super::*;

/// Recipients of whom none takes anything, now or ever.
#[derive(Debug)]
enum Nobody {
    /// Each says so.
    NotNow,
    /// Nothing is heard of them.
    Silent,
}

impl Recipients for Nobody {
    fn deliver<'a>(
        &'a self,
        _: &'a Key,
        _: &'a Message,
    ) -> Pin<Box<dyn Future<Output = Delivery> + Send + 'a>> {
        match self {
            Self::NotNow => Box::pin(ready(Delivery::NotNow)),
            Self::Silent => Box::pin(pending()),
        }
    }
}

/// A client of the key `alice`, and the app that reads it.
struct Pair {
    client: LegStream,
    app: Far<DuplexStream>,
    _run: JoinHandle<()>,
}

impl Pair {
    fn of(recipients: Nobody) -> Self {
        let route = RouteField::new("to", 1000, Arc::new(recipients));
        let (near, far) = duplex(BUFFER);
        let leg = LegHeaders::new(Key::new("alice").unwrap());
        let (client, end) = route.stand(LegStream::Local(near), None, &leg);
        Self { client, app: Far::new(far, 1000), _run: tokio::spawn(end.run) }
    }

    async fn say(&mut self, text: &str) {
        let bytes = control(Opcode::Text, text.as_bytes(), Some([1, 2, 3, 4]));
        self.client.write_all(&bytes).await.unwrap();
    }

    async fn heard(&mut self) -> String {
        match self.app.next().await {
            Ok(Some(Incoming::Message(message))) => String::from_utf8(message.payload).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_to_oneself_keeps_its_place_and_waits_for_nobody() {
    let mut pair = Pair::of(Nobody::Silent);
    let said = ["before", r#"{"to":"alice"}"#, "after"];
    for text in said {
        pair.say(text).await;
    }
    for text in said {
        assert_eq!(timeout(RETRY, pair.heard()).await.expect(text), text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_recipient_that_takes_nothing_is_given_up_before_a_drain_is_over() {
    const DRAIN: Duration = Duration::from_secs(25);
    let mut pair = Pair::of(Nobody::NotNow);
    let end = Instant::now() + DRAIN;
    pair.say(r#"{"to":"bob"}"#).await;
    let told = timeout_at(end, pair.heard()).await.expect("given up");
    assert_eq!(told, r#"{"error":"not-delivered","recipient":"bob"}"#);
}
