//! Bytes on their way to the socket: small frames in one buffer, large bodies chained without a copy.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};
use warren_amqp091_codec::{Dialect, Method, frame};
use warren_types::Message;

/// What waits to be written, in order.
#[derive(Debug, Default)]
pub struct Output {
    chained: VecDeque<Bytes>,
    /// Encoded behind everything chained.
    tail: Vec<u8>,
    /// Bytes of `tail` already written.
    written: usize,
    chained_len: usize,
}

impl Output {
    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chained_len + self.tail.len() - self.written
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with what waits, for a vectored write; returns how many were used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.chained) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        if used < slices.len() && self.written < self.tail.len() {
            slices[used] = IoSlice::new(&self.tail[self.written..]);
            used += 1;
        }
        used
    }

    /// Notes that the first `count` bytes were written.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.chained.front_mut() {
            let step = count.min(first.len());
            first.advance(step);
            self.chained_len -= step;
            count -= step;
            if !first.is_empty() {
                return;
            }
            self.chained.pop_front();
        }
        self.written += count;
        if self.written == self.tail.len() {
            self.written = 0;
            self.tail.clear();
        }
    }

    /// Lends it a buffer to encode into, if it has none.
    pub fn lend_buffer(&mut self, buffer: Vec<u8>) {
        if self.tail.capacity() == 0 {
            self.tail = buffer;
        }
    }

    /// Takes its buffer away, if nothing waits in it: connections at rest need none.
    pub fn reclaim_buffer(&mut self) -> Vec<u8> {
        if self.tail.is_empty() { std::mem::take(&mut self.tail) } else { Vec::new() }
    }

    /// The buffer to encode frames into.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Encodes a method without content.
    pub(crate) fn method(&mut self, dialect: Dialect, channel: u16, method: &Method<'_>) {
        frame::put_method(&mut self.tail, dialect, channel, method);
    }

    /// Encodes a message's header and body behind the method that carries it.
    pub(crate) fn content(&mut self, channel: u16, frame_max: u32, properties: &[u8], message: &Message) {
        frame::put_content_header(&mut self.tail, channel, message.body_len() as u64, properties);
        let payload_max = frame_max as usize - frame::OVERHEAD;
        match message.large_body() {
            Some(body) => self.large_body(channel, payload_max, body),
            None => {
                for payload in message.small_body().chunks(payload_max) {
                    frame::put_body_head(&mut self.tail, channel, payload.len() as u32);
                    self.tail.extend_from_slice(payload);
                    self.tail.push(frame::END);
                }
            }
        }
    }

    fn large_body(&mut self, channel: u16, payload_max: usize, body: &Bytes) {
        let mut rest = body.clone();
        while !rest.is_empty() {
            let payload = rest.split_to(rest.len().min(payload_max));
            frame::put_body_head(&mut self.tail, channel, payload.len() as u32);
            self.chain(payload);
            self.tail.push(frame::END);
        }
    }

    fn chain(&mut self, bytes: Bytes) {
        if self.written < self.tail.len() {
            let mut encoded = Bytes::from(std::mem::take(&mut self.tail));
            encoded.advance(self.written);
            self.chained_len += encoded.len();
            self.chained.push_back(encoded);
        }
        self.written = 0;
        self.tail.clear();
        self.chained_len += bytes.len();
        self.chained.push_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(output: &mut Output, step: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = output.slices(&mut slices);
            let taken: Vec<u8> = slices[..used].iter().flat_map(|slice| slice.to_vec()).take(step).collect();
            output.advance(taken.len());
            all.extend(taken);
        }
        all
    }

    #[test]
    fn order_survives_chaining_and_partial_writes() {
        for step in [1, 2, 5, 100] {
            let mut output = Output::default();
            output.buffer().extend_from_slice(b"one");
            output.chain(Bytes::from_static(b"two"));
            output.chain(Bytes::from_static(b"three"));
            output.buffer().extend_from_slice(b"four");
            assert_eq!(output.len(), 15);
            assert_eq!(drain(&mut output, step), b"onetwothreefour");
        }
    }
}
