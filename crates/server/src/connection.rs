//! The task of one connection.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use warren_amqp091::{Connection, Output, Phase};
use warren_broker::BrokerSession;
use warren_types::session::Event;

/// Input read at a time, in bytes. The buffer belongs to the thread: connections that wait have none.
const READ_LEN: usize = 128 * 1024;

/// Input read at a time from a client that publishes faster than consumers take it, in bytes: these have more turns then.
const READ_LEN_CROWDED: usize = 16 * 1024;

/// Input after which others have their turn, in bytes: else a publisher that always has more would go on for as long as the
/// runtime lets it, and the consumers of what it sends wait.
const TURN_LEN: usize = 8 * 1024;

/// Unused input from which on the next read goes behind it, in bytes.
const COLLECTED_LEN: usize = 8 * 1024;

/// Output that may wait before input rests: what a client does not read, it cannot ask for without end.
const OUTPUT_MAX: usize = 1024 * 1024;

/// Pieces given to one vectored write.
const WRITE_SLICES: usize = 64;

/// Largest output buffer that a thread keeps for its connections, in bytes.
const OUTPUT_BUFFER_MAX: usize = 1024 * 1024;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// For the connection that is being served; it goes from one to the next unless the socket is full.
    static OUTPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    mut socket: TcpStream,
    peer: SocketAddr,
    machine: Connection,
    session: BrokerSession,
) {
    // Batches are formed here, so the kernel need not wait for more.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, "cannot set TCP_NODELAY: {error}");
    }
    let mut task = Task { machine, session, rest: BytesMut::new(), events: Vec::new(), any_input: false };
    let ended = task.run(&mut socket).await;
    task.machine.lost(&mut task.session);
    task.report(peer, ended);
}

struct Task {
    machine: Connection,
    session: BrokerSession,
    /// Input that was read and not used yet.
    rest: BytesMut,
    events: Vec<Event>,
    any_input: bool,
}

/// What a wait ended with.
enum Woken {
    Input(io::Result<usize>),
    Output(io::Result<usize>),
    Other,
}

impl Task {
    async fn run(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let (mut reader, mut writer) = socket.split();
        let timer = tokio::time::sleep_until(Instant::now().into());
        tokio::pin!(timer);
        let mut turn_over = false;
        let mut is_half_closed = false;
        loop {
            let now = Instant::now();
            self.machine.output().lend_buffer(OUTPUT.take());
            self.events(now);
            self.use_rest(now);
            self.machine.flush();
            self.session.flush();
            if self.machine.is_done() && self.machine.output().is_empty() {
                return Ok(());
            }
            if self.machine.falls_silent() && self.machine.output().is_empty() && !is_half_closed {
                is_half_closed = true;
                writer.shutdown().await?;
            }
            // A deadline that has moved away is noticed when the timer fires; only a nearer one sets it anew. Whether it
            // has fired is asked only once: what fires from here on must end the wait, or nobody hears of it.
            let mut is_set = !timer.is_elapsed();
            if let Some(deadline) = self.machine.deadline()
                && (!is_set || tokio::time::Instant::from(deadline) < timer.deadline())
            {
                timer.as_mut().reset(deadline.into());
                is_set = true;
            }
            self.return_buffer();
            if std::mem::take(&mut turn_over) {
                tokio::task::yield_now().await;
            }
            let reads = self.wants_input();
            let read_len = if self.session.crowds() { READ_LEN_CROWDED } else { READ_LEN };
            let collects = collects(&self.rest);
            self.machine.on_rest(now, !reads);
            // What it was answered must not be lost: the journal comes first.
            let writes = !self.machine.output().is_empty() && self.session.may_write();
            let woken = {
                let (rest, output) = (&mut self.rest, self.machine.output());
                tokio::select! {
                    biased;
                    written = poll_fn(|cx| poll_write(&mut writer, output, cx)), if writes => Woken::Output(written),
                    () = self.session.wait() => Woken::Other,
                    read = poll_fn(|cx| poll_read(&mut reader, rest, read_len, cx)), if reads => Woken::Input(read),
                    () = &mut timer, if is_set => Woken::Other,
                }
            };
            let now = Instant::now();
            match woken {
                Woken::Input(read) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    self.any_input = true;
                    match collects {
                        true => self.use_rest(now),
                        false => self.input(now, read),
                    }
                    if read >= TURN_LEN {
                        turn_over = true;
                    }
                }
                Woken::Output(written) => {
                    self.machine.on_written(now, written?);
                    if self.machine.output().is_empty() {
                        self.session.written();
                    }
                }
                Woken::Other => {
                    if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
                        self.machine.on_deadline(now);
                    }
                }
            }
        }
    }

    fn return_buffer(&mut self) {
        let buffer = self.machine.output().reclaim_buffer();
        if buffer.capacity() > 0 && buffer.capacity() <= OUTPUT_BUFFER_MAX {
            OUTPUT.set(buffer);
        }
    }

    fn wants_input(&mut self) -> bool {
        self.machine.wants_input() && self.machine.output().len() < OUTPUT_MAX && !self.session.must_wait()
    }

    fn events(&mut self, now: Instant) {
        self.session.take_events(&mut self.events);
        for event in self.events.drain(..) {
            if let Some(event) = self.session.filter(event) {
                self.machine.on_event(now, event, &mut self.session);
            }
        }
    }

    /// Processes what was read behind the rest into the thread's buffer.
    fn input(&mut self, now: Instant, read: usize) {
        INPUT.with_borrow(|input| {
            let input = &input[..self.rest.len() + read];
            let used = self.machine.on_bytes(now, input, &mut self.session);
            self.rest = BytesMut::from(&input[used..]);
        });
    }

    /// Processes input that had to wait for a reply or for room.
    fn use_rest(&mut self, now: Instant) {
        if self.rest.is_empty() || !self.wants_input() {
            return;
        }
        let used = self.machine.on_bytes(now, &self.rest, &mut self.session);
        self.rest.advance(used);
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        }
    }

    fn report(&mut self, peer: SocketAddr, ended: io::Result<()>) {
        let name = self.machine.client_name().unwrap_or("-").to_owned();
        if let Some(failure) = self.machine.take_failure() {
            tracing::warn!(%peer, connection = name, "connection closed: {failure}");
            return;
        }
        match ended {
            Err(error) => tracing::info!(%peer, connection = name, "connection lost: {error}"),
            Ok(()) if self.machine.phase() == Phase::Done => {
                tracing::debug!(%peer, connection = name, "connection closed");
            }
            // Load balancers connect and close to see whether anyone is there (features.md CON3).
            Ok(()) if !self.any_input => {}
            Ok(()) => {
                tracing::info!(%peer, connection = name, "client unexpectedly closed the TCP connection")
            }
        }
    }
}

/// Whether the next read goes behind what is left of the last.
fn collects(rest: &[u8]) -> bool {
    rest.len() >= COLLECTED_LEN
}

/// Reads into the thread's buffer, behind a copy of `rest`; the bytes must be used before the task waits again. Behind a
/// `rest` that is part of something large it reads directly, so that this is not carried to and fro.
fn poll_read(
    reader: &mut ReadHalf<'_>,
    rest: &mut BytesMut,
    len: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if collects(rest) {
        rest.reserve(len);
        return pin!(reader.read_buf(&mut rest.limit(len))).poll(cx);
    }
    INPUT.with_borrow_mut(|input| {
        let room = rest.len() + len;
        if input.len() < room {
            input.resize(room, 0);
        }
        let mut buffer = ReadBuf::new(&mut input[rest.len()..room]);
        ready!(Pin::new(reader).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read > 0 {
            input[..rest.len()].copy_from_slice(rest);
        }
        Poll::Ready(Ok(read))
    })
}

fn poll_write(writer: &mut WriteHalf<'_>, output: &Output, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
    let used = output.slices(&mut slices);
    match ready!(Pin::new(writer).poll_write_vectored(cx, &slices[..used]))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(Ok(written)),
    }
}
