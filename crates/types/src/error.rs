use std::fmt;

/// An AMQP reply code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyCode(pub u16);

/// How far an error reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The channel is closed; the connection and its other channels go on.
    Channel,
    /// The connection is closed.
    Connection,
}

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $scope:ident;)*) => {
        impl ReplyCode {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            /// The code's name as it begins a reply text; unknown codes are internal errors.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0 { $($code => stringify!($name),)* _ => "INTERNAL_ERROR" }
            }

            /// How far an error with this code reaches (`hard-error` in the specification: connection).
            #[must_use]
            pub fn scope(self) -> Scope {
                match self.0 { $($code => Scope::$scope,)* _ => Scope::Connection }
            }
        }
    };
}

reply_codes! {
    /// Success: the reply code of a regular close.
    REPLY_SUCCESS = 200, Channel;
    /// Larger than the server takes now.
    CONTENT_TOO_LARGE = 311, Channel;
    /// A mandatory message had no queue to go to.
    NO_ROUTE = 312, Channel;
    /// An immediate message had no consumer to go to.
    NO_CONSUMERS = 313, Channel;
    /// An operator or the node's shutdown closed the connection.
    CONNECTION_FORCED = 320, Connection;
    /// The client asked for an unknown virtual host in an unknown way.
    INVALID_PATH = 402, Connection;
    /// No permission.
    ACCESS_REFUSED = 403, Channel;
    /// No such queue or exchange.
    NOT_FOUND = 404, Channel;
    /// Another connection holds the queue exclusively.
    RESOURCE_LOCKED = 405, Channel;
    /// The request does not fit the object's state.
    PRECONDITION_FAILED = 406, Channel;
    /// A frame that cannot be decoded.
    FRAME_ERROR = 501, Connection;
    /// A field with an illegal value.
    SYNTAX_ERROR = 502, Connection;
    /// A method that is unknown or out of order.
    COMMAND_INVALID = 503, Connection;
    /// A channel that is not open, or opened twice.
    CHANNEL_ERROR = 504, Connection;
    /// A frame out of order.
    UNEXPECTED_FRAME = 505, Connection;
    /// The server is out of something.
    RESOURCE_ERROR = 506, Connection;
    /// Not allowed for this client.
    NOT_ALLOWED = 530, Connection;
    /// Known, but not offered.
    NOT_IMPLEMENTED = 540, Connection;
    /// A bug or a failed dependency.
    INTERNAL_ERROR = 541, Connection;
}

/// A channel or connection exception: what the client is told, word for word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} - {explanation}", code.name())]
pub struct AmqpError {
    /// Reply code; it decides the scope.
    pub code: ReplyCode,
    /// The text behind `CODE_NAME - `.
    pub explanation: String,
}

impl AmqpError {
    /// Longest reply text on the wire, in bytes (a short string).
    const REPLY_TEXT_LEN_MAX: usize = 255;

    /// An exception with RabbitMQ's explanation for this case.
    #[must_use]
    pub fn new(code: ReplyCode, explanation: impl Into<String>) -> Self {
        Self { code, explanation: explanation.into() }
    }

    /// The scope that the reply code gives it.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.code.scope()
    }

    /// `CODE_NAME - explanation`; what does not fit into a short string is cut at a character border and ends
    /// with dots (`rabbit_binary_generator:amqp_exception_explanation/2`).
    #[must_use]
    pub fn reply_text(&self) -> String {
        const DOTS: &str = "...";
        let mut text = self.to_string();
        if text.len() > Self::REPLY_TEXT_LEN_MAX {
            let mut end = Self::REPLY_TEXT_LEN_MAX - DOTS.len();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push_str(DOTS);
        }
        text
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.name())
    }
}

macro_rules! constructors {
    ($($fn:ident => $code:ident),* $(,)?) => {
        impl AmqpError {
            $(#[doc = concat!("An exception with code `", stringify!($code), "`.")]
            #[must_use]
            pub fn $fn(explanation: impl Into<String>) -> Self {
                Self::new(ReplyCode::$code, explanation)
            })*
        }
    };
}

constructors! {
    connection_forced => CONNECTION_FORCED,
    access_refused => ACCESS_REFUSED,
    not_found => NOT_FOUND,
    resource_locked => RESOURCE_LOCKED,
    precondition_failed => PRECONDITION_FAILED,
    frame_error => FRAME_ERROR,
    syntax_error => SYNTAX_ERROR,
    command_invalid => COMMAND_INVALID,
    channel_error => CHANNEL_ERROR,
    unexpected_frame => UNEXPECTED_FRAME,
    resource_error => RESOURCE_ERROR,
    not_allowed => NOT_ALLOWED,
    not_implemented => NOT_IMPLEMENTED,
    internal_error => INTERNAL_ERROR,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = |explanation: &str| AmqpError::not_found(explanation).reply_text();
        assert_eq!(text("no queue"), "NOT_FOUND - no queue");
        let cut = text(&"x".repeat(300));
        assert_eq!((cut.len(), cut.ends_with("x...")), (255, true));
        let cut = text(&"\u{20ac}".repeat(100));
        assert!(cut.len() <= 255 && cut.ends_with("\u{20ac}..."));
    }
}
