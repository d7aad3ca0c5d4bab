//! One session to another peer's gateway: its socket, TLS channel, protocol state and streams.
//!
//! A link belongs to one worker and never leaves its thread. Bulk data is encrypted and written by
//! the task that has the bytes; small frames gather in the session's output, which the driver
//! flushes once per turn.

mod driver;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, Instant},
};

use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};
use tokio::{net::TcpStream, sync::Notify};

pub(crate) use self::driver::{Opened, Over, Owner, drive};
use crate::{
    flow::now_ms,
    scratch::Scratch,
    socket,
    stream::{Ended, Stream},
    tls::{Channel, PeerIdentity},
    tunnel::{MAX_DATA, OpenError, RejectCode, ResetCode, Session},
};

/// Ciphertext that may wait for the socket before streams stop adding to it.
const HIGH_WATER: usize = 512 * 1024;

/// A buffer that grew beyond this is given back when it is empty.
const KEEP_BUFFER: usize = 1024 * 1024;

/// Why a link without streams ends that was told to retire.
const RETIRED: &str = "the Peer object no longer names this gateway";

/// What other threads may read of a link.
#[derive(Debug, Default)]
pub(crate) struct LinkStats {
    /// When something was last heard, milliseconds since the epoch.
    pub(crate) last_heard_ms: AtomicU64,
    /// Smoothed round-trip time in microseconds; 0 while unknown.
    pub(crate) rtt_us: AtomicU64,
    /// Since when it is suspect, milliseconds since the epoch; 0 while it is not.
    suspect_since_ms: AtomicU64,
}

impl LinkStats {
    /// Whether it has given no sign of life for so long, though it was asked for one.
    pub(crate) fn is_silent(&self, now_ms: u64, patience: Duration) -> bool {
        let since = self.suspect_since_ms.load(Relaxed);
        since > 0 && u128::from(now_ms.saturating_sub(since)) >= patience.as_millis()
    }

    pub(crate) fn set_suspect(&self, suspect: bool, now_ms: impl FnOnce() -> u64) {
        let known = self.suspect_since_ms.load(Relaxed) > 0;
        if suspect != known {
            let since = if suspect { now_ms() } else { 0 };
            self.suspect_since_ms.store(since, Relaxed);
        }
    }
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkEnd(pub(crate) String);

/// One session.
pub(crate) struct Link {
    pub(crate) identity: PeerIdentity,
    pub(crate) stats: Arc<LinkStats>,
    socket: TcpStream,
    scratch: Rc<RefCell<Scratch>>,
    inner: RefCell<Inner>,
    streams: RefCell<HashMap<u32, Rc<Stream>>>,
    /// What the remote says of itself.
    labels: RefCell<Arc<Labels>>,
    /// Streams that wait for the link to have room again.
    waiters: RefCell<Vec<Rc<Stream>>>,
    /// The driver has something to do.
    dirty: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    ended: RefCell<Option<LinkEnd>>,
    /// Woken when the link becomes suspect, leaves, or ends.
    pub(crate) changed: Notify,
    /// When the last stream went.
    idle_since: Cell<Instant>,
    /// Takes no new streams and ends with the last one.
    retired: Cell<bool>,
}

struct Inner {
    channel: Channel,
    session: Session,
    /// Ciphertext.
    out: Vec<u8>,
    written: usize,
    /// Since when the socket has taken nothing of `out`.
    stalled_since: Option<Instant>,
}

impl Inner {
    fn queued(&mut self) -> usize {
        self.out.len() - self.written + self.session.output().len()
    }

    /// Encrypts the frames that gathered.
    fn seal(&mut self) -> io::Result<()> {
        loop {
            let frames = self.session.output();
            if frames.is_empty() {
                return Ok(());
            }
            self.channel
                .encrypt(frames, &mut self.out)
                .map_err(io::Error::other)?;
            frames.clear();
            if frames.capacity() > KEEP_BUFFER {
                *frames = Vec::new();
            }
        }
    }

    /// Writes what the socket takes; true if all is written. While much waits for the socket,
    /// frames stay with the session, which merges them and notices a peer that reads no answers.
    fn flush(&mut self, socket: &TcpStream, now: Instant) -> io::Result<bool> {
        if self.out.len() - self.written < HIGH_WATER {
            self.seal()?;
        }
        if self.written < self.out.len() {
            let n = socket::write(socket, &self.out[self.written..])?;
            self.written += n;
            if n > 0 {
                self.stalled_since = None;
            }
        }
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
            self.stalled_since = None;
            if self.out.capacity() > KEEP_BUFFER {
                self.out = Vec::new();
            }
            return Ok(true);
        }
        self.stalled_since.get_or_insert(now);
        Ok(false)
    }
}

impl Link {
    pub(crate) fn new(
        socket: TcpStream,
        channel: Channel,
        identity: PeerIdentity,
        session: Session,
        scratch: Rc<RefCell<Scratch>>,
    ) -> Rc<Self> {
        let stats = Arc::new(LinkStats::default());
        stats.last_heard_ms.store(now_ms(), Relaxed);
        Rc::new(Self {
            identity,
            stats,
            socket,
            scratch,
            inner: RefCell::new(Inner {
                channel,
                session,
                out: Vec::new(),
                written: 0,
                stalled_since: None,
            }),
            streams: RefCell::default(),
            labels: RefCell::default(),
            waiters: RefCell::default(),
            dirty: Cell::new(true),
            waker: RefCell::default(),
            ended: RefCell::default(),
            changed: Notify::new(),
            idle_since: Cell::new(Instant::now()),
            retired: Cell::new(false),
        })
    }

    /// Whether new streams may be opened on it.
    pub(crate) fn is_usable(&self) -> bool {
        let inner = self.inner.borrow();
        self.ended.borrow().is_none()
            && !self.retired.get()
            && !inner.session.is_suspect()
            && !inner.session.going_away()
    }

    /// Says whether the link is to take no new streams and to end with its last one.
    pub(crate) fn retire(&self, retired: bool) {
        self.retired.set(retired);
        if retired && self.stream_count() == 0 {
            self.close(RETIRED);
        }
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.inner.borrow().session.is_suspect()
    }

    pub(crate) fn end(&self) -> Option<LinkEnd> {
        self.ended.borrow().clone()
    }

    /// Whether the remote was heard within the last second, so that payload may go along with
    /// OPEN.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        let heard = self.inner.borrow().session.last_heard();
        now.saturating_duration_since(heard) < Duration::from_secs(1)
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.streams.borrow().len()
    }

    /// How long it has carried nothing.
    pub(crate) fn idle_for(&self, now: Instant) -> Option<Duration> {
        (self.stream_count() == 0).then(|| now.saturating_duration_since(self.idle_since.get()))
    }

    /// What the remote says of itself.
    pub(crate) fn labels(&self) -> Arc<Labels> {
        self.labels.borrow().clone()
    }

    /// Opens a stream; `make` builds it around its number.
    pub(crate) fn open(
        &self,
        workload: Option<&Arc<WorkloadAttributes>>,
        export: &ObjectName,
        hops: u32,
        make: impl FnOnce(u32) -> Rc<Stream>,
    ) -> Result<Rc<Stream>, OpenError> {
        let id =
            self.inner
                .borrow_mut()
                .session
                .open(Instant::now(), workload, export, hops, false)?;
        let stream = make(id);
        self.streams.borrow_mut().insert(id, stream.clone());
        self.kick();
        Ok(stream)
    }

    /// Takes a stream that the remote opened.
    pub(crate) fn adopt(&self, stream: Rc<Stream>) {
        self.streams.borrow_mut().insert(stream.id, stream);
    }

    /// Lets go of a stream that has ended.
    pub(crate) fn forget(&self, id: u32) {
        let mut streams = self.streams.borrow_mut();
        streams.remove(&id);
        if streams.is_empty() {
            self.idle_since.set(Instant::now());
            streams.shrink_to(64);
            if self.retired.get() {
                drop(streams);
                self.close(RETIRED);
            }
        }
    }

    pub(crate) fn accept(&self, id: u32) {
        gone(self.inner.borrow_mut().session.accept(id));
        self.kick();
    }

    pub(crate) fn reject(&self, id: u32, code: RejectCode, text: &str) {
        gone(self.inner.borrow_mut().session.reject(id, code, text));
        self.kick();
    }

    pub(crate) fn fin(&self, id: u32) {
        gone(self.inner.borrow_mut().session.fin(id));
        self.kick();
    }

    pub(crate) fn reset(&self, id: u32, code: ResetCode) {
        gone(self.inner.borrow_mut().session.reset(id, code));
        self.kick();
    }

    /// Tells the remote of changed attributes of a stream's client.
    pub(crate) fn attest(&self, id: u32, workload: Option<&Arc<WorkloadAttributes>>) {
        gone(self.inner.borrow_mut().session.attest(id, workload));
        self.kick();
    }

    /// Tells the remote of changed labels of this peer.
    pub(crate) fn set_labels(&self, labels: &Labels) {
        gone(self.inner.borrow_mut().session.set_labels(labels));
        self.kick();
    }

    /// Asks the remote to open nothing more here.
    pub(crate) fn go_away(&self, deadline: Duration, reason: &str) {
        self.inner.borrow_mut().session.go_away(deadline, reason);
        self.kick();
    }

    /// The application took `n` bytes of a stream.
    pub(crate) fn consumed(&self, id: u32, n: usize) {
        self.inner
            .borrow_mut()
            .session
            .consumed(Instant::now(), id, n as u64);
        self.kick();
    }

    /// How many bytes of this stream may be read from its application now; 0 while its credit is
    /// used up or the link is full, of whose end the stream is told by `wake_up`.
    pub(crate) fn room(&self, stream: &Rc<Stream>) -> usize {
        let mut inner = self.inner.borrow_mut();
        if inner.queued() > HIGH_WATER {
            self.waiters.borrow_mut().push(stream.clone());
            return 0;
        }
        let credit = inner.session.sendable(stream.id);
        usize::try_from(credit).unwrap_or(usize::MAX).min(MAX_DATA)
    }

    /// Queues a few bytes of a stream's payload, within its [`Link::room`].
    pub(crate) fn send(&self, stream: &Stream, bytes: &[u8]) {
        gone(self.inner.borrow_mut().session.data(stream.id, bytes));
        stream.count_up(bytes.len());
        self.kick();
    }

    /// Reads from the application, at most `room` bytes, and sends them: up to `small` bytes with
    /// the frames that gather, more of them at once.
    pub(crate) fn carry(
        &self,
        stream: &Stream,
        application: &TcpStream,
        room: usize,
        small: usize,
    ) -> io::Result<usize> {
        const HEADER: usize = 8;
        let mut scratch = self.scratch.borrow_mut();
        let buffer = &mut scratch.application[..HEADER + room];
        let n = socket::read(application, &mut buffer[HEADER..])?;
        if n == 0 {
            return Ok(0);
        }
        stream.count_up(n);
        let mut inner = self.inner.borrow_mut();
        if n <= small {
            gone(inner.session.data(stream.id, &buffer[HEADER..HEADER + n]));
            drop(inner);
            self.kick();
            return Ok(n);
        }
        let Ok(header) = inner.session.data_header(stream.id, n) else {
            // The stream has just ended; its relay notices by its phase.
            return Ok(n);
        };
        buffer[..HEADER].copy_from_slice(&header);
        let inner = &mut *inner;
        inner.seal()?;
        inner
            .channel
            .encrypt(&buffer[..HEADER + n], &mut inner.out)
            .map_err(io::Error::other)?;
        // A failing session is found and told by the driver.
        if !inner.flush(&self.socket, Instant::now()).unwrap_or(false) {
            self.kick();
        }
        Ok(n)
    }

    /// Ends the session from this side.
    pub(crate) fn close(&self, reason: &str) {
        self.ended
            .borrow_mut()
            .get_or_insert_with(|| LinkEnd(reason.to_owned()));
        self.kick();
    }

    /// Wakes the driver.
    fn kick(&self) {
        if !self.dirty.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }

    fn stream(&self, id: u32) -> Option<Rc<Stream>> {
        self.streams.borrow().get(&id).cloned()
    }

    /// Ends every stream: the session is gone.
    fn lose_all(&self) {
        let streams: Vec<_> = self
            .streams
            .borrow_mut()
            .drain()
            .map(|(_, stream)| stream)
            .collect();
        for stream in streams {
            stream.end(Ended::Lost);
        }
        self.changed.notify_waiters();
    }

    /// The link has room again: streams that waited for it may go on.
    fn wake_senders(&self) {
        for stream in self.waiters.borrow_mut().drain(..) {
            stream.wake_up.notify_one();
        }
    }
}

/// The stream is gone already: whoever carries it learns that by its phase.
fn gone<E: std::fmt::Display>(result: Result<(), E>) {
    if let Err(error) = result {
        tracing::trace!(%error, "the stream has ended");
    }
}
