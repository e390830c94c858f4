//! The consistent hash exchange (`rabbit_exchange_type_consistent_hash`): the routing key, a header or a property
//! is hashed, and its hash has one destination. Binding keys are weights.
//!
//! Placement is weighted rendezvous hashing: for a message each destination draws a number that follows from both
//! hashes alone, exponentially distributed with its weight as the rate, and the smallest draw wins. A destination
//! gets the share of messages that its weight is of all weights. Of the others nothing moves when one comes, goes
//! or changes its weight, but what it wins or loses; RabbitMQ, whose buckets are numbered, moves most keys when a
//! destination goes that was not the last to come. Nor does anything depend on the order of bindings, so that a
//! restart changes nothing.
//!
//! Cost: one draw for each destination, some 10 ns. Routes by routing key are remembered by sessions; with a ring
//! they would be found in logarithmic time, but weights of up to 10,000 for each of many queues take more points
//! than one would keep in memory.

use smallvec::SmallVec;
use warren_types::session::HashProperty;
use warren_types::{FieldTable, FieldValue};

use crate::exchange::InvalidExchange;
use crate::stable_hash::combined;
use crate::targets::Target;
use crate::{HashMap, InvalidArgument, to_index};

const HASH_HEADER: &str = "hash-header";
const HASH_PROPERTY: &str = "hash-property";
/// LavinMQ's name for the same as `hash-header`.
const HASH_ON: &str = "x-hash-on";
/// LavinMQ's choice between placements. Ours keeps what either promises.
const ALGORITHM: &str = "x-algorithm";
const ALGORITHMS: [&[u8]; 2] = [b"ring", b"jump"];

const WEIGHT_MAX: u16 = 10_000;

/// What of a message is hashed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum HashOn {
    /// The routing key; others in `CC` and `BCC` do not count.
    #[default]
    RoutingKey,
    /// The header of this name.
    Header(Vec<u8>),
    Property(HashProperty),
}

impl HashOn {
    /// What the arguments of the exchange ask for (its `validate/1` in RabbitMQ).
    pub(crate) fn from_arguments(arguments: &FieldTable) -> Result<Self, InvalidExchange> {
        let text = |name: &'static str| match arguments.get(name) {
            None => Ok(None),
            Some(FieldValue::LongString(text)) => Ok(Some(text.as_slice())),
            Some(value) => Err(InvalidExchange::Type { argument: name, value: value.clone() }),
        };
        if let Some(algorithm) = text(ALGORITHM)?
            && !ALGORITHMS.contains(&algorithm)
        {
            return Err(InvalidExchange::Algorithm(algorithm.to_vec()));
        }
        let header = text(HASH_HEADER)?.or(text(HASH_ON)?);
        match (header, text(HASH_PROPERTY)?) {
            (None, None) => Ok(Self::RoutingKey),
            (Some(header), None) => Ok(Self::Header(header.to_vec())),
            (None, Some(property)) => Ok(Self::Property(match property {
                b"correlation_id" => HashProperty::CorrelationId,
                b"message_id" => HashProperty::MessageId,
                b"timestamp" => HashProperty::Timestamp,
                other => return Err(InvalidExchange::Property(other.to_vec())),
            })),
            (Some(_), Some(_)) => Err(InvalidExchange::HeaderAndProperty),
        }
    }
}

/// The weight in a binding key, as Erlang's `list_to_integer/1` reads it.
pub(crate) fn weight(key: &[u8]) -> Result<u16, InvalidArgument> {
    let (negative, digits) = match key {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidArgument::WeightNotInteger(key.to_vec()));
    }
    let saturated = digits.iter().fold(0_u16, |number, digit| {
        number.saturating_mul(10).saturating_add(u16::from(digit - b'0')).min(WEIGHT_MAX + 1)
    });
    match saturated {
        0 => Err(InvalidArgument::WeightTooSmall),
        _ if negative => Err(InvalidArgument::WeightTooSmall),
        weight if weight > WEIGHT_MAX => Err(InvalidArgument::WeightTooGreat),
        weight => Ok(weight),
    }
}

/// The destinations of a consistent hash exchange.
#[derive(Debug, Default)]
pub(crate) struct ConsistentHash {
    pub(crate) on: HashOn,
    entries: Vec<Entry>,
    /// Where in the list a destination is.
    positions: HashMap<Target, u32>,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// Hash of the destination's name.
    hash: u64,
    /// The weights of its bindings. The least counts: RabbitMQ's rule, that the first one does, would have a restart
    /// change it.
    weights: SmallVec<[u16; 4]>,
    /// 1 / weight, computed once.
    mean: f64,
}

impl Entry {
    fn update(&mut self) {
        self.mean = 1.0 / f64::from(self.weights.iter().copied().min().unwrap_or(1));
    }
}

impl ConsistentHash {
    pub(crate) fn new(on: HashOn) -> Self {
        Self { on, ..Self::default() }
    }

    /// `hash` is that of the destination.
    pub(crate) fn bind(&mut self, target: Target, hash: u64, weight: u16) {
        let position = *self.positions.entry(target).or_insert_with(|| {
            self.entries.push(Entry { target, hash, weights: SmallVec::new(), mean: 1.0 });
            to_index(self.entries.len() - 1)
        });
        let entry = &mut self.entries[position as usize];
        entry.weights.push(weight);
        entry.update();
    }

    pub(crate) fn unbind(&mut self, target: Target, weight: u16) {
        let Some(&position) = self.positions.get(&target) else { return };
        let entry = &mut self.entries[position as usize];
        if let Some(at) = entry.weights.iter().position(|other| *other == weight) {
            entry.weights.swap_remove(at);
        }
        if !entry.weights.is_empty() {
            return entry.update();
        }
        self.positions.remove(&target);
        self.entries.swap_remove(position as usize);
        if let Some(moved) = self.entries.get(position as usize) {
            self.positions.insert(moved.target, position);
        }
    }

    /// The destination of what has this hash; none if there are no bindings.
    pub(crate) fn destination(&self, hash: u64) -> Option<Target> {
        let draw = |entry: &Entry| exponential(combined(hash, entry.hash)) * entry.mean;
        let mut entries = self.entries.iter();
        let first = entries.next()?;
        if self.entries.len() == 1 {
            return Some(first.target);
        }
        let (mut best, mut least) = (first, draw(first));
        for entry in entries {
            let drawn = draw(entry);
            // Equal draws are as good as impossible, but must not leave the choice to the order of the list.
            if drawn < least || (drawn == least && entry.hash < best.hash) {
                (best, least) = (entry, drawn);
            }
        }
        Some(best.target)
    }

    #[cfg(test)]
    pub(crate) fn check(&self, count: &mut dyn FnMut(Target, u32)) {
        assert_eq!(self.entries.len(), self.positions.len());
        for (position, entry) in self.entries.iter().enumerate() {
            assert_eq!(self.positions.get(&entry.target), Some(&to_index(position)));
            assert!(!entry.weights.is_empty());
            count(entry.target, to_index(entry.weights.len()));
        }
    }
}

/// A hash as a number from the exponential distribution with the rate 1: `-ln(u)`, where the hash makes a fraction `u`
/// between 0 and 1.
///
/// The logarithm of a standard library may differ between machines in its last bit. This one consists of additions,
/// multiplications and divisions, which IEEE 754 fixes: its results are the same everywhere, as they must be. Its error
/// is below 1e-11.
fn exponential(hash: u64) -> f64 {
    const MANTISSA: u64 = (1 << 52) - 1;
    const ONE: u64 = 1023 << 52;
    let fraction = ((hash >> 12) as f64 + 0.5) * (1.0 / (1_u64 << 52) as f64);
    let bits = fraction.to_bits();
    let mut exponent = (bits >> 52) as f64 - 1023.0;
    let mut mantissa = f64::from_bits(bits & MANTISSA | ONE);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 (s + s^3/3 + s^5/5 + ...), with s = (m - 1) / (m + 1), here at most 0.172.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for divisor in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * square + 1.0 / divisor;
    }
    -(exponent * std::f64::consts::LN_2 + 2.0 * s * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_as_in_rabbitmq() {
        for (key, expected) in [("1", 1), ("10000", 10_000), ("+5", 5), ("007", 7)] {
            assert_eq!(weight(key.as_bytes()), Ok(expected), "{key}");
        }
        for key in ["0", "-1", "-0", "+0", "-99999999999999999999"] {
            assert_eq!(weight(key.as_bytes()), Err(InvalidArgument::WeightTooSmall), "{key}");
        }
        for key in ["10001", "65536", "99999999999999999999"] {
            assert_eq!(weight(key.as_bytes()), Err(InvalidArgument::WeightTooGreat), "{key}");
        }
        for key in ["", "+", "-", " 1", "1 ", "1.0", "abc", "0x1", "1e3"] {
            assert_eq!(
                weight(key.as_bytes()),
                Err(InvalidArgument::WeightNotInteger(key.as_bytes().to_vec())),
                "{key}"
            );
        }
    }

    fn on(arguments: &[(&str, FieldValue)]) -> Result<HashOn, String> {
        let mut table = FieldTable::new();
        for (name, value) in arguments {
            table.insert(name, value.clone());
        }
        HashOn::from_arguments(&table).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_are_checked() {
        let text = FieldValue::string;
        assert_eq!(on(&[]), Ok(HashOn::RoutingKey));
        assert_eq!(on(&[(HASH_HEADER, text("h"))]), Ok(HashOn::Header(b"h".to_vec())));
        assert_eq!(on(&[(HASH_ON, text("h"))]), Ok(HashOn::Header(b"h".to_vec())));
        for (name, property) in [
            ("correlation_id", HashProperty::CorrelationId),
            ("message_id", HashProperty::MessageId),
            ("timestamp", HashProperty::Timestamp),
        ] {
            assert_eq!(on(&[(HASH_PROPERTY, text(name))]), Ok(HashOn::Property(property)));
        }
        for algorithm in ["ring", "jump"] {
            assert_eq!(on(&[(ALGORITHM, text(algorithm))]), Ok(HashOn::RoutingKey));
        }
        let refused = [
            (vec![(HASH_PROPERTY, text("app_id"))], "Unsupported property: app_id"),
            (
                vec![(HASH_HEADER, text("h")), (HASH_PROPERTY, text("message_id"))],
                "hash-header and hash-property are mutually exclusive",
            ),
            (
                vec![(HASH_ON, text("h")), (HASH_PROPERTY, text("message_id"))],
                "hash-header and hash-property are mutually exclusive",
            ),
            (vec![(ALGORITHM, text("maglev"))], "Unsupported algorithm: maglev"),
            (
                vec![(HASH_HEADER, FieldValue::I32(1))],
                "Invalid hash-header field type signedint (value 1); expected longstr",
            ),
        ];
        for (arguments, expected) in refused {
            assert_eq!(on(&arguments), Err(expected.to_owned()));
        }
    }

    #[test]
    fn the_logarithm_is_one() {
        for hash in
            [0, 1, 1 << 12, 1 << 40, 1 << 63, u64::MAX / 3, u64::MAX / 2, u64::MAX - (1 << 40), u64::MAX]
        {
            let fraction = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
            let expected = -fraction.ln();
            let found = exponential(hash);
            assert!((found - expected).abs() <= 1e-11 * expected.max(1e-5), "{hash}: {found} {expected}");
            assert!(found > 0.0);
        }
    }

    #[test]
    fn draws_never_change() {
        // As the standard library gives them; what placement depends on is the last one.
        let cases =
            [(0, 36.736_800_569_677), (1 << 63, std::f64::consts::LN_2), (u64::MAX, 1.110_223_024_625e-16)];
        for (hash, expected) in cases {
            assert!((exponential(hash) - expected).abs() < 1e-12, "{hash}: {}", exponential(hash));
        }
        assert_eq!(exponential(0x0123_4567_89ab_cdef).to_bits(), 4_617_784_005_365_680_180);
    }
}
