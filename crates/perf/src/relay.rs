//! `warren perf relay`: what moving the bytes costs without a broker.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use warren_amqp091_codec::{Dialect, Method, frame};

use crate::sync::SyncedFile;

#[derive(Debug, Args)]
pub struct Options {
    /// Where to listen; port 0 lets the system choose, the line "ready relay=HOST:PORT echo=HOST:PORT" tells which.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,

    /// The same for clients that get an answer to each thing that they say: warren perf churn --bare.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind_echo: SocketAddr,

    /// A directory on the disk that is synced before an answer, if a client asks for that. The file in it is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Clients that get answers at a time: a thread for each connection would cost more than the answers.
const ECHO_THREADS: usize = 32;

/// Bytes of an answer.
pub(crate) const ANSWER_LEN: usize = 100;

/// Bytes of what is answered. If the first is 1, it is on the disk before the answer.
pub(crate) const QUESTION_LEN: usize = 200;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let listen = |address| TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"));
    let (listener, echo) = (listen(options.bind)?, listen(options.bind_echo)?);
    let file = Arc::new(SyncedFile::create(&options.dir)?);
    writeln!(std::io::stdout(), "ready relay={} echo={}", listener.local_addr()?, echo.local_addr()?)?;
    for _ in 0..ECHO_THREADS {
        let (echo, file) = (echo.try_clone()?, Arc::clone(&file));
        std::thread::spawn(move || {
            for client in echo.incoming().flatten() {
                // It ends when the client does.
                let _ended = answer(client, &file);
            }
        });
    }
    loop {
        let (publisher, _) = listener.accept()?;
        let (consumer, _) = listener.accept()?;
        std::thread::spawn(move || {
            // It ends when either side does.
            let _ended = relay(publisher, consumer);
        });
    }
}

/// Answers until the client closes.
fn answer(mut client: TcpStream, file: &SyncedFile) -> anyhow::Result<()> {
    client.set_nodelay(true)?;
    let (mut question, mut at) = ([0; QUESTION_LEN], 0);
    loop {
        client.read_exact(&mut question)?;
        if question[0] == 1 {
            at = file.write(&question, at)?;
        }
        client.write_all(&question[..ANSWER_LEN])?;
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
