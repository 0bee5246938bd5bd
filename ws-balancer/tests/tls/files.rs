//! A certificate and its key in files, replaced in all the ways in which that is done.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use super::{authority::Leaf, support::process::scratch};

/// How files are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Each is written beside its place, and renamed.
    Renamed,
    /// Each is written where it is.
    InPlace,
    /// Both are links through `..data`, a link to a directory: that link is replaced, as Kubernetes does.
    Swapped,
}

/// A directory with `tls.crt` and `tls.key`; it is removed with this.
pub struct Files {
    dir: PathBuf,
    how: How,
    versions: u32,
}

const NAMES: [&str; 2] = ["tls.crt", "tls.key"];

impl Files {
    pub fn new(how: How, leaf: &Leaf) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("tls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut files = Self { dir: scratch().join(name), how, versions: 0 };
        fs::create_dir_all(&files.dir).unwrap();
        if how == How::Swapped {
            for name in NAMES {
                link(&Path::new("..data").join(name), &files.dir.join(name));
            }
        }
        files.write(&leaf.chain, &leaf.key);
        files
    }

    /// Where the certificate and the key are.
    pub fn paths(&self) -> [PathBuf; 2] {
        NAMES.map(|name| self.dir.join(name))
    }

    pub fn replace(&mut self, leaf: &Leaf) {
        self.write(&leaf.chain, &leaf.key);
    }

    /// Puts that there in place of certificate and key.
    pub fn write(&mut self, chain: &str, key: &str) {
        self.versions += 1;
        match self.how {
            How::Renamed => self.each(chain, key, |path, text| {
                let beside = path.with_extension("new");
                fs::write(&beside, text).unwrap();
                fs::rename(&beside, path).unwrap();
            }),
            How::InPlace => self.each(chain, key, |path, text| fs::write(path, text).unwrap()),
            How::Swapped => self.swap(chain, key),
        }
    }

    fn each(&self, chain: &str, key: &str, put: impl Fn(&Path, &str)) {
        for (path, text) in self.paths().iter().zip([chain, key]) {
            put(path, text);
        }
    }

    fn swap(&self, chain: &str, key: &str) {
        let version = format!("..{}", self.versions);
        let (whole, link_to) = (self.dir.join(&version), self.dir.join("..data_tmp"));
        fs::create_dir(&whole).unwrap();
        for (name, text) in NAMES.iter().zip([chain, key]) {
            fs::write(whole.join(name), text).unwrap();
        }
        link(Path::new(&version), &link_to);
        fs::rename(link_to, self.dir.join("..data")).unwrap();
        drop(fs::remove_dir_all(self.dir.join(format!("..{}", self.versions - 1))));
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn link(target: &Path, at: &Path) {
    std::os::unix::fs::symlink(target, at).unwrap();
}
