//! Carries an accepted stream: application to tunnel, and tunnel to application.

use std::{io, rc::Rc};

use tokio::io::Interest;

use crate::{
    flow::EndReason,
    link::Link,
    socket,
    stream::{Ended, Stream},
    tunnel::ResetCode,
};

/// Reads up to this many bytes join a shared record; longer ones get records of their own at once.
const SMALL: usize = 4096;

/// Reads in a row before other tasks get their turn.
const TURNS: usize = 4;

/// Why a relay stopped before both directions ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The application reset its connection, or it failed.
    Application,
    /// The stream was ended by the other side, by the loss of its session, or by this gateway.
    Stream(Ended),
}

/// Carries both directions to their end, then lets go of the stream. `sent` says that the
/// application's direction has ended already.
pub(crate) async fn relay(link: &Rc<Link>, stream: &Rc<Stream>, sent: bool) -> Result<(), Stop> {
    let up = async { if sent { Ok(()) } else { up(link, stream).await } };
    let carried = futures::future::try_join(up, down(link, stream)).await;
    let result = match carried {
        Ok(((), ())) => {
            if let Some(application) = stream.application() {
                socket::end_orderly(application);
            }
            Ok(())
        }
        // The cause of a failing socket may be known better by the stream's end.
        Err(stop) => Err(stream.ended().map_or(stop, |ended| match ended {
            Ended::Application => Stop::Application,
            other => Stop::Stream(other),
        })),
    };
    if let Err(stop) = result {
        match stop {
            Stop::Application => link.reset(stream.id, ResetCode::Application),
            Stop::Stream(Ended::Aborted(reason)) => link.reset(stream.id, reset_code(reason)),
            Stop::Stream(Ended::Reset(_) | Ended::Lost | Ended::Application) => {}
        }
    }
    link.forget(stream.id);
    result
}

fn reset_code(reason: EndReason) -> ResetCode {
    match reason {
        EndReason::Denied => ResetCode::Denied,
        EndReason::Removed => ResetCode::Removed,
        EndReason::Shutdown => ResetCode::Shutdown,
        _ => ResetCode::ConnectionLost,
    }
}

fn stopped(stream: &Stream) -> Result<(), Stop> {
    stream
        .ended()
        .map_or(Ok(()), |ended| Err(Stop::Stream(ended)))
}

/// Application to tunnel.
async fn up(link: &Link, stream: &Rc<Stream>) -> Result<(), Stop> {
    let Some(application) = stream.application() else {
        return Err(Stop::Application);
    };
    let mut turns = 0;
    loop {
        stopped(stream)?;
        let room = link.room(stream);
        if room == 0 {
            stream.wake_up.notified().await;
            continue;
        }
        match link.carry(stream, application, room, SMALL) {
            Ok(0) => {
                link.fin(stream.id);
                break;
            }
            Ok(_) => {
                turns += 1;
                if turns == TURNS {
                    turns = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turns = 0;
                tokio::select! {
                    biased;
                    ready = application.readable() => ready.map_err(|_| Stop::Application)?,
                    () = stream.wake_up.notified() => {}
                }
            }
            Err(_) => return Err(Stop::Application),
        }
    }
    Ok(())
}

/// Tunnel to application: only what the session's driver could not write at once.
async fn down(link: &Link, stream: &Stream) -> Result<(), Stop> {
    let Some(application) = stream.application() else {
        return Err(Stop::Application);
    };
    loop {
        stopped(stream)?;
        let flushed = stream.flush().map_err(|_| Stop::Application)?;
        if flushed.taken > 0 {
            link.consumed(stream.id, flushed.taken);
        }
        if flushed.ended {
            return Ok(());
        }
        if flushed.left {
            tokio::select! {
                biased;
                ready = application.writable() => ready.map_err(|_| Stop::Application)?,
                () = stream.wake_down.notified() => {}
            }
        } else {
            tokio::select! {
                biased;
                () = stream.wake_down.notified() => {}
                // A reset after the application's own end would go unnoticed by `up`.
                _ = application.ready(Interest::ERROR) => {
                    stopped(stream)?;
                    return Err(Stop::Application);
                }
            }
        }
    }
}
