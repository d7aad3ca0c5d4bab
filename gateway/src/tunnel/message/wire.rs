//! The protobuf messages inside control frames. Field numbers are never used again; fields that a
//! version does not know are ignored.

use std::collections::BTreeMap;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) versions: Vec<u32>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) features: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) software: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(uint64, tag = "5")]
    pub(crate) clock_ms: u64,
    #[prost(message, optional, tag = "6")]
    pub(crate) limits: Option<Limits>,
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) association: Vec<u8>,
    #[prost(uint32, tag = "8")]
    pub(crate) session: u32,
    #[prost(string, tag = "9")]
    pub(crate) instance: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Limits {
    #[prost(uint32, tag = "1")]
    pub(crate) streams: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) pending_opens: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) initial_window: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) dictionary_entries: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) dictionary_bytes: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Labels {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Define {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) workload: Option<Workload>,
    #[prost(message, optional, tag = "3")]
    pub(crate) export: Option<Export>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Workload {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) service_account: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) labels: BTreeMap<String, String>,
    #[prost(bool, tag = "4")]
    pub(crate) relayed: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Export {
    #[prost(string, tag = "1")]
    pub(crate) namespace: String,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Forget {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Open {
    /// 0 for a client without a workload (a node's own process, or outside).
    #[prost(uint32, tag = "1")]
    pub(crate) workload: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) export: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) hops: u32,
    #[prost(bool, tag = "4")]
    pub(crate) probe: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Attest {
    #[prost(uint32, tag = "1")]
    pub(crate) workload: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reject {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) text: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GoAway {
    #[prost(uint64, tag = "1")]
    pub(crate) deadline_ms: u64,
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}
