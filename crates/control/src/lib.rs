//! The control socket: what operators ask of a running broker, and what it answers.
//!
//! The broker listens on a Unix socket in its data directory that only its own user may open. A client connects, sends
//! one [`Request`], and gets the rows of a listing in pages and then the end: [`Response::Done`] or
//! [`Response::Failed`]. Everything is JSON behind its length (see [`frame`]).

mod answer;
mod cell;
mod listings;
mod messages;
mod protocol;
mod server;

pub mod columns;
pub mod frame;

pub use cell::Cell;
pub use protocol::{
    COMPATIBLE_VERSION, Change, Envelope, Failure, HandleMessages, Limit, Listing, MessageAction,
    MessageChoice, MessagePlace, MessageTarget, NamedParameter, NamedPolicy, Request, Response, Row, Status,
    VERSION,
};
pub use server::{ControlError, Node, SOCKET, bind, serve};
