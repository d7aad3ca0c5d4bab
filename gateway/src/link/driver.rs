//! The task that drives a link: reads, decrypts, hands events to streams, flushes, keeps time.

use std::{
    future::{Future as _, poll_fn},
    io::{self, IoSlice},
    ops::Range,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};

use super::{Inner, Link};
use crate::{
    flow::now_ms,
    socket,
    stream::{Ended, Phase, Stream},
    tunnel::{Event, Hello},
};

/// A peer that takes no bytes for this long is ended.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Pieces of one delivery; more go with the next one (`IOV_MAX` is 1,024).
const PIECES: usize = 64;

/// A stream that the remote asks for.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) id: u32,
    /// The client as attested by the remote; `None` is a process of its host.
    pub(crate) workload: Option<Arc<WorkloadAttributes>>,
    pub(crate) export: ObjectName,
    pub(crate) hops: u32,
    pub(crate) probe: bool,
}

/// What a driver tells its owner.
pub(crate) trait Owner {
    /// The remote has introduced itself.
    fn hello(&self, link: &Rc<Link>, hello: &Hello);
    /// The remote's labels have changed.
    fn labels(&self, link: &Rc<Link>);
    /// The remote asks for a stream, whose payload may follow at once: it is in the link's table
    /// when this returns. Called while the protocol state is in use: nothing may be sent from here.
    fn opened(&self, link: &Rc<Link>, opened: Opened);
    /// The attributes of a stream's client have changed.
    fn attested(&self, link: &Rc<Link>, id: u32, workload: Option<Arc<WorkloadAttributes>>);
}

/// What events leave to be done after the protocol state is free again.
enum Action {
    Labels(Labels),
    Hello(Box<Hello>),
    Attested(u32, Option<Arc<WorkloadAttributes>>),
    Consumed(u32, usize),
    GoAway,
}

/// How a link has ended.
#[derive(Debug)]
pub(crate) struct Over {
    /// Why, for people.
    pub(crate) reason: String,
    /// The remote host gives no answer any more: whoever dials it would wait in vain.
    pub(crate) unanswered: bool,
}

/// Drives the link to its end. `leftover` is ciphertext, `early` plaintext that the handshake read.
pub(crate) async fn drive(
    link: Rc<Link>,
    leftover: Vec<u8>,
    early: Vec<u8>,
    owner: &dyn Owner,
) -> Over {
    let ended = run(&link, leftover, &early, owner).await;
    let unanswered = ended.as_ref().is_err_and(is_unanswered);
    let reason = match ended {
        Ok(()) => link.end().map_or_else(|| "closed".to_owned(), |end| end.0),
        Err(error) => error.to_string(),
    };
    link.ended
        .borrow_mut()
        .get_or_insert_with(|| super::LinkEnd(reason.clone()));
    link.lose_all();
    let inner = &mut *link.inner.borrow_mut();
    inner.channel.close_notify(&mut inner.out);
    // The remote may be gone; there is nobody left to tell then.
    let _ = inner.flush(&link.socket, Instant::now());
    Over { reason, unanswered }
}

/// A host that is there says that it ends a connection, or that it knows of none.
fn is_unanswered(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(
        error.kind(),
        TimedOut | HostUnreachable | NetworkUnreachable
    )
}

async fn run(
    link: &Rc<Link>,
    mut carry: Vec<u8>,
    early: &[u8],
    owner: &dyn Owner,
) -> io::Result<()> {
    let mut turn = Turn::default();
    if !early.is_empty() {
        turn.receive(link, early, owner)?;
        turn.act(link, owner);
    }
    let mut unread = !carry.is_empty();
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    loop {
        if link.ended.borrow().is_some() {
            return Ok(());
        }
        link.dirty.set(false);
        let now = Instant::now();
        let (written, deadline) = {
            let inner = &mut *link.inner.borrow_mut();
            inner.session.handle_timeout(now);
            let written = inner.flush(&link.socket, now)?;
            if let Some(since) = inner.stalled_since
                && now.saturating_duration_since(since) > WRITE_PATIENCE
            {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the peer took no bytes for 30 s",
                ));
            }
            (written, next_deadline(inner))
        };
        if written {
            link.wake_senders();
        }
        let suspect = link.is_suspect();
        link.stats.set_suspect(suspect, now_ms);
        if suspect {
            link.changed.notify_waiters();
        }
        if turn.read(link, &mut carry, &mut unread, owner)? {
            turn.act(link, owner);
            tokio::task::yield_now().await;
            continue;
        }
        timer.as_mut().reset(deadline.into());
        poll_fn(|context| {
            if link.dirty.get() {
                return Poll::Ready(());
            }
            {
                let mut waker = link.waker.borrow_mut();
                if !waker
                    .as_ref()
                    .is_some_and(|known| known.will_wake(context.waker()))
                {
                    *waker = Some(context.waker().clone());
                }
            }
            let mut ready = link.socket.poll_read_ready(context).is_ready();
            if !written {
                ready |= link.socket.poll_write_ready(context).is_ready();
            }
            ready |= timer.as_mut().poll(context).is_ready();
            if ready {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

fn next_deadline(inner: &Inner) -> Instant {
    let timeout = inner.session.next_timeout();
    inner
        .stalled_since
        .map_or(timeout, |since| timeout.min(since + WRITE_PATIENCE))
}

/// Buffers of a turn, kept from one to the next.
#[derive(Default)]
struct Turn {
    actions: Vec<Action>,
    /// Payload of `target` that is still to be delivered: ranges of the plaintext.
    ranges: Vec<Range<usize>>,
    target: Option<Rc<Stream>>,
}

impl Turn {
    /// Reads and decrypts once and hands out what came; false if there was nothing.
    fn read(
        &mut self,
        link: &Rc<Link>,
        carry: &mut Vec<u8>,
        unread: &mut bool,
        owner: &dyn Owner,
    ) -> io::Result<bool> {
        let mut scratch = link.scratch.borrow_mut();
        let scratch = &mut *scratch;
        let held = carry.len();
        let read = match socket::read(&link.socket, &mut scratch.read[held..]) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the peer's gateway closed the session",
                ));
            }
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if read == 0 && !std::mem::take(unread) {
            return Ok(false);
        }
        *unread = false;
        link.stats.last_heard_ms.store(now_ms(), Relaxed);
        scratch.read[..held].copy_from_slice(carry);
        let total = held + read;
        scratch.plain.clear();
        let decrypted = {
            let inner = &mut *link.inner.borrow_mut();
            inner
                .channel
                .decrypt(
                    &mut scratch.read[..total],
                    &mut scratch.plain,
                    &mut inner.out,
                )
                .map_err(io::Error::other)?
        };
        // Between two reads an idle link holds nothing.
        if decrypted.consumed == total {
            *carry = Vec::new();
        } else {
            carry.clear();
            carry.extend_from_slice(&scratch.read[decrypted.consumed..total]);
        }
        self.receive(link, &scratch.plain, owner)?;
        if decrypted.closed {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer's gateway ended the session",
            ));
        }
        Ok(true)
    }

    /// Feeds the protocol and delivers payload to the streams' applications.
    fn receive(&mut self, link: &Rc<Link>, plain: &[u8], owner: &dyn Owner) -> io::Result<()> {
        let now = Instant::now();
        let base = plain.as_ptr() as usize;
        let inner = &mut *link.inner.borrow_mut();
        let received = inner.session.receive(now, plain, &mut |event| match event {
            Event::Data { stream, bytes } => {
                if self
                    .target
                    .as_ref()
                    .is_none_or(|target| target.id != stream)
                    || self.ranges.len() == PIECES
                {
                    self.deliver(plain);
                    self.target = link.stream(stream);
                }
                // The pieces are parts of `plain`; the event's lifetime does not say so.
                let start = bytes.as_ptr() as usize - base;
                self.ranges.push(start..start + bytes.len());
            }
            other => {
                self.deliver(plain);
                self.handle(link, other, owner);
            }
        });
        self.deliver(plain);
        received.map_err(io::Error::other)
    }

    /// Hands the gathered pieces to their stream.
    fn deliver(&mut self, plain: &[u8]) {
        if let Some(target) = self.target.take()
            && !self.ranges.is_empty()
        {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            for (piece, range) in pieces.iter_mut().zip(&self.ranges) {
                *piece = IoSlice::new(&plain[range.clone()]);
            }
            let taken = target.deliver(&pieces[..self.ranges.len()]);
            if taken > 0 {
                self.actions.push(Action::Consumed(target.id, taken));
            }
        }
        self.ranges.clear();
    }

    fn handle(&mut self, link: &Rc<Link>, event: Event<'_>, owner: &dyn Owner) {
        match event {
            Event::Data { .. } | Event::Pong { .. } => {}
            Event::Hello(hello) => self.actions.push(Action::Hello(Box::new(hello.clone()))),
            Event::Labels(labels) => self.actions.push(Action::Labels(labels)),
            Event::Opened {
                stream,
                workload,
                export,
                hops,
                probe,
                ..
            } => {
                owner.opened(
                    link,
                    Opened {
                        id: stream,
                        workload,
                        export,
                        hops,
                        probe,
                    },
                );
            }
            Event::Attested {
                stream, workload, ..
            } => {
                self.actions.push(Action::Attested(stream, workload));
            }
            Event::Accepted { stream } => set_phase(link, stream, Phase::Open),
            Event::Rejected { stream, code, text } => {
                set_phase(link, stream, Phase::Rejected(code, text));
                link.forget(stream);
            }
            Event::Finished { stream } => {
                if let Some(stream) = link.stream(stream) {
                    stream.finish();
                }
            }
            Event::Reset { stream, code } => {
                set_phase(link, stream, Phase::Ended(Ended::Reset(code)));
                link.forget(stream);
            }
            Event::Writable { stream } => {
                if let Some(stream) = link.stream(stream) {
                    stream.wake_up.notify_one();
                }
            }
            Event::GoAway { .. } => self.actions.push(Action::GoAway),
        }
    }

    /// Does what needs the protocol state or the owner.
    fn act(&mut self, link: &Rc<Link>, owner: &dyn Owner) {
        if let Some(rtt) = link.inner.borrow().session.srtt() {
            let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
            link.stats.rtt_us.store(micros, Relaxed);
        }
        for action in self.actions.drain(..) {
            match action {
                Action::Consumed(id, n) => link.consumed(id, n),
                Action::Hello(hello) => {
                    *link.labels.borrow_mut() = Arc::new(hello.labels.clone());
                    owner.hello(link, &hello);
                }
                Action::Labels(labels) => {
                    *link.labels.borrow_mut() = Arc::new(labels);
                    owner.labels(link);
                }
                Action::Attested(id, workload) => owner.attested(link, id, workload),
                Action::GoAway => link.changed.notify_waiters(),
            }
        }
    }
}

fn set_phase(link: &Link, id: u32, phase: Phase) {
    if let Some(stream) = link.stream(id) {
        stream.set_phase(phase);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_ends_or_refuses_a_session_is_there() {
        // As the kernel says it: ETIMEDOUT, EHOSTUNREACH, ENETUNREACH, ECONNRESET, EPIPE.
        for (errno, unanswered) in [
            (110, true),
            (113, true),
            (101, true),
            (104, false),
            (32, false),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(is_unanswered(&error), unanswered, "{error}");
        }
        let stalled = io::Error::new(io::ErrorKind::TimedOut, "the peer took no bytes");
        assert!(is_unanswered(&stalled));
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::Other] {
            assert!(!is_unanswered(&kind.into()), "{kind}");
        }
    }
}
