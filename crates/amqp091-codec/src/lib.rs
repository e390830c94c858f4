//! AMQP 0-8, 0-9 and 0-9-1 on the wire: frames, methods, field tables, content headers.
//!
//! Pure functions from bytes to values and back. Strings are borrowed from the frame they came in; only field
//! tables are built. What the peer sends is not trusted: every length is checked, nesting is bounded
//! ([`table::DEPTH_MAX`]), and nothing panics whatever the bytes are.
//!
//! The protocol's version is a parameter, [`Dialect`], wherever it makes a difference. The methods come from
//! RabbitMQ's tables in `spec/` by `cargo xtask codegen`; RabbitMQ serves 0-9 with its 0-9-1 table, and so
//! does this crate.
//!
//! Deliberately absent: sockets and buffers, frame size limits, and everything that depends on what a
//! connection did before. Those belong to the connection machine.

mod arguments;
mod content_header;
mod decode_error;
mod dialect;
mod method;
mod method_payload;
mod properties;
mod reader;
mod writer;

pub mod frame;
pub mod table;

pub use content_header::{ContentHeader, HeaderTooShort};
pub use decode_error::DecodeError;
pub use dialect::Dialect;
pub use method::Method;
pub use properties::{OwnedProperties, Properties, PropertiesError};
pub use table::TableError;
