//! What the hooks count. A connect that is none of ours is not counted, to keep it cheap.

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Something that a hook did or met.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        /// All reasons, in the order of their numbers.
        pub const ALL: [Reason; COUNT as usize] = [$(Reason::$variant,)+];

        /// How many reasons there are.
        pub const COUNT: u32 = [$($name,)+].len() as u32;

        impl Reason {
            /// The name under which the count is shown.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// A connect was sent to the gateway.
    Steered = "steered",
    /// A connect of the gateway's own process was left alone.
    Exempt = "exempt",
    /// A connect was left alone because no gateway was heard of for ten minutes.
    PassedInert = "passed-inert",
    /// A connect was left alone because the gateway was not heard of for two seconds.
    PassedStale = "passed-stale",
    /// A connect was refused: the client's class has no verdict for the import.
    RefusedDenied = "refused-denied",
    /// A connect was refused: none of the gateway's listeners lives.
    RefusedGatewayGone = "refused-gateway-gone",
    /// A connect was refused: the gateway was not heard of for two seconds.
    RefusedGatewayStale = "refused-gateway-stale",
    /// A connect was refused: the gateway has no address of that family.
    RefusedNoGatewayAddress = "refused-no-gateway-address",
    /// A connect was refused: there was no memory for its record.
    RefusedNoMemory = "refused-no-memory",
    /// A connect or datagram that is not TCP, to an imported address, was refused.
    RefusedNotTcp = "refused-not-tcp",
    /// A connection to a leased port was handed to the gateway.
    TargetHanded = "target-handed",
    /// A connection to a leased port was left alone because no gateway was heard of for ten minutes.
    TargetPassedInert = "target-passed-inert",
    /// A connection to a leased port was refused: none of the gateway's sockets for it lives.
    TargetRefusedGone = "target-refused-gateway-gone",
    /// A connection to a leased port was refused: the gateway was not heard of for two seconds.
    TargetRefusedStale = "target-refused-gateway-stale",
    /// A probe of the agent was answered.
    Probed = "probed",
    /// The gateway accepted a connection that no record was found for.
    HandoffMissing = "handoff-missing",
    /// The record of an accepted connection was too old to count.
    HandoffExpired = "handoff-expired",
    /// The record of a connect could not be kept for the gateway.
    HandoffFailed = "handoff-failed",
    /// An open connection is not shown because the table is full.
    FlowsFull = "flows-full",
    /// A refusal is not reported because the ring is full.
    RefusalsFull = "refusals-full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_the_list() {
        for (place, reason) in ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
        }
        assert_eq!(ALL.len(), COUNT as usize);
    }

    #[test]
    fn names_are_unique() {
        for (place, reason) in ALL.iter().enumerate() {
            assert!(
                ALL[..place]
                    .iter()
                    .all(|other| other.name() != reason.name())
            );
        }
    }
}
