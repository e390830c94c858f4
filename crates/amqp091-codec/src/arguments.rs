use warren_types::FieldTable;

use crate::reader::{Reader, Truncated};
use crate::{DecodeError, Dialect, Method, TableError, table};

/// The arguments of a method that is being decoded: a [`Reader`] whose errors name the method.
///
/// The error type is the final one so that a decoded method is built where the caller wants it. Converting
/// from another `Result` would copy it, at the cost of a third of the time for a `basic.publish`.
#[derive(Debug)]
pub(crate) struct Arguments<'a> {
    reader: Reader<'a>,
    pub(crate) dialect: Dialect,
    pub(crate) class: u16,
    pub(crate) method: u16,
}

impl<'a> Arguments<'a> {
    pub(crate) fn new(bytes: &'a [u8], dialect: Dialect, class: u16, method: u16) -> Self {
        Self { reader: Reader::new(bytes), dialect, class, method }
    }

    /// Whether the dialect is 0-8, the one whose methods differ from the others'.
    pub(crate) fn v08(&self) -> bool {
        self.dialect == Dialect::Amqp08
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.reader.u8().map_err(|end| self.truncated(end))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.reader.u16().map_err(|end| self.truncated(end))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.reader.u32().map_err(|end| self.truncated(end))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.reader.u64().map_err(|end| self.truncated(end))
    }

    /// An octet of which the lowest `N` bits are meant, the first one lowest; RabbitMQ ignores the others.
    pub(crate) fn bits<const N: usize>(&mut self) -> Result<[bool; N], DecodeError> {
        const { assert!(N <= 8, "bits of more than one octet") };
        let octet = self.u8()?;
        Ok(std::array::from_fn(|bit| octet & (1 << bit) != 0))
    }

    pub(crate) fn short_string(&mut self) -> Result<&'a [u8], DecodeError> {
        self.reader.short_string().map_err(|end| self.truncated(end))
    }

    pub(crate) fn long_string(&mut self) -> Result<&'a [u8], DecodeError> {
        self.reader.long_string().map_err(|end| self.truncated(end))
    }

    pub(crate) fn table(&mut self) -> Result<FieldTable, DecodeError> {
        let body = self.long_string()?;
        table::decode(body).map_err(|error| self.bad_table(error))
    }

    /// Nothing may follow the last argument.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.reader.is_empty() { Ok(()) } else { Err(self.trailing()) }
    }

    #[cold]
    pub(crate) fn unknown(&self) -> DecodeError {
        DecodeError::UnknownMethod { class: self.class, method: self.method }
    }

    #[cold]
    fn truncated(&self, _: Truncated) -> DecodeError {
        DecodeError::Truncated { class: self.class, method: self.method, name: self.name() }
    }

    #[cold]
    fn trailing(&self) -> DecodeError {
        let len = self.reader.rest().len();
        DecodeError::Trailing { class: self.class, method: self.method, name: self.name(), len }
    }

    #[cold]
    fn bad_table(&self, error: TableError) -> DecodeError {
        DecodeError::Table { class: self.class, method: self.method, name: self.name(), error }
    }

    /// Only methods that the dialect has are read as far as to fail otherwise than as unknown.
    fn name(&self) -> &'static str {
        Method::name_of(self.dialect, self.class, self.method).unwrap_or("unknown method")
    }
}
