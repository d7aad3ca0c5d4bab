//! What a session tells its driver.

use std::{sync::Arc, time::Duration};

use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};

use crate::tunnel::{Hello, RejectCode, ResetCode};

/// What happened on a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The peer said who it is. Comes once, before everything else.
    Hello(&'a Hello),
    /// The peer's labels changed.
    Labels(Labels),
    /// The peer opened a stream. Answer it exactly once, by [`crate::tunnel::Session::accept`],
    /// [`crate::tunnel::Session::reject`] or [`crate::tunnel::Session::reset`], even if it was reset in the meantime: only that
    /// frees its slot.
    Opened {
        /// The stream.
        stream: u32,
        /// The client's attributes; `None` for a client without a workload.
        workload: Option<Arc<WorkloadAttributes>>,
        /// Their number, never used for others within the session; 0 for none.
        workload_id: u32,
        /// Whether another gateway attested the client to the peer.
        relayed: bool,
        /// The export that is asked for.
        export: ObjectName,
        /// Its number, never used for others within the session.
        export_id: u32,
        /// How many gateways the connection passed before.
        hops: u32,
        /// Judge only, dial nothing.
        probe: bool,
    },
    /// The client of a stream has other attributes now.
    Attested {
        /// The stream.
        stream: u32,
        /// The client's attributes; `None` for a client without a workload.
        workload: Option<Arc<WorkloadAttributes>>,
        /// Their number.
        workload_id: u32,
    },
    /// The peer connected the backend; more than early data may be sent now.
    Accepted {
        /// The stream.
        stream: u32,
    },
    /// The peer delivered nothing, and will not. The stream is gone.
    Rejected {
        /// The stream.
        stream: u32,
        /// Why.
        code: RejectCode,
        /// Why, for people.
        text: String,
    },
    /// Bytes of a stream, as they arrive.
    Data {
        /// The stream.
        stream: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// The peer's direction ended in order: all its bytes have been delivered.
    Finished {
        /// The stream.
        stream: u32,
    },
    /// Both directions ended at once. The stream is gone.
    Reset {
        /// The stream.
        stream: u32,
        /// Why.
        code: ResetCode,
    },
    /// A stream that had no credit left has some again.
    Writable {
        /// The stream.
        stream: u32,
    },
    /// The peer takes no new streams on this session.
    GoAway {
        /// When it means to end those that are left, from now on.
        deadline: Duration,
        /// Why, for people.
        reason: String,
    },
    /// A ping was answered.
    Pong {
        /// Its round-trip time.
        rtt: Duration,
    },
}
