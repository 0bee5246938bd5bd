//! A file that somebody else writes.

use std::{fs, path::PathBuf, time::Duration};

use tokio::time::Instant;
use ws_routing::membership::{FollowOptions, MembersUri, View, channel, follow};

#[tokio::test]
async fn every_way_to_change_a_file_is_seen_within_500_ms_and_mistakes_change_nothing() {
    let file = TempFile::new("changes", "127.0.0.1:1\n127.0.0.1:2\n");
    let mut view = followed(&file).await;
    assert_eq!(shown(&view), "127.0.0.1:1 127.0.0.1:2");

    // In place, of the same length.
    file.write("127.0.0.1:1\n127.0.0.1:3\n");
    expect(&mut view, "127.0.0.1:1 127.0.0.1:3").await;
    // By rename.
    file.replace("127.0.0.1:1\n127.0.0.1:3\n127.0.0.1:4 weight=7\n");
    expect(&mut view, "127.0.0.1:1 127.0.0.1:3 127.0.0.1:4").await;
    // Mistakes, each given the time in which a change would have been seen.
    for mistake in ["127.0.0.1:1\nnonsense\n", "", "# nobody\n"] {
        file.write(mistake);
        unchanged(&mut view).await;
    }
    fs::remove_file(&file.0).unwrap();
    unchanged(&mut view).await;
    file.write("127.0.0.1:9");
    expect(&mut view, "127.0.0.1:9").await;
}

#[tokio::test]
async fn a_file_that_is_being_written_is_waited_for() {
    let file = TempFile::new("torn", "127.0.0.1:1\n");
    let mut view = followed(&file).await;
    let mut text = String::new();
    // Long enough in all that looks fall between the writes.
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    for port in 1..=40 {
        text += &format!("127.0.0.1:{port}\n");
        file.write(&text);
        tick.tick().await;
    }
    let members = view.changed().await.unwrap();
    assert_eq!(members.nodes().len(), 40, "a part of the file was taken for the whole");
}

#[tokio::test]
async fn a_bad_file_at_start_is_an_error_that_names_the_line() {
    let file = TempFile::new("bad", "127.0.0.1:1\n127.0.0.1:2 weight=0 # heavy\n");
    let error = uri(&file).open(0).await.unwrap_err().to_string();
    let expected = format!(
        "{}:2: \"127.0.0.1:2 weight=0 # heavy\": \"0\" is no weight: expected 1 to 1000",
        file.0.display()
    );
    assert_eq!(error, expected);
    fs::remove_file(&file.0).unwrap();
    let error = uri(&file).open(0).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot read the members file {}: ", file.0.display())), "{error}");
}

async fn followed(file: &TempFile) -> View {
    let (writer, mut view) = channel(0);
    let source = uri(file).open(0).await.unwrap();
    tokio::spawn(follow(source, writer, FollowOptions::default()));
    view.changed().await.unwrap();
    view
}

fn uri(file: &TempFile) -> MembersUri {
    format!("file:{}", file.0.display()).parse().unwrap()
}

fn shown(view: &View) -> String {
    view.load().nodes().iter().map(|n| n.id.as_str()).collect::<Vec<_>>().join(" ")
}

async fn expect(view: &mut View, nodes: &str) {
    let begin = Instant::now();
    tokio::time::timeout(Duration::from_secs(10), view.changed()).await.expect("no change is seen").unwrap();
    assert_eq!(shown(view), nodes);
    assert!(begin.elapsed() < Duration::from_millis(500), "seen after {:?}", begin.elapsed());
}

async fn unchanged(view: &mut View) {
    let before = shown(view);
    assert!(tokio::time::timeout(Duration::from_millis(500), view.changed()).await.is_err());
    assert_eq!(shown(view), before);
}

/// A file of this test's own, removed at its end.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("ws-members-{}-{name}", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn replace(&self, text: &str) {
        let next = self.0.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.0).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
