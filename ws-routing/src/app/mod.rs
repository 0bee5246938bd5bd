//! How a connection reaches the application. Each way is one file that gives a stream which speaks WebSocket, as a
//! server does: what follows is the same for all.

mod websocket;

use std::{fmt::Debug, future::Future, pin::Pin};

pub use websocket::{InvalidApp, WebSocketApp};

use crate::proxy::{
    LegStream,
    connect::{DialError, OpenError, Opened},
    handshake::{Handshake, LegHeaders},
};

/// A way to the application.
pub trait App: Debug + Send + Sync {
    /// Opens the application's side of one connection.
    ///
    /// # Errors
    ///
    /// The future gives an [`AppError`] when the application has not answered; that it refuses is an answer.
    fn open<'a>(&'a self, handshake: &'a Handshake, leg: &'a LegHeaders) -> Opening<'a>;
}

/// What [`App::open`] returns.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Result<Opened<LegStream>, AppError>> + Send + 'a>>;

/// Why the application has not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// It cannot be connected to.
    #[error("the application cannot be reached")]
    Dial(#[from] DialError),
    /// It did not answer, or with nonsense.
    #[error("the application did not answer")]
    Open(#[from] OpenError),
}
