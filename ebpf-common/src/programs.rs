//! The programs: their names, and where each is attached.

/// Where a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The cgroup whose connects are steered.
    Clients,
    /// The cgroup whose connects are steered, and the gateway's own.
    ClientsAndGateway,
    /// The gateway's network namespace, where the Service path is served.
    Network,
}

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name: at most 15 characters, which is what the kernel keeps.
    pub name: &'static str,
    /// Where it is attached.
    pub scope: Scope,
}

/// Steers IPv4 connects.
pub const CONNECT4: &str = "connect4";
/// Steers IPv6 connects.
pub const CONNECT6: &str = "connect6";
/// Shows IPv4 clients the address that they asked for.
pub const GETPEERNAME4: &str = "getpeername4";
/// Shows IPv6 clients the address that they asked for.
pub const GETPEERNAME6: &str = "getpeername6";
/// Refuses IPv4 datagrams to imported addresses.
pub const SENDMSG4: &str = "sendmsg4";
/// Refuses IPv6 datagrams to imported addresses.
pub const SENDMSG6: &str = "sendmsg6";
/// Tracks steered connections and carries their records to the gateway.
pub const CONNECTIONS: &str = "connections";
/// Hands connections to leased ports to the gateway. (Its section is named `sk_lookup`, so it must
/// not be.)
pub const TARGET_LOOKUP: &str = "target_lookup";

/// All programs.
pub const ALL: [Program; 8] = [
    // The tracking of connections is attached first: a steered connect without it has no record.
    Program {
        name: CONNECTIONS,
        scope: Scope::ClientsAndGateway,
    },
    Program {
        name: GETPEERNAME4,
        scope: Scope::Clients,
    },
    Program {
        name: GETPEERNAME6,
        scope: Scope::Clients,
    },
    Program {
        name: SENDMSG4,
        scope: Scope::Clients,
    },
    Program {
        name: SENDMSG6,
        scope: Scope::Clients,
    },
    Program {
        name: CONNECT4,
        scope: Scope::Clients,
    },
    Program {
        name: CONNECT6,
        scope: Scope::Clients,
    },
    Program {
        name: TARGET_LOOKUP,
        scope: Scope::Network,
    },
];
