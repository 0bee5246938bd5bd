//! Members as JSON: the object of `GET /v1/members`, and a line of the members stream.

use serde::{Deserialize, Serialize};

use super::Members;
use crate::node::{InvalidNode, Node, Weight};

/// A whole set of members: `{"fingerprint":"16 hex","nodes":[{"id","weight","zone","state"}]}`.
///
/// Fields that are not known are ignored, so that a newer process may send more; `weight`, `zone` and `state` may be
/// absent, and are then the defaults of a [`Node`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    fingerprint: String,
    nodes: Vec<Entry>,
}

impl Snapshot {
    /// Copies what is to be sent.
    #[must_use]
    pub fn of(members: &Members) -> Self {
        Self {
            fingerprint: members.fingerprint().to_string(),
            nodes: members.nodes().iter().map(Entry::of).collect(),
        }
    }

    /// What the sender computed, as 16 hex digits. Other than that of the same nodes here: the two differ in their
    /// ring seed or in their version.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The nodes that were sent.
    ///
    /// # Errors
    ///
    /// [`InvalidNode`] when one is none.
    pub fn nodes(&self) -> Result<Vec<Node>, InvalidNode> {
        self.nodes.iter().map(Entry::node).collect()
    }

    /// One line of the members stream, with its end.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default(); // Strings and numbers alone cannot fail.
        line.push(b'\n');
        line
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: String,
    #[serde(default = "default_weight")]
    weight: u16,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default = "default_state")]
    state: String,
}

impl Entry {
    fn of(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            weight: node.weight.get(),
            zone: node.zone.as_deref().map(Into::into),
            state: node.state.to_string(),
        }
    }

    fn node(&self) -> Result<Node, InvalidNode> {
        Ok(Node {
            id: self.id.parse()?,
            weight: Weight::new(self.weight)?,
            zone: self.zone.as_deref().map(Into::into),
            state: self.state.parse()?,
        })
    }
}

fn default_weight() -> u16 {
    Weight::default().get()
}

fn default_state() -> String {
    crate::node::NodeState::default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeState;

    #[test]
    fn the_object_is_as_documented_and_comes_back_whole() {
        let mut old = Node::new("10.0.0.2:7400".parse().unwrap());
        (old.weight, old.zone, old.state) =
            (Weight::new(200).unwrap(), Some("a".into()), NodeState::Draining);
        let members = Members::new([Node::new("10.0.0.1:7400".parse().unwrap()), old], 0);
        let snapshot = Snapshot::of(&members);
        let text = String::from_utf8(snapshot.line()).unwrap();
        let expected = format!(
            concat!(
                r#"{{"fingerprint":"{}","nodes":["#,
                r#"{{"id":"10.0.0.1:7400","weight":100,"zone":null,"state":"ready"}},"#,
                r#"{{"id":"10.0.0.2:7400","weight":200,"zone":"a","state":"draining"}}]}}"#,
                "\n"
            ),
            members.fingerprint()
        );
        assert_eq!(text, expected);
        let back: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(Members::new(back.nodes().unwrap(), 0), members);
        assert_eq!(back.fingerprint(), members.fingerprint().to_string());
    }

    #[test]
    fn more_fields_and_fewer_are_understood_and_bad_nodes_are_not() {
        let read = |nodes: &str| {
            let text = format!(r#"{{"fingerprint":"0","nodes":{nodes},"age":1}}"#);
            serde_json::from_str::<Snapshot>(&text).unwrap().nodes()
        };
        assert_eq!(
            read(r#"[{"id":"10.0.0.1:1","colour":"red"}]"#).unwrap(),
            [Node::new("10.0.0.1:1".parse().unwrap())]
        );
        read(r#"[{"id":"no node"}]"#).unwrap_err();
        read(r#"[{"id":"10.0.0.1:1","weight":0}]"#).unwrap_err();
        read(r#"[{"id":"10.0.0.1:1","state":"gone"}]"#).unwrap_err();
    }
}
