//! One stream of a session: the application's socket and what is held for it.

use std::{
    cell::{OnceCell, RefCell},
    io::{self, IoSlice},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::{net::TcpStream, sync::Notify};

use crate::{
    flow::{Direction, EndReason, Flow},
    socket,
    tunnel::{RejectCode, ResetCode},
};

/// How a stream stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// OPEN was sent or received; nobody has said yes.
    Opening,
    /// ACCEPT was sent or received.
    Open,
    /// The other side said no, and nothing was delivered.
    Rejected(RejectCode, String),
    /// It ended before its time.
    Ended(Ended),
}

/// Why a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The other gateway reset it.
    Reset(ResetCode),
    /// The session was lost.
    Lost,
    /// The application's socket failed while its bytes were delivered.
    Application,
    /// This gateway ends it.
    Aborted(EndReason),
}

/// What is held for the application: only what its socket did not take at once.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    sent: usize,
    /// FIN has arrived: after `bytes` the application gets its end.
    fin: bool,
    /// The end has been given.
    shut: bool,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) flow: Arc<Flow>,
    direction: Direction,
    application: OnceCell<Rc<TcpStream>>,
    phase: RefCell<Phase>,
    held: RefCell<Held>,
    /// Credit grew, the link has room again, or the phase changed.
    pub(crate) wake_up: Notify,
    /// Something is held, FIN arrived, or the phase changed.
    pub(crate) wake_down: Notify,
}

impl Stream {
    pub(crate) fn new(id: u32, direction: Direction, flow: Arc<Flow>) -> Self {
        Self {
            id,
            flow,
            direction,
            application: OnceCell::new(),
            phase: RefCell::new(Phase::Opening),
            held: RefCell::default(),
            wake_up: Notify::new(),
            wake_down: Notify::new(),
        }
    }

    /// Gives the stream its application's socket; a second one is dropped.
    pub(crate) fn set_application(&self, socket: Rc<TcpStream>) {
        let _ = self.application.set(socket);
    }

    pub(crate) fn application(&self) -> Option<&TcpStream> {
        self.application.get().map(Rc::as_ref)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        match &*self.phase.borrow() {
            Phase::Ended(ended) => Some(*ended),
            Phase::Opening | Phase::Open | Phase::Rejected(..) => None,
        }
    }

    /// Moves on; an end is final.
    pub(crate) fn set_phase(&self, phase: Phase) {
        {
            let mut current = self.phase.borrow_mut();
            if matches!(*current, Phase::Ended(_)) {
                return;
            }
            *current = phase;
        }
        self.wake_up.notify_one();
        self.wake_down.notify_one();
    }

    pub(crate) fn end(&self, ended: Ended) {
        self.set_phase(Phase::Ended(ended));
    }

    /// Counts bytes read from the application.
    pub(crate) fn count_up(&self, n: usize) {
        match self.direction {
            Direction::Egress => self.flow.sent.fetch_add(n as u64, Relaxed),
            Direction::Ingress => self.flow.received.fetch_add(n as u64, Relaxed),
        };
    }

    fn count_down(&self, n: usize) {
        match self.direction {
            Direction::Egress => self.flow.received.fetch_add(n as u64, Relaxed),
            Direction::Ingress => self.flow.sent.fetch_add(n as u64, Relaxed),
        };
    }

    /// Delivers bytes of the tunnel: at once as far as the application's socket takes them, the
    /// rest is held (the sender's credit bounds it). Returns how many were taken at once.
    pub(crate) fn deliver(&self, pieces: &[IoSlice<'_>]) -> usize {
        let mut held = self.held.borrow_mut();
        let mut taken = 0;
        if held.sent == held.bytes.len()
            && let Some(socket) = self.application.get()
        {
            match socket::write_vectored(socket, pieces) {
                Ok(n) => taken = n,
                Err(_) => {
                    drop(held);
                    self.end(Ended::Application);
                    return 0;
                }
            }
        }
        self.count_down(taken);
        let mut skip = taken;
        let before = held.bytes.len();
        for piece in pieces {
            if skip >= piece.len() {
                skip -= piece.len();
            } else {
                held.bytes.extend_from_slice(&piece[skip..]);
                skip = 0;
            }
        }
        if held.bytes.len() > before {
            self.wake_down.notify_one();
        }
        taken
    }

    /// The other side's direction ended, all of its bytes have arrived.
    pub(crate) fn finish(&self) {
        self.held.borrow_mut().fin = true;
        self.wake_down.notify_one();
    }

    /// Writes what is held. `n` bytes were taken by the application.
    pub(crate) fn flush(&self) -> io::Result<Flushed> {
        let Some(socket) = self.application.get() else {
            return Ok(Flushed {
                taken: 0,
                left: false,
                ended: false,
            });
        };
        let mut held = self.held.borrow_mut();
        let mut taken = 0;
        if held.sent < held.bytes.len() {
            taken = socket::write(socket, &held.bytes[held.sent..])?;
            held.sent += taken;
            if held.sent == held.bytes.len() {
                // An idle flow owns no buffer.
                held.bytes = Vec::new();
                held.sent = 0;
            } else if held.sent > 256 * 1024 {
                let sent = held.sent;
                held.bytes.drain(..sent);
                held.sent = 0;
            }
        }
        let left = held.sent < held.bytes.len();
        if !left && held.fin && !held.shut {
            held.shut = true;
            socket::shut_write(socket)?;
        }
        self.count_down(taken);
        Ok(Flushed {
            taken,
            left,
            ended: held.shut,
        })
    }
}

/// What [`Stream::flush`] did.
pub(crate) struct Flushed {
    /// Bytes that the application took.
    pub(crate) taken: usize,
    /// More is held: its socket is full.
    pub(crate) left: bool,
    /// The end has been given to the application.
    pub(crate) ended: bool,
}
