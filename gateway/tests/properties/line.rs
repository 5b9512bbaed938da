//! A client in memory, and what runs beside it: everything that happens is decided here, and who is not woken waits for ever.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use skep::incoming::{FarEnd, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The gateway's end of a connection.
#[derive(Clone)]
pub struct Line(Arc<Mutex<Client>>);

/// The other end.
#[derive(Default)]
pub struct Client {
    /// What it sends, how much of that is on the way, and how much has been read.
    bytes: Vec<u8>,
    sent: usize,
    read: usize,
    /// How long its pieces are, one after the other and again from the first.
    pieces: Vec<usize>,
    nth: usize,
    has_closed: bool,
    /// Nobody will say any more to it, and how it goes on does not matter.
    is_shut: bool,
    is_cut: bool,
    /// What it got, how much had been read before the last of it, how much more it takes now, and how much each time.
    got: Vec<u8>,
    read_before: usize,
    room: usize,
    takes: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Those who wait for something else.
    others: Vec<Waker>,
}

impl Line {
    /// To a client who sends this, in pieces of these lengths, and takes so much at once.
    pub fn new(bytes: &[u8], pieces: Vec<usize>, takes: usize) -> Self {
        Self(Arc::new(Mutex::new(Client {
            bytes: bytes.to_vec(),
            pieces,
            takes,
            ..Client::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Client> {
        self.0.lock().unwrap()
    }

    /// Waits until something has happened.
    pub async fn pause(&self) {
        let mut has_waited = false;
        std::future::poll_fn(|cx| {
            if has_waited {
                return Poll::Ready(());
            }
            has_waited = true;
            self.lock().others.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What the client got.
    pub fn got(&self) -> Vec<u8> {
        self.lock().got.clone()
    }

    /// How much of what it sent had been read before the last that it got.
    pub fn read_before(&self) -> usize {
        self.lock().read_before
    }

    /// Whether it sees the end as a break.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Whether it has closed, which it does only when nothing else can happen.
    pub fn has_closed(&self) -> bool {
        self.lock().has_closed
    }

    /// Has one thing happen; says whether anybody was told.
    fn go_on(&self) -> bool {
        let client = &mut *self.lock();
        let length = client.pieces[client.nth % client.pieces.len()];
        client.nth += 1;
        // What is first changes, so that anything comes before anything else.
        let turns = (0..3).map(|turn| (turn + length + client.nth) % 3);
        for turn in turns.collect::<Vec<_>>() {
            let woken = match turn {
                0 => std::mem::take(&mut client.others),
                1 if client.writer.is_some() => {
                    client.room = client.takes;
                    client.writer.take().into_iter().collect()
                }
                2 if client.reader.is_some() && client.sent < client.bytes.len() => {
                    let length = if client.is_shut { usize::MAX } else { length };
                    client.sent = client.bytes.len().min(client.sent.saturating_add(length));
                    client.reader.take().into_iter().collect()
                }
                _ => continue,
            };
            if !woken.is_empty() {
                woken.into_iter().for_each(Waker::wake);
                return true;
            }
        }
        client.has_closed = client.reader.is_some();
        client.reader.take().map(Waker::wake).is_some()
    }
}

impl Stream for Line {
    fn cut(&self) {
        self.lock().is_cut = true;
    }

    fn far_end(&self) -> FarEnd {
        FarEnd::Open
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let client = &mut *self.lock();
        if client.read == client.sent && !client.has_closed {
            client.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = client.sent.min(client.read + into.remaining());
        into.put_slice(&client.bytes[client.read..end]);
        client.read = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let client = &mut *self.lock();
        if client.room == 0 {
            client.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let fits = bytes.len().min(client.room);
        client.room -= fits;
        client.got.extend(&bytes[..fits]);
        client.read_before = client.read;
        Poll::Ready(Ok(fits))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().is_shut = true;
        Poll::Ready(Ok(()))
    }
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is to be done beside the connection.
#[derive(Clone, Default)]
pub struct Aside(Arc<Mutex<Vec<Work>>>);

impl Aside {
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().unwrap().push(Box::pin(work));
    }
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a connection and what is spawned beside it to their ends. Only who was woken is asked.
pub fn run(line: &Line, connection: impl Future<Output = ()> + Send + 'static, aside: &Aside) {
    aside.spawn(connection);
    let mut running: Vec<(Work, Arc<Woken>)> = Vec::new();
    loop {
        let begun = std::mem::take(&mut *aside.0.lock().unwrap());
        running.extend(
            begun
                .into_iter()
                .map(|work| (work, Arc::new(Woken(true.into())))),
        );
        if running.is_empty() {
            return;
        }
        let mut is_still = true;
        running.retain_mut(|(work, woken)| {
            if !woken.0.swap(false, Ordering::Relaxed) {
                return true;
            }
            is_still = false;
            let waker = Waker::from(woken.clone());
            work.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        });
        if is_still {
            assert!(line.go_on(), "nobody will ever be woken");
        }
    }
}
