//! The codec against bytes: hand-checked examples, malformed input, and properties over generated values.

mod contents;
mod examples;
mod malformed;
mod methods;
mod sample;
mod tables;

use warren_amqp091_codec::Dialect;

const DIALECTS: [Dialect; 3] = [Dialect::Amqp08, Dialect::Amqp09, Dialect::Amqp091];

/// Bytes from hexadecimal digits; spaces are for the reader.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u32> = digits.chars().filter_map(|digit| digit.to_digit(16)).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte");
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}
