//! A source whose link is cut without a word: new connections go to the next one at once, and what is
//! under way bears with it for as long as TCP does.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::pod::Pod;
use crate::report::Exchange;
use crate::traffic::Client;
use crate::wait::{always, wait_for};

/// What an established session bears with: TCP gives up on unanswered packets after 30 s.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a new connection may take, whatever has become of the source that is tried first; and
/// what was sent along in the last so much of a source's life may be lost.
const SOON: Duration = Duration::from_secs(1);

/// Says something on a new connection, which has to be over soon.
pub fn once(client: &Pod, target: SocketAddr, text: &str) -> Result<Exchange> {
    let one = Client::to(target).say(text).once(client)?;
    let soon = Duration::from_micros(one.total_us) < SOON;
    always(soon, format_args!("it took a second and more: {one:?}"))?;
    Ok(one)
}

/// Fails unless a new connection is served soon, and by this peer.
pub fn is_served_by(peer: &str, client: &Pod, target: SocketAddr, text: &str) -> Result<()> {
    let one = once(client, target, text)?;
    ensure!(
        one.succeeded() && one.text == peer,
        "not by {peer}: {one:?}"
    );
    Ok(())
}

/// New connections are served by this peer since the source before it was cut off, at least until so
/// long after that.
pub fn the_next_source_serves(
    peer: &str,
    client: &Pod,
    target: SocketAddr,
    (cut, until): (Instant, Duration),
) -> Result<()> {
    // Who says nothing before it is heard loses nothing, from the first one on.
    for _ in 0..3 {
        is_served_by(peer, client, target, "")?;
    }
    // What was sent along may be lost, and nothing later.
    wait_for("a second has passed", SOON * 2, || Ok(cut.elapsed() > SOON))?;
    is_served_by(peer, client, target, "hello")?;
    while cut.elapsed() < until {
        is_served_by(peer, client, target, "hello")?;
    }
    Ok(())
}
