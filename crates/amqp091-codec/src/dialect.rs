/// A version of the protocol, as far as it changes the bytes on the wire.
///
/// Frames and content headers are the same in all three. Methods differ between 0-8 and the later two, and
/// field tables have fewer types in 0-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// AMQP 0-8.
    Amqp08,
    /// AMQP 0-9: the methods of 0-9-1 under another version number.
    Amqp09,
    /// AMQP 0-9-1 with RabbitMQ's extensions.
    Amqp091,
}

impl Dialect {
    /// Length of a protocol header, in bytes.
    pub const HEADER_LEN: usize = 8;

    /// The protocol header that asks for AMQP 0-9-1, which is also what a server answers to one that it does
    /// not serve.
    pub const HEADER_091: [u8; Self::HEADER_LEN] = *b"AMQP\x00\x00\x09\x01";

    /// The dialect that a client asks for, if it is one of these.
    ///
    /// 0-8 has two forms: `1 1 8 0` from its specification and `1 1 9 1`, which py-amqplib sends.
    #[must_use]
    pub fn from_protocol_header(header: &[u8; Self::HEADER_LEN]) -> Option<Self> {
        match header {
            b"AMQP\x01\x01\x08\x00" | b"AMQP\x01\x01\x09\x01" => Some(Self::Amqp08),
            b"AMQP\x01\x01\x00\x09" => Some(Self::Amqp09),
            &Self::HEADER_091 => Some(Self::Amqp091),
            _ => None,
        }
    }

    /// Major and minor version as `connection.start` carries them; clients compare them with their own.
    #[must_use]
    pub fn version(self) -> (u8, u8) {
        match self {
            Self::Amqp08 => (8, 0),
            Self::Amqp09 | Self::Amqp091 => (0, 9),
        }
    }
}
