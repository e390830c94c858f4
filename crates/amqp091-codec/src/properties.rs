use warren_types::session::{HashProperty, RoutingContent};
use warren_types::{FieldTable, FieldValue};

use crate::reader::{Reader, Truncated};
use crate::writer::put_short_string;
use crate::{Dialect, TableError, table};

/// Properties of class `basic`, in the order of their flags: bit 15 is the first.
const COUNT: usize = 14;
const CONTENT_TYPE: usize = 0;
const CONTENT_ENCODING: usize = 1;
const HEADERS: usize = 2;
const DELIVERY_MODE: usize = 3;
const PRIORITY: usize = 4;
const CORRELATION_ID: usize = 5;
const REPLY_TO: usize = 6;
const EXPIRATION: usize = 7;
const MESSAGE_ID: usize = 8;
const TIMESTAMP: usize = 9;
const TYPE: usize = 10;
const USER_ID: usize = 11;
const APP_ID: usize = 12;
const CLUSTER_ID: usize = 13;

/// The flag which says that another word of flags follows.
const CONTINUED: u16 = 1;

/// The flags of all properties.
const KNOWN: u16 = !0 << (16 - COUNT);

const fn flag(property: usize) -> u16 {
    1 << (15 - property)
}

/// Why bytes are not the properties of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PropertiesError {
    /// The bytes end within the flags or within a property that the flags announce.
    #[error("properties end early")]
    Truncated,
    /// There is more than the flags announce.
    #[error("{0} bytes behind the last property")]
    Trailing(usize),
    /// The flags go on and announce properties that class `basic` does not have.
    #[error("flags of unknown properties")]
    Continued,
    /// The headers are not a field table.
    #[error("in the headers: {0}")]
    Headers(#[from] TableError),
}

impl From<Truncated> for PropertiesError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// The properties of a message, read in place from property flags and property list (0-9-1 4.2.6.1).
///
/// [`Properties::parse`] checks everything once; the accessors then only slice. Nothing is allocated but by
/// [`Properties::headers`] and [`Properties::to_owned`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Properties<'a> {
    raw: &'a [u8],
    flags: u16,
    /// Where in `raw` each property begins whose flag is set.
    starts: [u32; COUNT],
}

impl RoutingContent for Properties<'_> {
    fn headers(&self) -> FieldTable {
        Properties::headers(self).unwrap_or_default()
    }

    fn property(&self, property: HashProperty) -> Option<FieldValue> {
        let text = |value: &[u8]| FieldValue::LongString(value.to_vec());
        match property {
            HashProperty::CorrelationId => self.correlation_id().map(text),
            HashProperty::MessageId => self.message_id().map(text),
            HashProperty::Timestamp => self.timestamp().map(FieldValue::Timestamp),
        }
    }
}

impl<'a> Properties<'a> {
    /// The properties of a message that has none.
    pub const NONE: &'static [u8] = &[0, 0];

    /// Walks over raw properties, as [`ContentHeader::properties`](crate::ContentHeader::properties) has them.
    ///
    /// Bit 1 of the flags, which stands for no property, is ignored, as RabbitMQ does. More words of flags may
    /// follow as long as they announce nothing: class `basic` has no properties beyond the first word.
    ///
    /// # Errors
    /// If the bytes are too few, too many, or the headers malformed.
    pub fn parse(raw: &'a [u8]) -> Result<Self, PropertiesError> {
        let mut reader = Reader::new(raw);
        let flags = reader.u16()?;
        let mut word = flags;
        while word & CONTINUED != 0 {
            word = reader.u16()?;
            if word & !CONTINUED != 0 {
                return Err(PropertiesError::Continued);
            }
        }
        let mut starts = [0; COUNT];
        let mut announced = flags & KNOWN;
        while announced != 0 {
            let property = announced.leading_zeros() as usize;
            announced &= !flag(property);
            starts[property] = (raw.len() - reader.rest().len()) as u32;
            match property {
                HEADERS => table::validate(reader.long_string()?)?,
                DELIVERY_MODE | PRIORITY => drop(reader.u8()?),
                TIMESTAMP => drop(reader.u64()?),
                _ => drop(reader.short_string()?),
            }
        }
        match reader.rest().len() {
            0 => Ok(Self { raw, flags, starts }),
            len => Err(PropertiesError::Trailing(len)),
        }
    }

    /// The bytes that were parsed.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// MIME type of the body.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a [u8]> {
        self.short_string(CONTENT_TYPE)
    }

    /// MIME encoding of the body.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&'a [u8]> {
        self.short_string(CONTENT_ENCODING)
    }

    /// Body of the headers' field table, without its length; [`table::find`] and kin read from it.
    #[must_use]
    pub fn headers_raw(&self) -> Option<&'a [u8]> {
        self.reader(HEADERS)?.long_string().ok()
    }

    /// The headers, decoded now.
    #[must_use]
    pub fn headers(&self) -> Option<FieldTable> {
        table::decode(self.headers_raw()?).ok()
    }

    /// 2 for a persistent message, anything else for a transient one.
    #[must_use]
    pub fn delivery_mode(&self) -> Option<u8> {
        self.reader(DELIVERY_MODE)?.u8().ok()
    }

    /// Priority, higher first.
    #[must_use]
    pub fn priority(&self) -> Option<u8> {
        self.reader(PRIORITY)?.u8().ok()
    }

    /// Which request this is the reply to.
    #[must_use]
    pub fn correlation_id(&self) -> Option<&'a [u8]> {
        self.short_string(CORRELATION_ID)
    }

    /// Where replies should go.
    #[must_use]
    pub fn reply_to(&self) -> Option<&'a [u8]> {
        self.short_string(REPLY_TO)
    }

    /// Time to live in milliseconds, as decimal text.
    #[must_use]
    pub fn expiration(&self) -> Option<&'a [u8]> {
        self.short_string(EXPIRATION)
    }

    /// The publisher's id of the message.
    #[must_use]
    pub fn message_id(&self) -> Option<&'a [u8]> {
        self.short_string(MESSAGE_ID)
    }

    /// The publisher's time, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn timestamp(&self) -> Option<u64> {
        self.reader(TIMESTAMP)?.u64().ok()
    }

    /// The publisher's name for this kind of message; `type` in the specification.
    #[must_use]
    pub fn type_(&self) -> Option<&'a [u8]> {
        self.short_string(TYPE)
    }

    /// User that publishes; the broker checks it against the login.
    #[must_use]
    pub fn user_id(&self) -> Option<&'a [u8]> {
        self.short_string(USER_ID)
    }

    /// The publisher's name for itself.
    #[must_use]
    pub fn app_id(&self) -> Option<&'a [u8]> {
        self.short_string(APP_ID)
    }

    /// Deprecated; passed on.
    #[must_use]
    pub fn cluster_id(&self) -> Option<&'a [u8]> {
        self.short_string(CLUSTER_ID)
    }

    /// Whether there is a header with this name. Scans the headers' top level and decodes nothing.
    #[must_use]
    pub fn has_header(&self, name: &[u8]) -> bool {
        self.headers_raw().is_some_and(|body| table::contains(body, name))
    }

    /// Everything decoded and copied, to change it.
    #[must_use]
    pub fn to_owned(&self) -> OwnedProperties {
        let owned = |value: Option<&[u8]>| value.map(<[u8]>::to_vec);
        OwnedProperties {
            content_type: owned(self.content_type()),
            content_encoding: owned(self.content_encoding()),
            headers: self.headers(),
            delivery_mode: self.delivery_mode(),
            priority: self.priority(),
            correlation_id: owned(self.correlation_id()),
            reply_to: owned(self.reply_to()),
            expiration: owned(self.expiration()),
            message_id: owned(self.message_id()),
            timestamp: self.timestamp(),
            type_: owned(self.type_()),
            user_id: owned(self.user_id()),
            app_id: owned(self.app_id()),
            cluster_id: owned(self.cluster_id()),
        }
    }

    fn short_string(&self, property: usize) -> Option<&'a [u8]> {
        self.reader(property)?.short_string().ok()
    }

    /// A reader that stands at the property, if there is one. Its bytes were checked by `parse`.
    fn reader(&self, property: usize) -> Option<Reader<'a>> {
        if self.flags & flag(property) == 0 {
            return None;
        }
        self.raw.get(self.starts[property] as usize..).map(Reader::new)
    }
}

/// The properties of a message as values: where the broker must change one, or makes a message itself.
///
/// Short strings are at most 255 bytes; longer ones are a bug and are cut when encoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnedProperties {
    /// See [`Properties::content_type`].
    pub content_type: Option<Vec<u8>>,
    /// See [`Properties::content_encoding`].
    pub content_encoding: Option<Vec<u8>>,
    /// See [`Properties::headers`].
    pub headers: Option<FieldTable>,
    /// See [`Properties::delivery_mode`].
    pub delivery_mode: Option<u8>,
    /// See [`Properties::priority`].
    pub priority: Option<u8>,
    /// See [`Properties::correlation_id`].
    pub correlation_id: Option<Vec<u8>>,
    /// See [`Properties::reply_to`].
    pub reply_to: Option<Vec<u8>>,
    /// See [`Properties::expiration`].
    pub expiration: Option<Vec<u8>>,
    /// See [`Properties::message_id`].
    pub message_id: Option<Vec<u8>>,
    /// See [`Properties::timestamp`].
    pub timestamp: Option<u64>,
    /// See [`Properties::type_`].
    pub type_: Option<Vec<u8>>,
    /// See [`Properties::user_id`].
    pub user_id: Option<Vec<u8>>,
    /// See [`Properties::app_id`].
    pub app_id: Option<Vec<u8>>,
    /// See [`Properties::cluster_id`].
    pub cluster_id: Option<Vec<u8>>,
}

impl OwnedProperties {
    /// Appends property flags and property list. The dialect decides how the headers are written, see
    /// [`table::encode`]: 0-8 loses types, so it is for what goes to such a client, not for what came from one.
    pub fn encode(&self, dialect: Dialect, out: &mut Vec<u8>) {
        let mut list = List::begin(out);
        list.short_string(CONTENT_TYPE, self.content_type.as_deref());
        list.short_string(CONTENT_ENCODING, self.content_encoding.as_deref());
        list.put(HEADERS, self.headers.as_ref(), |headers, out| table::encode(headers, dialect, out));
        list.put(DELIVERY_MODE, self.delivery_mode, |mode, out| out.push(mode));
        list.put(PRIORITY, self.priority, |priority, out| out.push(priority));
        list.short_string(CORRELATION_ID, self.correlation_id.as_deref());
        list.short_string(REPLY_TO, self.reply_to.as_deref());
        list.short_string(EXPIRATION, self.expiration.as_deref());
        list.short_string(MESSAGE_ID, self.message_id.as_deref());
        list.put(TIMESTAMP, self.timestamp, |seconds, out| out.extend_from_slice(&seconds.to_be_bytes()));
        list.short_string(TYPE, self.type_.as_deref());
        list.short_string(USER_ID, self.user_id.as_deref());
        list.short_string(APP_ID, self.app_id.as_deref());
        list.short_string(CLUSTER_ID, self.cluster_id.as_deref());
        list.end();
    }
}

/// A property list being written; the flags in front of it are filled in at the end.
struct List<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    flags: u16,
}

impl<'a> List<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(Properties::NONE);
        Self { out, start, flags: 0 }
    }

    fn put<T>(&mut self, property: usize, value: Option<T>, write: impl FnOnce(T, &mut Vec<u8>)) {
        if let Some(value) = value {
            self.flags |= flag(property);
            write(value, self.out);
        }
    }

    fn short_string(&mut self, property: usize, value: Option<&[u8]>) {
        self.put(property, value, |bytes, out| put_short_string(out, bytes));
    }

    fn end(self) {
        self.out[self.start..self.start + 2].copy_from_slice(&self.flags.to_be_bytes());
    }
}
