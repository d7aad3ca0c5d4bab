//! Types and reasons of the conditions in the status of every kind.
//!
//! A condition's `status` is `True` when all is well. Its `reason` is one of the words below, for
//! programs; its `message` names the object, the value and the cure, for people.

/// On an Export: its Service (or Import) exists and has the port.
pub const EXPORT_VALID: &str = "ExportValid";

/// On an Import: its target port is held by this Import and by no other, and an agent serves it there.
pub const IMPORT_TARGET_PORT_VALID: &str = "ImportTargetPortValid";

/// On an Import: clients can address it by a Service that is ours, or that we may join.
pub const IMPORT_SERVICE_VALID: &str = "ImportServiceValid";

/// On a Peer: it has a live session with us, either way.
pub const PEER_REACHABLE: &str = "PeerReachable";

/// On an access policy: what was written last is in force.
pub const POLICY_VALID: &str = "PolicyValid";

/// Reasons, grouped by the kind of object that shows them.
pub mod reasons {
    /// Any condition that is `True` without more to say.
    pub const VALID: &str = "Valid";
    /// The object's name is not usable for its purpose.
    pub const NAME_INVALID: &str = "NameInvalid";
    /// The last manifest of the object could not be used; an earlier one is in force.
    pub const STALE: &str = "Stale";
    /// Another object of the same name counts instead of this one.
    pub const DUPLICATE: &str = "Duplicate";

    /// Export: no Service and no Import of the host's name is in the namespace.
    pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";
    /// Export: the Service has no such TCP port; Import: the merged Service has none.
    pub const PORT_NOT_FOUND: &str = "PortNotFound";
    /// Export: the host is not the name of an object of the same namespace.
    pub const HOST_INVALID: &str = "HostInvalid";
    /// Export: connections may not be delivered to any of the Service's endpoints.
    pub const ENDPOINTS_REFUSED: &str = "EndpointsRefused";
    /// Export: the host is an Import that cannot be used itself. Import: it holds no target port,
    /// since it cannot be used.
    pub const IMPORT_INVALID: &str = "ImportInvalid";

    /// Import: the target port was chosen by the controller.
    pub const TARGET_PORT_ALLOCATED: &str = "Allocated";
    /// Import: another Import holds the target port.
    pub const TARGET_PORT_CONFLICT: &str = "Conflict";
    /// Import: the target port is in a range that may not be used.
    pub const TARGET_PORT_RESERVED: &str = "Reserved";
    /// Import: a process of a node listens on the target port.
    pub const TARGET_PORT_IN_USE: &str = "InUse";
    /// Import: some agents reject it, and are no endpoints of it; others serve it.
    pub const NOT_ON_ALL_NODES: &str = "NotOnAllNodes";
    /// Import: agents reject it, and no other one serves it.
    pub const NOT_ON_ANY_NODE: &str = "NotOnAnyNode";
    /// Import: no port is left in the configured range.
    pub const TARGET_PORTS_EXHAUSTED: &str = "TargetPortsExhausted";
    /// Import: the lease could not be stored, so it may not be used yet.
    pub const LEASE_NOT_STORED: &str = "LeaseNotStored";

    /// Import: no address is left in the configured ranges.
    pub const ADDRESSES_EXHAUSTED: &str = "AddressesExhausted";
    /// Import: the Service is not made yet.
    pub const SERVICE_PENDING: &str = "ServicePending";
    /// Import: the Service could not be written.
    pub const SERVICE_NOT_WRITTEN: &str = "ServiceNotWritten";
    /// Import: the Service is going, and its name is free once no node steers its address.
    pub const SERVICE_TERMINATING: &str = "ServiceTerminating";
    /// Import: the Service that is to be adopted selects pods.
    pub const SERVICE_HAS_SELECTOR: &str = "ServiceHasSelector";
    /// Import: the Service has EndpointSlices of somebody else.
    pub const SERVICE_HAS_FOREIGN_SLICES: &str = "ServiceHasForeignSlices";
    /// Import: the Service that is to be adopted has no address.
    pub const SERVICE_HEADLESS: &str = "ServiceHeadless";
    /// Import: a Service of the same name exists that is not ours.
    pub const SERVICE_NOT_OWNED: &str = "ServiceNotOwned";
    /// Import: its Service was given to somebody else.
    pub const SERVICE_HANDED_AWAY: &str = "ServiceHandedAway";
    /// Import: the Service to merge with is missing.
    pub const MERGE_SERVICE_NOT_FOUND: &str = "MergeServiceNotFound";
    /// Import: the Service to merge with is headless.
    pub const MERGE_SERVICE_HEADLESS: &str = "MergeServiceHeadless";
    /// Import: this peer has no Kubernetes Services to merge with.
    pub const MERGE_UNSUPPORTED: &str = "MergeUnsupported";

    /// Import source: its peer is reachable and accepts the export.
    pub const SOURCE_USABLE: &str = "Usable";
    /// Import source: a field is empty or no valid name.
    pub const SOURCE_INVALID: &str = "SourceInvalid";
    /// Import source: no Peer of that name exists here.
    pub const PEER_NOT_FOUND: &str = "PeerNotFound";
    /// Import source: the peer has no such export, or does not let us have it.
    pub const EXPORT_REFUSED: &str = "ExportRefused";

    /// Peer, Import source: the peer has a session with us.
    pub const REACHABLE: &str = "Reachable";
    /// Peer, Import source: the peer was heard from before, but not now.
    pub const UNREACHABLE: &str = "Unreachable";
    /// Peer: it never answered.
    pub const NEVER_SEEN: &str = "NeverSeen";
    /// Peer: it has no gateways and can only call us.
    pub const INBOUND_ONLY: &str = "InboundOnly";
    /// Peer: no agent is connected to the controller, so nobody can say.
    pub const NO_AGENTS: &str = "NoAgents";
    /// Peer: a gateway's host or port is not usable.
    pub const GATEWAY_INVALID: &str = "GatewayInvalid";

    /// Policy: the manifest is not a valid policy.
    pub const POLICY_INVALID: &str = "PolicyInvalid";
    /// Policy: it is invalid, and the allow that it replaced was withdrawn.
    pub const ALLOW_WITHDRAWN: &str = "AllowWithdrawn";
    /// Policy: it is invalid, and the deny that it replaced stays in force.
    pub const DENY_KEPT: &str = "DenyKept";
    /// Policy: a named workload set is not predefined here.
    pub const WORKLOAD_SET_UNKNOWN: &str = "WorkloadSetUnknown";
    /// Policy: valid, but `from` selects client attributes without naming the peer that attests them.
    pub const CLIENT_WITHOUT_PEER: &str = "ClientWithoutPeer";
}
