//! Members in a file that somebody else writes: one node a line.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use super::{NextUpdate, Source, SourceError, Update};
use crate::node::{InvalidNode, Node, NodeId};

/// How often the file is looked at. A change counts when two looks agree, so it is told after at most two of these
/// and what the reads take.
const LOOK: Duration = Duration::from_millis(50);

/// How often an unchanged file is confirmed.
const CONFIRM: Duration = Duration::from_secs(1);

/// While a file is this young, its clock may be too coarse to show that it was written again.
const YOUNG: Duration = Duration::from_secs(2);

/// Follows a file of members: `ip:port [weight=200] [zone=a] [state=draining]` a line, `#` begins a comment.
///
/// A change is told within 150 ms, whether the file was replaced or written in place; a file that is just being
/// written is waited for. Costs a `stat` 20 times a second, in tokio's blocking pool. A bad line or an unreadable
/// file is told once, and the members stay as they were.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// What the last look saw.
    seen: Look,
    /// What was told, good or bad.
    told: Content,
    first: Option<Vec<Node>>,
    confirmed: Instant,
}

impl File {
    /// Reads the file for the first time.
    ///
    /// # Errors
    ///
    /// [`FileError`] when it cannot be read or has a bad line: at start-up that is bad configuration.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, FileError> {
        let path = path.into();
        let seen = Look::at(&path, None).await;
        let first = Some(nodes(&path, &seen.content)?);
        Ok(Self { path, told: seen.content.clone(), seen, first, confirmed: Instant::now() })
    }

    /// The members that `text` lists, as if it stood in the file `path`: for who writes such a file and wants to know
    /// before. Costs one pass, and reads no file.
    ///
    /// # Errors
    ///
    /// [`FileError::BadLine`] at the first line that describes no node.
    pub fn parse(path: &Path, text: &str) -> Result<Vec<Node>, FileError> {
        let mut nodes = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let found = node(line).map_err(|problem| FileError::BadLine {
                path: path.into(),
                number,
                line: line.into(),
                problem,
            })?;
            nodes.extend(found);
        }
        Ok(nodes)
    }

    async fn answer(&mut self) -> Result<Update, SourceError> {
        if let Some(nodes) = self.first.take() {
            return Ok(Update::Reset(nodes));
        }
        loop {
            sleep(LOOK).await;
            let look = Look::at(&self.path, Some(&self.seen)).await;
            if look != self.seen {
                // It may be in the middle of being written.
                self.seen = look;
            } else if self.told != self.seen.content {
                self.told = self.seen.content.clone();
                self.confirmed = Instant::now();
                return nodes(&self.path, &self.told).map(Update::Reset).map_err(SourceError::new);
            } else if self.confirmed.elapsed() >= CONFIRM && nodes(&self.path, &self.told).is_ok() {
                self.confirmed = Instant::now();
                return Ok(Update::Confirmed);
            }
        }
    }
}

impl Source for File {
    fn next(&mut self) -> NextUpdate<'_> {
        Box::pin(async { Some(self.answer().await) })
    }
}

/// Why a file gives no members.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the members file {path}: {problem}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        problem: String,
    },
    /// It has a line that describes no node.
    #[error("{path}:{number}: {line:?}: {problem}")]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        number: usize,
        /// The line as it stands there.
        line: String,
        /// What is wrong with it.
        problem: InvalidLine,
    },
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLine {
    /// A bad address, weight or state.
    #[error(transparent)]
    Node(#[from] InvalidNode),
    /// The line does not begin with an address.
    #[error("expected ip:port or [ipv6]:port at its beginning, a port other than 0")]
    Address,
    /// No attribute of that name, or one without a value.
    #[error("{0:?} is no attribute: expected weight=1…1000, zone=NAME or state=ready|draining")]
    Attribute(String),
    /// One attribute twice.
    #[error("{0} is given twice")]
    Twice(String),
}

/// Parses a line; `None` when it is blank or only a comment.
///
/// # Errors
///
/// [`InvalidLine`] when it describes no node.
fn node(line: &str) -> Result<Option<Node>, InvalidLine> {
    let text = line.split('#').next().unwrap_or_default();
    let mut words = text.split_whitespace();
    let Some(id) = words.next() else { return Ok(None) };
    let id: NodeId = id.parse().map_err(|_| InvalidLine::Address)?;
    if id.addr().is_none_or(|addr| addr.port() == 0) {
        return Err(InvalidLine::Address);
    }
    let mut node = Node::new(id);
    let mut given = Vec::new();
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if given.contains(&name) {
            return Err(InvalidLine::Twice(name.into()));
        }
        given.push(name);
        match name {
            "weight" => node.weight = value.parse()?,
            "state" => node.state = value.parse()?,
            "zone" if !value.is_empty() => node.zone = Some(value.into()),
            _ => return Err(InvalidLine::Attribute(word.into())),
        }
    }
    Ok(Some(node))
}

fn nodes(path: &Path, content: &Content) -> Result<Vec<Node>, FileError> {
    let text = content
        .as_ref()
        .map_err(|problem| FileError::Unreadable { path: path.into(), problem: problem.to_string() })?;
    File::parse(path, text)
}

/// A file's text, or what the system said instead.
type Content = Result<Arc<str>, Arc<str>>;

/// What one look at the file saw.
#[derive(Debug, PartialEq)]
struct Look {
    stamp: Option<Stamp>,
    content: Content,
}

impl Look {
    /// Looks at the file; reads it only where its stamp does not prove it to be unchanged since `before`.
    async fn at(path: &Path, before: Option<&Self>) -> Self {
        let stamp = match Stamp::of(path).await {
            Ok(stamp) => stamp,
            Err(error) => return Self { stamp: None, content: Err(error.to_string().into()) },
        };
        if let Some(before) = before
            && before.stamp.as_ref() == Some(&stamp)
            && stamp.is_old()
        {
            return Self { stamp: Some(stamp), content: before.content.clone() };
        }
        let content = tokio::fs::read_to_string(path).await;
        Self { stamp: Some(stamp), content: content.map(Into::into).map_err(|e| e.to_string().into()) }
    }
}

/// What tells two states of a file apart, mostly.
#[derive(Debug, PartialEq)]
struct Stamp {
    /// The file behind the name: a rename puts another one there.
    #[cfg(unix)]
    inode: u64,
    length: u64,
    modified: SystemTime,
}

impl Stamp {
    async fn of(path: &Path) -> io::Result<Self> {
        let metadata = tokio::fs::metadata(path).await?;
        Ok(Self {
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&metadata),
            length: metadata.len(),
            modified: metadata.modified()?,
        })
    }

    fn is_old(&self) -> bool {
        self.modified.elapsed().is_ok_and(|age| age >= YOUNG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeState;

    fn parse(text: &str) -> Result<Vec<Node>, FileError> {
        nodes(Path::new("members"), &Ok(text.into()))
    }

    #[test]
    fn every_attribute_comment_and_blank_line_is_understood() {
        let text = "# the ring\n\n10.0.0.1:7400\r\n  10.0.0.2:7400 state=draining  zone=a weight=200 # old\n[::1]:7400#x";
        let nodes = parse(text).unwrap();
        assert_eq!(
            nodes.iter().map(|n| n.id.as_str()).collect::<Vec<_>>(),
            ["10.0.0.1:7400", "10.0.0.2:7400", "[::1]:7400"]
        );
        assert_eq!(nodes[0], Node::new(nodes[0].id.clone()));
        assert_eq!(
            (nodes[1].weight.get(), nodes[1].zone.as_deref(), nodes[1].state),
            (200, Some("a"), NodeState::Draining)
        );
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        for (line, problem) in [
            ("10.0.0.1", "expected ip:port"),
            ("10.0.0.1:0", "a port other than 0"),
            ("pod-0", "expected ip:port"),
            ("10.0.0.1:7400 weight=0", "expected 1 to 1000"),
            ("10.0.0.1:7400 weight=1001", "expected 1 to 1000"),
            ("10.0.0.1:7400 weight=1.5", "expected 1 to 1000"),
            ("10.0.0.1:7400 state=gone", "expected ready or draining"),
            ("10.0.0.1:7400 zone=", "\"zone=\" is no attribute"),
            ("10.0.0.1:7400 colour=red", "\"colour=red\" is no attribute"),
            ("10.0.0.1:7400 10.0.0.2:7400", "\"10.0.0.2:7400\" is no attribute"),
            ("10.0.0.1:7400 weight=1 weight=2", "weight is given twice"),
        ] {
            let error = parse(&format!("10.0.0.9:1\n{line}\n")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("members:2: {line:?}: ")), "{error}");
            assert!(error.contains(problem), "{error}");
        }
    }
}
