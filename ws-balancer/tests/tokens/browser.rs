//! Pages in a real browser, which can set no headers.

use serde_json::{Value, json};

use super::{
    Scene,
    issuer::after,
    support::chromium::{self, Chromium},
};

/// What a page's socket becomes: what was agreed and what was echoed, or the code that it was closed with.
async fn socket(page: &mut Chromium, path: &str, protocols: &Value) -> Value {
    let outcome = format!(
        "new Promise(done => {{
             const socket = new WebSocket(`ws://${{location.host}}{path}`, {protocols});
             socket.onopen = () => socket.send('hello');
             socket.onmessage = message => {{ done([socket.protocol, message.data]); socket.close(); }};
             socket.onclose = event => done(event.code);
         }})"
    );
    page.eval(&outcome).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_brings_its_token_in_the_query_or_as_a_subprotocol() {
    let Some(program) = chromium::find() else { return };
    let scene = Scene::start(1, "jwt:sub", &["--strip-token"]).await;
    let token = scene.issuer.sign("ES256", &json!({"sub": "alice", "exp": after(600)}));
    let expired = scene.issuer.sign("ES256", &json!({"sub": "alice", "exp": after(-600)}));
    let offered = format!("access_token.{token}");
    let mut page = Chromium::start(&program, &[]).await;
    page.open(&format!("http://{}/", scene.cluster.addr())).await;

    let query = |token: &str| format!("/?access_token={token}");
    assert_eq!(socket(&mut page, &query(&token), &json!([])).await, json!(["", "hello"]));
    assert_eq!(socket(&mut page, &query(&expired), &json!([])).await, 1006);
    // The app agrees none, and the browser must be told of one.
    for protocols in [json!([offered]), json!(["chat", offered])] {
        assert_eq!(socket(&mut page, "/", &protocols).await, json!([offered, "hello"]));
    }
    scene.cluster.app(1).set(|manners| manners.subprotocol = Some("chat"));
    assert_eq!(socket(&mut page, "/", &json!([offered, "chat"])).await, json!(["chat", "hello"]));
    let seen = scene.cluster.app(1).handshakes();
    assert!(!format!("{seen:?}").contains(&token), "{seen:?}");
}

/// Why the balancer answers the token's subprotocol when it keeps that from the app.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_gives_up_when_none_of_its_subprotocols_is_agreed() {
    let Some(program) = chromium::find() else { return };
    let scene = Scene::start(1, "jwt:sub", &[]).await;
    let token = scene.issuer.sign("ES256", &json!({"sub": "alice"}));
    let offered = format!("access_token.{token}");
    let mut page = Chromium::start(&program, &[]).await;
    page.open(&format!("http://{}/", scene.cluster.addr())).await;
    assert_eq!(socket(&mut page, "/", &json!([offered])).await, 1006);
    scene.cluster.app(1).set(|manners| manners.subprotocol = Some("chat"));
    assert_eq!(socket(&mut page, "/", &json!([offered, "chat"])).await, json!(["chat", "hello"]));
}
