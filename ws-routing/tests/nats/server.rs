//! A NATS server of its own for a test.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use super::pod::until;

/// A running server; dropping it ends it.
pub struct Server {
    pub addr: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// `None`, and a word about it, where there is no program of that name.
    pub async fn start() -> Option<Self> {
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: nats-server is not there (Debian: apt-get install nats-server)");
            return None;
        }
        let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut server = Self { addr, child: None };
        server.restart().await;
        Some(server)
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again, at the same port, with nothing of what it knew.
    pub async fn restart(&mut self) {
        self.kill();
        let port = self.addr.port().to_string();
        let child = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        let addr = self.addr;
        until("a server", || std::net::TcpStream::connect(addr).is_ok()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
