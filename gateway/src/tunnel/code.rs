//! The codes that REJECT and RESET carry.

/// Why a stream was not accepted; nothing of it was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectCode {
    /// Policy denies it, or there is no such export: the two look the same from outside.
    Denied,
    /// The export has no backend that is ready.
    NoBackend,
    /// The backend could not be connected to.
    BackendRefused,
    /// A limit of the rejecting gateway was reached.
    Overloaded,
    /// The connection passed too many gateways.
    Loop,
    /// The client's identity is not acceptable.
    Identity,
    /// The gateway takes no new streams on this session.
    GoingAway,
    /// A code of a newer version.
    Other(u32),
}

impl RejectCode {
    /// The code on the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Denied => 1,
            Self::NoBackend => 2,
            Self::BackendRefused => 3,
            Self::Overloaded => 4,
            Self::Loop => 5,
            Self::Identity => 6,
            Self::GoingAway => 7,
            Self::Other(code) => code,
        }
    }

    /// The meaning of a code on the wire.
    pub fn from_wire(code: u32) -> Self {
        match code {
            1 => Self::Denied,
            2 => Self::NoBackend,
            3 => Self::BackendRefused,
            4 => Self::Overloaded,
            5 => Self::Loop,
            6 => Self::Identity,
            7 => Self::GoingAway,
            code => Self::Other(code),
        }
    }

    /// A few words for flow logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NoBackend => "no-backend",
            Self::BackendRefused => "backend-refused",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::Identity => "identity",
            Self::GoingAway => "going-away",
            Self::Other(_) => "other",
        }
    }
}

/// Why both directions of a stream ended at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// The application reset its connection.
    Application,
    /// The gateway gave up on the application's connection (vanished, timed out, or an error).
    ConnectionLost,
    /// Policy denies the connection since a change.
    Denied,
    /// The Import, Export or Peer is gone.
    Removed,
    /// A limit of the resetting gateway was reached.
    Overloaded,
    /// The number of bytes that FIN announced is not the number that arrived.
    CountMismatch,
    /// The gateway is stopping.
    Shutdown,
    /// A code of a newer version.
    Other(u32),
}

impl ResetCode {
    /// The code on the wire.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Application => 1,
            Self::ConnectionLost => 2,
            Self::Denied => 3,
            Self::Removed => 4,
            Self::Overloaded => 5,
            Self::CountMismatch => 6,
            Self::Shutdown => 7,
            Self::Other(code) => code,
        }
    }

    /// The meaning of a code on the wire.
    pub fn from_wire(code: u32) -> Self {
        match code {
            1 => Self::Application,
            2 => Self::ConnectionLost,
            3 => Self::Denied,
            4 => Self::Removed,
            5 => Self::Overloaded,
            6 => Self::CountMismatch,
            7 => Self::Shutdown,
            code => Self::Other(code),
        }
    }

    /// A few words for flow logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::ConnectionLost => "connection-lost",
            Self::Denied => "denied",
            Self::Removed => "removed",
            Self::Overloaded => "overloaded",
            Self::CountMismatch => "count-mismatch",
            Self::Shutdown => "shutdown",
            Self::Other(_) => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in 0..64 {
            assert_eq!(RejectCode::from_wire(code).to_wire(), code);
            assert_eq!(ResetCode::from_wire(code).to_wire(), code);
        }
    }
}
