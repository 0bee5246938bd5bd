//! The members file of a test: what `--members file:` follows.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::process;

/// A members file with one line a node; every edit replaces the file by a rename.
pub struct MembersFile {
    path: PathBuf,
    nodes: BTreeMap<String, &'static str>,
}

impl MembersFile {
    /// A new file with these nodes, all ready.
    pub fn new(nodes: impl IntoIterator<Item = String>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("members-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = process::scratch().join(name);
        let file = Self { path, nodes: nodes.into_iter().map(|id| (id, "")).collect() };
        file.write();
        file
    }

    /// The value of `--members`.
    pub fn uri(&self) -> String {
        format!("file:{}", self.path.display())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&mut self, id: &str) {
        self.edit(|nodes| _ = nodes.insert(id.to_owned(), ""));
    }

    pub fn drain(&mut self, id: &str) {
        self.edit(|nodes| _ = nodes.insert(id.to_owned(), " state=draining"));
    }

    pub fn remove(&mut self, id: &str) {
        self.edit(|nodes| _ = nodes.remove(id));
    }

    /// Several changes as one.
    pub fn edit(&mut self, change: impl FnOnce(&mut BTreeMap<String, &'static str>)) {
        change(&mut self.nodes);
        self.write();
    }

    /// Replaces the file by any text, in place: for broken files.
    pub fn overwrite(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }

    /// The nodes that own keys now.
    pub fn owning(&self) -> Vec<String> {
        let some_ready = self.nodes.values().any(|state| state.is_empty());
        let owning = self.nodes.iter().filter(|(_, state)| state.is_empty() || !some_ready);
        owning.map(|(id, _)| id.clone()).collect()
    }

    fn write(&self) {
        let text: String = self.nodes.iter().map(|(id, state)| format!("{id}{state}\n")).collect();
        let next = self.path.with_extension("next");
        fs::write(&next, text).unwrap();
        fs::rename(next, &self.path).unwrap();
    }
}

impl Drop for MembersFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}
