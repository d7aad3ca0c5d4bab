//! Between the index, which knows the denies, and whoever stores them in an object.

use std::sync::Arc;

use clusterlink_model::Policy;
use tokio::sync::watch;

/// Denies as they were stored.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Which reading it is, from 1.
    pub(crate) number: u64,
    pub(crate) denies: Vec<Arc<Policy>>,
}

/// Denies as they are to be stored, ordered by name.
#[derive(Debug, Default)]
pub struct Kept {
    /// The last reading that was taken in before; 0 while nothing was.
    pub reading: u64,
    /// All of them.
    pub denies: Vec<Arc<Policy>>,
}

/// What an index that stores its denies elsewhere hears and says. Cloning shares it.
#[derive(Clone, Debug)]
pub struct DenyPort {
    readings: watch::Sender<Arc<Reading>>,
    kept: watch::Receiver<Arc<Kept>>,
}

impl DenyPort {
    pub(super) fn new(kept: watch::Receiver<Arc<Kept>>) -> (Self, watch::Receiver<Arc<Reading>>) {
        let (readings, receiver) = watch::channel(Arc::default());
        (Self { readings, kept }, receiver)
    }

    /// Tells the index what was stored, and gives the number of this reading.
    pub fn stored(&self, denies: Vec<Arc<Policy>>) -> u64 {
        let number = self.readings.borrow().number + 1;
        self.readings
            .send_replace(Arc::new(Reading { number, denies }));
        number
    }

    /// What is to be stored, as it changes.
    pub fn kept(&self) -> watch::Receiver<Arc<Kept>> {
        self.kept.clone()
    }
}
