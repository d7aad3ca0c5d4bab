//! The node agent: what a node knows, and what it tells its kernel and its gateway.

pub mod datapath;
