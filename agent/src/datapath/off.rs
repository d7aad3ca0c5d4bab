//! A node whose kernel has no part in it: nothing is told to it, and it knows of nothing. Connects are
//! not steered, and the gateway listens at target ports itself.

use std::{io, net::SocketAddr, os::fd::BorrowedFd};

use clusterlink_gateway::view::Origin;

use super::{Datapath, DatapathError, KernelFlow, Refusal, VerdictBlock};

/// Connects go by the Service path alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct OffDatapath;

impl Datapath for OffDatapath {
    fn set_listeners(&self, _: &[BorrowedFd<'_>]) -> Result<(), DatapathError> {
        Ok(())
    }

    fn set_target(&self, _: SocketAddr, _: u32) -> Result<(), DatapathError> {
        Ok(())
    }

    fn remove_target(&self, _: SocketAddr) -> Result<(), DatapathError> {
        Ok(())
    }

    fn targets(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        Ok(Vec::new())
    }

    fn set_target_listeners(&self, _: &[BorrowedFd<'_>]) -> Result<(), DatapathError> {
        Ok(())
    }

    fn heartbeat(&self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn set_service(&self, _: SocketAddr, _: u32) -> Result<(), DatapathError> {
        Ok(())
    }

    fn remove_service(&self, _: SocketAddr) -> Result<(), DatapathError> {
        Ok(())
    }

    fn services(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        Ok(Vec::new())
    }

    fn set_workload(&self, _: u64, _: u32) -> Result<(), DatapathError> {
        Ok(())
    }

    fn remove_workload(&self, _: u64) -> Result<(), DatapathError> {
        Ok(())
    }

    fn workloads(&self) -> Result<Vec<(u64, u32)>, DatapathError> {
        Ok(Vec::new())
    }

    fn set_verdicts(&self, _: u32, _: u32, _: &VerdictBlock) -> Result<(), DatapathError> {
        Ok(())
    }

    fn clear_verdicts(&self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn origin(&self, _: BorrowedFd<'_>) -> io::Result<Option<Origin>> {
        Ok(None)
    }

    fn refusals(&self) -> Vec<Refusal> {
        Vec::new()
    }

    fn flows(&self) -> Result<Vec<KernelFlow>, DatapathError> {
        Ok(Vec::new())
    }

    fn probe(&self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        Ok(Vec::new())
    }
}
