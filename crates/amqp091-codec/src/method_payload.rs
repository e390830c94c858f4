//! Payload of a method frame: class id, method id, arguments (0-9-1 4.2.4).

use crate::arguments::Arguments;
use crate::{DecodeError, Dialect, Method};

impl<'a> Method<'a> {
    /// Reads the payload of a method frame.
    ///
    /// # Errors
    /// If the dialect has no such method, or the arguments are not exactly what it has.
    pub fn decode(dialect: Dialect, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let Some((ids, arguments)) = payload.split_first_chunk() else {
            return Err(DecodeError::NoId { len: payload.len() });
        };
        let [c1, c0, m1, m0] = *ids;
        let (class, method) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
        Self::read(&mut Arguments::new(arguments, dialect, class, method))
    }

    /// Appends the payload of a method frame.
    ///
    /// # Panics
    /// If the dialect lacks the method ([`Method::id_in`] tells). A server answers only what was asked, so
    /// this is a bug of the caller; the other dialect's ids might mean something else to the client.
    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        let (class, method) = self.id(dialect);
        let ids = u32::from(class) << 16 | u32::from(method);
        out.extend_from_slice(&ids.to_be_bytes());
        self.write_arguments(dialect, out);
    }

    /// Class and method id.
    ///
    /// # Panics
    /// If the dialect lacks the method, as [`Method::encode`] does.
    #[must_use]
    pub fn id(&self, dialect: Dialect) -> (u16, u16) {
        match self.id_in(dialect) {
            Some(id) => id,
            None => panic!("{} does not exist in {dialect:?}", self.name()),
        }
    }
}
