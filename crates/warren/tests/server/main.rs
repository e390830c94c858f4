//! Tests of the program as its users run it: a process with flags, signals and sockets.
//!
//! Each test starts a broker of its own on a port that the system chooses, and talks to it through a small
//! blocking client. Whatever is expected is waited for with a limit; nothing sleeps in the hope that it is enough.

mod abuse;
mod backpressure;
mod broker;
mod client;
mod ctl;
mod deduplication;
mod durability;
mod events;
mod heartbeats;
mod isolation;
mod login;
mod messages;
mod perf;
mod queues;
mod restarts;
mod shutdown;
mod startup;
mod witness;
