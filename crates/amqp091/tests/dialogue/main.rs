//! Dialogues with the connection machine, word for word.
//!
//! A script of what a client says is played against the machine with a broker in memory; the transcript shows
//! every frame that comes back. Lines of the client stand at the margin, those of the server are indented.
//! `UPDATE_EXPECT=1` writes the transcripts anew.

#![allow(clippy::unwrap_used, reason = "these are tests throughout")]

mod channels;
mod closing;
mod confirms;
mod content;
mod deliveries;
mod frames;
mod handshake;
mod script;
mod splits;
mod stage;
mod throttle;
mod time;
mod topology;
mod transactions;
