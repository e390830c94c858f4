//! Publishes that say the same as the one before, but for the body: what clients mostly send.
//!
//! A channel remembers its last publish as bytes, with what came out of reading them. The next one with the same bytes
//! needs no reading, and no route as long as the session says that the old one is right.

use warren_types::session::{Route, RouteGeneration, Session};
use warren_types::{Message, MessageHead, MessageParts};

/// The last publish of a channel that can be repeated.
#[derive(Debug)]
pub(crate) struct LastPublish {
    /// The method frame's payload.
    method: Vec<u8>,
    /// Property flags and list.
    properties: Vec<u8>,
    head: MessageHead,
    /// Whether it is returned if it is unroutable.
    pub mandatory: bool,
    pub route: Route,
    generation: RouteGeneration,
}

impl LastPublish {
    /// Longest method and properties that are remembered, in bytes: a channel must stay small.
    const LEN_MAX: usize = 1024;

    /// Whether a publish with this method and these properties can be remembered.
    pub(crate) fn has_room(method: &[u8], properties: &[u8]) -> bool {
        method.len() + properties.len() <= Self::LEN_MAX
    }

    /// Remembers a publish whose properties are passed on as they are, in the place of an earlier one.
    pub(crate) fn set<'a>(
        place: &'a mut Option<Box<Self>>,
        method: &[u8],
        parts: &MessageParts<'_>,
        mandatory: bool,
        (route, generation): (Route, RouteGeneration),
    ) -> &'a mut Self {
        let last = place.get_or_insert_with(|| {
            let (method, properties, head) = Default::default();
            Box::new(Self { method, properties, head, mandatory, route: route.clone(), generation })
        });
        last.method.clear();
        last.method.extend_from_slice(method);
        last.properties.clear();
        last.properties.extend_from_slice(parts.properties);
        last.head.set(parts);
        (last.mandatory, last.route, last.generation) = (mandatory, route, generation);
        last
    }

    /// Whether a method is the same.
    pub(crate) fn is_method(&self, method: &[u8]) -> bool {
        self.method == method
    }

    /// Whether the properties are the same too, and the route is still right.
    pub(crate) fn is_current(&self, properties: &[u8], session: &impl Session) -> bool {
        self.properties == properties && session.is_current(self.generation)
    }

    /// The message with another body.
    pub(crate) fn message(&mut self, body: &[u8]) -> Message {
        self.head.message(body)
    }
}
