//! Who connects by the Service path from an address of this node: whoever has the socket.
//!
//! Where kube-proxy knows the pods' ranges it masquerades the node's own processes, and pods of its
//! network, on their way to a target port: neither address nor port of what the gateway accepts are the
//! client's then. What they were is in the kernel's table of connections, and it is only said there:
//! a port that a client is given on the way may be another socket's own.

use std::{io, net::SocketAddr, sync::Once};

use clusterlink_gateway::view::Connection;

use super::identities::Identities;
use crate::host::{Ends, cgroup_of, original_of};

/// Tells the cgroup of the socket of this network namespace that is connected from one address to
/// another.
pub(super) type Sockets = fn(SocketAddr, SocketAddr) -> io::Result<Option<u64>>;

/// Tells what the connection from one address that was accepted at another was before it was translated.
pub(super) type Originals = fn(SocketAddr, SocketAddr) -> io::Result<Option<Ends>>;

/// How the kernel is asked for clients of this node.
#[derive(Clone, Copy)]
pub(super) struct LocalClients {
    pub(super) sockets: Sockets,
    pub(super) originals: Originals,
}

impl Default for LocalClients {
    fn default() -> Self {
        Self {
            sockets: cgroup_of,
            originals: original_of,
        }
    }
}

/// The socket of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    /// The client's own address.
    pub(super) source: SocketAddr,
    /// The cgroup by which the kernel's hooks would name it.
    pub(super) cgroup: u64,
}

impl LocalClients {
    /// Who has the socket of a connection that shows an address of this node as its source. Nobody, if
    /// somebody else is masqueraded: a client from outside, or a pod with a network of its own.
    pub(super) fn owner(
        self,
        connection: Connection,
        table: &Identities,
    ) -> io::Result<Option<Owner>> {
        let Some(Ends {
            source,
            destination,
        }) = self.original(connection)
        else {
            return Ok(None);
        };
        if !table.places.is_own(source.ip().to_canonical()) {
            return Ok(None);
        }
        let cgroup = (self.sockets)(source, destination)?;
        Ok(cgroup.map(|cgroup| Owner {
            source,
            cgroup: table.around(cgroup),
        }))
    }

    /// The connection as its client sees it; `None` if it was translated, and nobody can say from what.
    fn original(self, connection: Connection) -> Option<Ends> {
        let Connection {
            source,
            destination,
            asked,
        } = connection;
        match (self.originals)(source, destination) {
            Ok(Some(original)) => return Some(original),
            Ok(None) => {}
            Err(error) => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    tracing::warn!(
                        %error,
                        "cannot ask the kernel what connections were before they were translated (ctnetlink): own processes of this node that come by kube-proxy are unknown, and refused"
                    );
                });
                tracing::debug!(%source, %destination, %error, "cannot ask for a connection's original");
            }
        }
        // Without an entry nothing has translated it.
        (asked == destination).then_some(Ends {
            source,
            destination,
        })
    }
}
