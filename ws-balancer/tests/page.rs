//! The live page, in a real browser and with real processes: what it shows, by the keyboard alone, in the light and in
//! the dark. `WS_PAGE_PICTURE=ws-balancer/docs/page.png` renews the README's picture.
#![allow(clippy::unwrap_used)]

mod support;

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};
use support::{
    Cluster, Setup,
    chromium::{self, Chromium},
    client::{self, Driven, finish},
    eventually, http,
    range::ADMIN,
    wait::{bounded, millis, secs},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A key that would run a script where it became markup.
const HOSTILE: &str = "<img src=x onerror=window.broken=1>";

/// A cluster and its page; `None` without a browser.
async fn open(setup: Setup) -> Option<(Cluster, Chromium)> {
    let program = chromium::find()?;
    let cluster = setup.start().await;
    let mut page = Chromium::start(&program, &[]).await;
    page.open(&format!("http://{}/", admin(&cluster))).await;
    page.until("document.querySelector('#status').textContent === 'live'").await;
    Some((cluster, page))
}

fn admin(cluster: &Cluster) -> SocketAddr {
    SocketAddr::new(cluster.addr().ip(), ADMIN)
}

/// Presses Tab until the element of that id has the focus.
async fn tab_to(page: &mut Chromium, id: &str) {
    for _ in 0..12 {
        page.press("Tab").await;
        if page.eval("document.activeElement.id").await == id {
            return;
        }
    }
    panic!("#{id} cannot be reached by Tab");
}

async fn text(page: &mut Chromium, selector: &str) -> String {
    let text = page.eval(&format!("document.querySelector({}).innerText", json!(selector))).await;
    text.as_str().unwrap().to_owned()
}

async fn background(page: &mut Chromium) -> Vec<u32> {
    let color = page.eval("getComputedStyle(document.body).backgroundColor").await;
    let numbers = color.as_str().unwrap().trim_start_matches("rgb(").trim_end_matches(')').split(", ");
    numbers.map(|number| number.parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_are_shown_within_a_second_and_pods_as_they_are() {
    let Some((mut cluster, mut page)) = open(Setup::sidecars(3)).await else { return };
    let clients = cluster.fleet(0..24, millis(200)).await;
    page.until("document.querySelector('#connections .value').textContent === '24'").await;
    page.until("parseFloat(document.querySelector('#messages .value').textContent) > 20").await;
    // What the page saw, and when, by the clock that the balancer has too.
    page.eval(
        "window.late = []; new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(
           (line) => late.push(Date.now() - Date.parse(line.querySelector('time').dateTime)))
         )).observe(document.querySelector('#log'), { childList: true })",
    )
    .await;
    cluster.join(4).await;
    page.until("late.length > 0").await;
    cluster.settled(clients.iter().map(|c| c.id), secs(20)).await;
    page.until("late.length === past.at(-1).moves.joined.moved").await;
    let late: Vec<f64> = serde_json::from_value(page.eval("late").await).unwrap();
    println!("moves were shown after {late:?} ms");
    assert!(late.iter().all(|ms| *ms < 1000.0), "{late:?} ms");
    let newcomer = cluster.pods[&4].id.clone();
    let line = text(&mut page, "#log li").await;
    assert!(line.contains(&newcomer) && line.contains("moved") && line.contains("joined"), "{line}");
    page.until(&format!("document.querySelector('#spoken').textContent.includes('{newcomer}')")).await;

    cluster.drain(1);
    page.until("document.querySelector('#pods').innerText.includes('draining')").await;
    page.until("document.querySelector('#pods-summary').textContent === '3 ready · 1 draining'").await;
    cluster.kill(2);
    page.until("document.querySelector('#pods').innerText.includes('suspect')").await;
    cluster.leave(1);
    cluster.leave(2);
    page.until("document.querySelectorAll('#pods tr').length === 2").await;
    let shares =
        page.eval("[...document.querySelectorAll('#pods tr')].map((row) => row.cells[4].innerText)").await;
    assert_eq!(shares, json!(["50.0 %", "50.0 %"]));
    finish(clients).await;
    page.until("document.querySelector('#connections .value').textContent === '0'").await;
    assert_eq!(page.console(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_looked_up_and_a_plan_made_by_the_keyboard_alone() {
    let Some((cluster, mut page)) = open(Setup::sidecars(3)).await else { return };
    tab_to(&mut page, "key").await;
    page.write(&client::key(7)).await;
    page.press("Enter").await;
    page.until("document.querySelector('#owner .answer')").await;
    assert_eq!(text(&mut page, "#owner .answer").await, cluster.pods[&cluster.owner(7)].id);
    assert_eq!(page.eval("document.querySelectorAll('#owner li').length").await, 3);
    assert!(text(&mut page, "#owner li:nth-child(2)").await.starts_with("next"));

    tab_to(&mut page, "add").await;
    page.write("2").await;
    page.press("Enter").await;
    page.until("document.querySelector('#outcome .answer')").await;
    let plan = http::get(admin(&cluster), "/v1/plan?add=2&remove=0").await.unwrap().json();
    let share = 100.0 * plan["share"].as_f64().unwrap();
    assert!((38.0..42.0).contains(&share), "{plan}");
    assert_eq!(text(&mut page, "#outcome .answer").await, format!("{share:.1} % of the keys move"));
    assert!(text(&mut page, "#outcome").await.contains("3 now, 5 then"));

    page.press("Backspace").await;
    page.write("0").await;
    tab_to(&mut page, "remove").await;
    page.write("3").await;
    page.press("Tab").await;
    page.press("Space").await;
    page.until("document.querySelector('#outcome .error')?.textContent.startsWith('no node would be left')")
        .await;
    // Whatever has the focus shows it.
    assert_ne!(page.eval("getComputedStyle(document.activeElement).outlineStyle").await, "none");

    tab_to(&mut page, "hold").await;
    page.press("Enter").await;
    assert_eq!(text(&mut page, "#status").await, "paused");
    page.press("Enter").await;
    assert_eq!(text(&mut page, "#status").await, "live");
    let refusals = page.console();
    assert!(refusals.iter().all(|line| line.contains("400")), "{refusals:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_from_outside_is_text() {
    let setup = Setup::sidecars(2).balancer(&["--log-keys"]);
    let Some((mut cluster, mut page)) = open(setup).await else { return };
    let headers = [("ws-user-id", HOSTILE), ("x-client", "1")];
    let (_socket, _) = client::open(cluster.addr(), "/", &headers).await.unwrap();
    page.until("document.querySelector('#connections .value').textContent === '1'").await;
    let held = page.eval(
        "[...document.querySelectorAll('#pods tr')].findIndex((row) => row.cells[5].innerText === '1')",
    );
    let host = u8::try_from(held.await.as_u64().unwrap()).unwrap() + 1;
    let id = cluster.pods[&host].id.clone();
    cluster.members.edit(|nodes| _ = nodes.insert(id, " state=draining zone=<b>zone</b>"));
    page.until("document.querySelector('#log li')").await;
    let line = text(&mut page, "#log li").await;
    assert!(line.contains(HOSTILE), "{line}");
    page.until("document.querySelector('#pods').innerText.includes('<b>zone</b>')").await;

    tab_to(&mut page, "key").await;
    page.write(HOSTILE).await;
    page.press("Enter").await;
    page.until("document.querySelector('#owner .answer')").await;
    assert_eq!(page.eval("document.querySelectorAll('img, b').length").await, 0);
    assert_eq!(page.console(), Vec::<String>::new());
    // And what got in all the same would not run.
    let planted = "const s = document.createElement('script'); s.textContent = 'window.broken = 1'; \
                   document.body.append(s); document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = 1\">')";
    page.eval(&format!("(() => {{ {planted} }})()")).await;
    page.eval("new Promise((done) => setTimeout(done, 100))").await;
    assert_eq!(page.eval("window.broken ?? 0").await, 0);
    assert!(
        page.console().iter().any(|line| line.contains("Content Security Policy")),
        "{:?}",
        page.console()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_readable_in_the_light_in_the_dark_and_on_a_telephone() {
    let Some((mut cluster, mut page)) = open(Setup::sidecars(4)).await else { return };
    let clients = busy(&mut cluster).await;
    page.until("document.querySelectorAll('#log li').length > 5").await;
    page.until("past.length > 20").await;
    for (scheme, light) in [("light", true), ("dark", false)] {
        page.prefer(scheme).await;
        let ground = background(&mut page).await;
        assert!(ground.iter().all(|part| (*part > 128) == light), "{scheme}: {ground:?}");
        let poor = page.eval(CONTRAST).await;
        assert_eq!(poor, json!([]), "{scheme}: less contrast than WCAG AA asks for");
        picture(&mut page, scheme).await;
    }
    page.resize(360, 740).await;
    let width = page.eval("document.documentElement.scrollWidth").await;
    assert!(width.as_u64().unwrap() <= 360, "{width} pixels wide");
    picture(&mut page, "narrow").await;
    renew(&mut page).await;
    finish(clients).await;
}

/// Clients, and something for them to talk about.
async fn busy(cluster: &mut Cluster) -> Vec<Driven> {
    let clients = cluster.fleet(0..60, millis(100)).await;
    cluster.join(5).await;
    cluster.drain(2);
    cluster.settled(clients.iter().map(|c| c.id), secs(20)).await;
    clients
}

/// The texts whose contrast with what is behind them is under 4.5.
const CONTRAST: &str = "(() => {
    const parts = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
        return .2126 * x + .7152 * y + .0722 * z;
    };
    const behind = (element) => {
        const color = parts(getComputedStyle(element).backgroundColor);
        return color.length === 3 || color[3] === 1 ? color : behind(element.parentElement);
    };
    const texts = [...document.querySelectorAll('body *')].filter((element) =>
        [...element.childNodes].some((node) => node.nodeType === 3 && node.nodeValue.trim()) && element.checkVisibility() && element.tagName !== 'SCRIPT');
    document.getAnimations().forEach((animation) => animation.finish());
    return texts.filter((element) => {
        const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
        return (a + .05) / (b + .05) < 4.5;
    }).map((element) => `${element.tagName}.${element.className} ${element.textContent}`);
})()";

async fn picture(page: &mut Chromium, name: &str) {
    let png = page.screenshot().await;
    std::fs::write(support::process::scratch().join(format!("page-{name}.png")), png).unwrap();
}

/// The README's picture, if it is asked for.
async fn renew(page: &mut Chromium) {
    let Some(path) = std::env::var_os("WS_PAGE_PICTURE") else { return };
    page.prefer("light").await;
    page.call("Emulation.setScrollbarsHidden", json!({ "hidden": true })).await;
    page.resize(1180, 1032).await;
    page.eval("document.activeElement.blur(); scrollTo(0, 0)").await;
    for (id, value) in [("key", "user-42"), ("add", "1")] {
        page.eval(&format!("document.querySelector('#{id}').value = '{value}'")).await;
    }
    page.eval("document.querySelectorAll('form').forEach((form) => form.requestSubmit())").await;
    page.until("document.querySelector('#owner .answer') && document.querySelector('#outcome .answer')")
        .await;
    page.until("past.length > 50").await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::write(root.join(path), page.screenshot().await).unwrap();
}

/// An event stream, read by hand.
struct Stream(TcpStream);

impl Stream {
    async fn open(admin: SocketAddr) -> (String, Self) {
        let mut stream = Self(TcpStream::connect(admin).await.unwrap());
        stream.0.write_all(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        (stream.until("\r\n\r\n").await, stream)
    }

    async fn until(&mut self, end: &str) -> String {
        let mut read = String::new();
        bounded(secs(20), end, async {
            while !read.ends_with(end) {
                read.push(self.0.read_u8().await.unwrap().into());
            }
        })
        .await;
        read
    }

    /// The data of the next event of that name.
    async fn event(&mut self, name: &str) -> Value {
        self.until(&format!("event: {name}\ndata: ")).await;
        serde_json::from_str(self.until("\n").await.trim()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_may_look_at_once_and_keys_are_hashed() {
    let mut cluster = Setup::sidecars(2).start().await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let (head, stream) = Stream::open(admin(&cluster)).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        streams.push(stream);
    }
    let (head, _) = Stream::open(admin(&cluster)).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let mut stream = streams.remove(0);
    drop(streams);
    let freed = async || Stream::open(admin(&cluster)).await.0.starts_with("HTTP/1.1 200");
    eventually(secs(20), "a free place", freed).await;

    let client = cluster.client(1).await.drive(millis(50));
    let (owner, other) = if cluster.owner(1) == 1 { (1, 2) } else { (2, 1) };
    while stream.event("state").await["connections"] != 1 {}
    cluster.drain(owner);
    let moves = stream.event("moves").await;
    let [moved] = moves["moves"].as_array().unwrap().as_slice() else { panic!("{moves}") };
    assert_eq!(moved["from"], cluster.pods[&owner].id);
    assert_eq!(moved["to"], cluster.pods[&other].id);
    assert_eq!((&moved["reason"], &moved["result"]), (&json!("draining"), &json!("moved")));
    assert_eq!(moved["key"].as_str().unwrap().len(), 16, "{moved}");
    assert!(!moves.to_string().contains(&client::key(1)), "{moves}");
    finish(vec![client]).await;
}

#[tokio::test]
async fn a_page_that_is_open_holds_up_no_end() {
    let mut cluster = Setup::sidecars(1).start().await;
    let (_, mut stream) = Stream::open(admin(&cluster)).await;
    stream.event("state").await;
    let began = tokio::time::Instant::now();
    cluster.balancer.signal("TERM");
    assert_eq!(cluster.balancer.exit(secs(20)).await.code(), Some(0));
    assert!(began.elapsed() < secs(10), "{:?}", began.elapsed());
}
