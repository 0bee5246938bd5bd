//! The live page, in a real browser.
#![allow(clippy::unwrap_used)]

mod support;

use support::chromium::{self, Chromium};

#[tokio::test]
async fn a_browser_is_driven_by_its_keys() {
    let Some(program) = chromium::find() else { return };
    let mut page = Chromium::start(&program, &[]).await;
    page.open("data:text/html,<input id=field><button onclick='document.title=field.value'>Go").await;
    page.press("Tab").await;
    page.write("hé").await;
    page.press("y").await;
    page.press("Tab").await;
    page.press("Enter").await;
    page.until("document.title === 'héy'").await;
    page.prefer("dark").await;
    assert_eq!(page.eval("matchMedia('(prefers-color-scheme: dark)').matches").await, true);
    page.eval("Promise.resolve().then(() => console.log('seen'))").await;
    assert!(page.console().concat().contains("seen"), "{:?}", page.console());
    assert!(page.screenshot().await.starts_with(b"\x89PNG"));
}
