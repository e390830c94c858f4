//! `warren perf relay`: what moving the bytes costs without a broker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Context;
use clap::Args;
use warren_amqp091_codec::{Dialect, Method, frame};

#[derive(Debug, Args)]
pub struct Options {
    /// Where to listen; port 0 lets the system choose, the line "ready relay=HOST:PORT" tells which.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let listener =
        TcpListener::bind(options.bind).with_context(|| format!("cannot listen on {}", options.bind))?;
    writeln!(std::io::stdout(), "ready relay={}", listener.local_addr()?)?;
    loop {
        let (publisher, _) = listener.accept()?;
        let (consumer, _) = listener.accept()?;
        std::thread::spawn(move || {
            // It ends when either side does.
            let _ended = relay(publisher, consumer);
        });
    }
}

/// Makes a delivery of each publish: another method frame, the same content.
fn relay(mut publisher: TcpStream, mut consumer: TcpStream) -> anyhow::Result<()> {
    consumer.set_nodelay(true)?;
    let mut deliver = Vec::new();
    let method = Method::BasicDeliver {
        consumer_tag: b"tag",
        delivery_tag: 1,
        redelivered: false,
        exchange: b"",
        routing_key: b"key",
    };
    frame::put_method(&mut deliver, Dialect::Amqp091, 1, &method);
    let (mut input, mut end, mut output) = (vec![0; 256 * 1024], 0, Vec::new());
    loop {
        let count = publisher.read(&mut input[end..])?;
        if count == 0 {
            // The consumer may not have read everything yet: it says when by closing.
            let _ended = consumer.read(&mut input)?;
            return Ok(());
        }
        end += count;
        let mut at = 0;
        while let Some(head) = input[at..end].first_chunk() {
            let head = frame::FrameHead::parse(head);
            let next = at + head.size as usize + frame::OVERHEAD;
            if next > end {
                break;
            }
            output.extend_from_slice(if head.kind == frame::METHOD { &deliver } else { &input[at..next] });
            at = next;
        }
        consumer.write_all(&output)?;
        output.clear();
        input.copy_within(at..end, 0);
        end -= at;
    }
}
