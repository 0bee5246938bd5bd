//! Headless Chromium beside a test, driven by its DevTools protocol: one page, real key presses and clicks, pictures.
//!
//! A driver of a few calls: the crates for this bring an HTTP client, a code generator or a runtime with them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

use super::{
    http, process,
    wait::{bounded, eventually, millis, secs},
};

/// Chromium: `$WS_CHROMIUM`, or what the usual names stand for. `None`, and why, where there is none.
pub fn find() -> Option<PathBuf> {
    let asked = std::env::var_os("WS_CHROMIUM").map(PathBuf::from);
    let usual = ["chromium", "chromium-browser", "google-chrome"].map(PathBuf::from);
    let starts = |name: &PathBuf| {
        let tried = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    };
    let found = asked.into_iter().chain(usual).find(starts);
    if found.is_none() {
        eprintln!("skipped: no chromium, chromium-browser or google-chrome here, and WS_CHROMIUM names none");
    }
    found
}

/// A running Chromium with one page. Dropping it ends it, and removes its profile.
pub struct Chromium {
    child: Child,
    profile: PathBuf,
    socket: WebSocketStream<tokio::net::TcpStream>,
    calls: u64,
    events: Vec<Value>,
}

impl Chromium {
    /// Starts one with a profile of its own, shows an empty page of 1280 × 800, and follows its console.
    ///
    /// `extra` arguments come last, such as `--ignore-certificate-errors`.
    pub async fn start(program: &Path, extra: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let profile = process::scratch().join(format!("chromium-{}-{number}", std::process::id()));
        drop(fs::remove_dir_all(&profile));
        fs::create_dir_all(&profile).unwrap();
        let child = spawn(program, &profile, extra);
        let socket = connect(&profile).await;
        let mut page = Self { child, profile, socket, calls: 0, events: Vec::new() };
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.resize(1280, 800).await;
        page
    }

    /// Shows `url`, and waits until it has loaded.
    pub async fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'").await;
    }

    /// The value of an expression, as JSON; that of a promise once it is kept. Panics with what it throws.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let arguments = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", arguments).await;
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true. Panics after 20 s, with what the page shows then.
    pub async fn until(&mut self, expression: &str) {
        let end = tokio::time::Instant::now() + secs(20);
        while self.eval(&format!("!!({expression})")).await != json!(true) {
            if tokio::time::Instant::now() > end {
                let shown = self.eval("document.body.innerText").await;
                panic!(
                    "not within 20 s: {expression}; the page shows {shown}, its console {:?}",
                    self.console()
                );
            }
            tokio::time::sleep(millis(20)).await;
        }
    }

    /// Presses and releases a key by its name: `Tab`, `Shift+Tab`, `Enter`, `ArrowDown`, `a`.
    pub async fn press(&mut self, name: &str) {
        let (modifiers, name) = name.strip_prefix("Shift+").map_or((0, name), |name| (8, name));
        let (code, text) = match name {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            "Space" => (32, " "),
            "End" => (35, ""),
            "Home" => (36, ""),
            "ArrowLeft" => (37, ""),
            "ArrowUp" => (38, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            "Backspace" => (8, ""),
            "Delete" => (46, ""),
            text => (text.bytes().next().unwrap().to_ascii_uppercase().into(), text),
        };
        let (key, physical) = match name {
            "Space" => (" ", "Space"),
            name => (name, name),
        };
        let mut event = json!({
            "type": "keyDown", "key": key, "code": physical, "modifiers": modifiers, "windowsVirtualKeyCode": code,
        });
        if !text.is_empty() {
            event["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", event.clone()).await;
        event["type"] = "keyUp".into();
        event["text"] = "".into();
        self.call("Input.dispatchKeyEvent", event).await;
    }

    /// Writes into whatever has the focus.
    pub async fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Clicks into the middle of the first element of that CSS selector.
    pub async fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'center' }}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector),
        );
        let place = self.eval(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Shows the page in a window of that many pixels.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// Has the user prefer a color scheme: `light` or `dark`.
    pub async fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    /// A picture of what the window shows, as PNG.
    pub async fn screenshot(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" })).await;
        BASE64_STANDARD.decode(answer["data"].as_str().unwrap()).unwrap()
    }

    /// What was written to the console so far: errors that nobody caught, and what the browser refused, included.
    pub fn console(&self) -> Vec<String> {
        let said = |event: &Value| match event["method"].as_str()? {
            "Runtime.consoleAPICalled" => Some(event["params"]["args"].to_string()),
            "Runtime.exceptionThrown" => Some(event["params"]["exceptionDetails"].to_string()),
            "Log.entryAdded" => Some(event["params"]["entry"]["text"].to_string()),
            _ => None,
        };
        self.events.iter().filter_map(said).collect()
    }

    /// Calls a method of the protocol, and returns its result.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let call = json!({ "id": id, "method": method, "params": params });
        self.socket.send(Message::text(call.to_string())).await.unwrap();
        bounded(secs(30), method, async {
            loop {
                let message = self.socket.next().await.expect("Chromium has ended").unwrap();
                let Ok(text) = message.to_text() else { continue };
                let Ok(mut answer) = serde_json::from_str::<Value>(text) else { continue };
                if answer["id"] == id {
                    assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                    return answer["result"].take();
                }
                self.events.push(answer);
            }
        })
        .await
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Its helpers are in its process group, and go with it.
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.profile));
    }
}

fn spawn(program: &Path, profile: &Path, extra: &[&str]) -> Child {
    use std::os::unix::process::CommandExt as _;
    let mut user = std::ffi::OsString::from("--user-data-dir=");
    user.push(profile);
    let quiet = "--no-first-run --no-default-browser-check --disable-background-networking --disable-sync \
                 --disable-component-update --disable-breakpad --disable-gpu --disable-dev-shm-usage --mute-audio";
    Command::new(program)
        .args(["--headless=new", "--no-sandbox", "--remote-debugging-port=0"])
        .arg(user)
        .args(quiet.split_whitespace())
        .args(extra)
        .arg("about:blank")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap()
}

async fn connect(profile: &Path) -> WebSocketStream<tokio::net::TcpStream> {
    let mut page = None;
    eventually(secs(60), "a page of Chromium", async || {
        page = first_page(profile).await;
        page.is_some()
    })
    .await;
    let (port, url) = page.unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // A picture is one message.
    let limits = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    client_async_with_config(url, stream, Some(limits)).await.unwrap().0
}

/// The port of the protocol, and where its page answers.
async fn first_page(profile: &Path) -> Option<(u16, String)> {
    let port: u16 =
        fs::read_to_string(profile.join("DevToolsActivePort")).ok()?.lines().next()?.parse().ok()?;
    let pages = http::get(([127, 0, 0, 1], port).into(), "/json/list").await.ok()?.json();
    let page = pages.as_array()?.iter().find(|target| target["type"] == "page")?;
    Some((port, page["webSocketDebuggerUrl"].as_str()?.to_owned()))
}
