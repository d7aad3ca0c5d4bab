//! Questions about addresses that wait for their answers.

use std::{collections::HashMap, net::IpAddr};

use clusterlink_proto::MAX_LOOKUPS;
use tokio::sync::oneshot;

use crate::control::Found;

/// There are as many questions as a controller answers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Who waits for which address. An address is asked about once, however many wait.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    waiting: HashMap<IpAddr, Vec<oneshot::Sender<Found>>>,
}

/// The answer to come. It is dropped when the controller goes.
pub(super) type Waiting = oneshot::Receiver<Found>;

impl Lookups {
    /// Waits for an address; says whether it has to be asked about.
    pub(super) fn wait(&mut self, address: IpAddr) -> Result<(Waiting, bool), TooMany> {
        let (sender, waiting) = oneshot::channel();
        if let Some(others) = self.waiting.get_mut(&address) {
            // Whoever has given up makes room.
            others.retain(|other| !other.is_closed());
            others.push(sender);
            return Ok((waiting, false));
        }
        if self.waiting.len() >= MAX_LOOKUPS {
            return Err(TooMany);
        }
        self.waiting.insert(address, vec![sender]);
        Ok((waiting, true))
    }

    /// Hands an answer to those who wait for it.
    pub(super) fn answer(&mut self, address: IpAddr, found: &Found) {
        for waiting in self.waiting.remove(&address).into_iter().flatten() {
            // Whoever has given up misses nothing.
            let _ = waiting.send(found.clone());
        }
    }

    /// Nobody answers any more.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[tokio::test]
    async fn an_address_is_asked_about_once_and_everybody_hears_the_answer() {
        let mut lookups = Lookups::default();
        let (one, ask) = lookups.wait(address(1)).unwrap();
        assert!(ask);
        let (two, ask) = lookups.wait(address(1)).unwrap();
        assert!(!ask);
        lookups.answer(address(1), &Found::Node);
        assert_eq!(one.await.unwrap(), Found::Node);
        assert_eq!(two.await.unwrap(), Found::Node);
        assert!(
            lookups.wait(address(1)).unwrap().1,
            "it is asked about anew"
        );
    }

    #[tokio::test]
    async fn questions_are_bounded_and_end_with_the_controller() {
        let mut lookups = Lookups::default();
        let waiting: Vec<_> = (0..u32::try_from(MAX_LOOKUPS).unwrap())
            .map(|number| lookups.wait(address(number)).unwrap().0)
            .collect();
        let refused = lookups.wait(address(u32::MAX)).map(|_| ());
        assert_eq!(refused, Err(TooMany));
        lookups.clear();
        for waiting in waiting {
            waiting.await.unwrap_err();
        }
        lookups.wait(address(u32::MAX)).unwrap();
    }
}
