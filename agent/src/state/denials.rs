//! What every source of an import denied a moment ago. For as long the kernel refuses such clients
//! itself, so that a client that tries over and over does not ask all peers each time.
//!
//! ```text
//! gateway ─▶ Denials ─▶ Desired::withheld ─▶ kernel: the bit of class and import is not set
//!               └─ MEMORY later: it is as policy says
//! ```

use std::{collections::VecDeque, sync::Arc, time::Duration};

use clusterlink_model::{Import, WorkloadAttributes};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Changes, State, tables::Touched};
use crate::datapath::{BLOCK_IMPORTS, CLASS_HOST};

/// How long a denial is remembered. Half a second is the limit; the state's one task may be busy
/// for 0.2 s with ten thousand imports when the time has come.
pub(super) const MEMORY: Duration = Duration::from_millis(300);

/// How many denials may wait to be remembered; what comes on top is asked again.
const WAITING: usize = 256;

/// A client whom every source of an import denied.
#[derive(Debug)]
pub(super) struct Denial {
    /// What the peers were told of it; `None` is a process of the host.
    pub(super) attributes: Option<Arc<WorkloadAttributes>>,
    /// The import as it was when its sources were tried.
    pub(super) import: Arc<Import>,
}

/// The denials that are told, and those that are remembered.
#[derive(Debug)]
pub(super) struct Denials {
    sender: mpsc::Sender<Denial>,
    told: mpsc::Receiver<Denial>,
    /// Class and import with the end of each memory, first to last.
    remembered: VecDeque<(Instant, u32, u32)>,
}

impl Denials {
    pub(super) fn new() -> Self {
        let (sender, told) = mpsc::channel(WAITING);
        Self {
            sender,
            told,
            remembered: VecDeque::new(),
        }
    }

    /// Where denials are told.
    pub(super) fn sender(&self) -> mpsc::Sender<Denial> {
        self.sender.clone()
    }

    /// Waits for a denial, or for the end of a memory (`None`).
    async fn next(&mut self) -> Option<Denial> {
        let end = self.remembered.front().map(|(end, ..)| *end);
        let told = self.told.recv();
        match end {
            None => told.await,
            Some(end) => tokio::select! {
                // In this order: what is told all the time must not keep a memory from its end.
                biased;
                () = sleep_until(end) => None,
                denial = told => denial,
            },
        }
    }
}

impl State {
    /// Waits until a denial is to be remembered or forgotten, and does that; to be called again
    /// and again.
    pub async fn remember_denials(&mut self) {
        let mut touched = Touched::default();
        match self.denials.next().await {
            Some(denial) => self.withhold(&denial, &mut touched),
            None => self.give_back(Instant::now(), &mut touched),
        }
        self.tables.commit(&self.desired, touched, || {});
    }

    fn withhold(&mut self, denial: &Denial, touched: &mut Touched) {
        let import = &denial.import;
        if self.snapshot.imports.get(&import.name) != Some(import) {
            // Its sources may be others by now, and those were not asked.
            return;
        }
        let class = match &denial.attributes {
            Some(attributes) => self.classes.known(attributes),
            None => Some(CLASS_HOST),
        };
        let (Some(class), Some(number)) = (class, self.numbers.number(&import.name)) else {
            return;
        };
        if self.desired.withheld.insert((class, number)) {
            let end = Instant::now() + MEMORY;
            self.denials.remembered.push_back((end, class, number));
            self.history.withheld(class, number);
            touched.blocks.insert((class, number / BLOCK_IMPORTS));
        }
    }

    fn give_back(&mut self, now: Instant, touched: &mut Touched) {
        let remembered = &mut self.denials.remembered;
        while let Some((_, class, number)) = remembered.pop_front_if(|(end, ..)| *end <= now) {
            self.desired.withheld.remove(&(class, number));
            touched.blocks.insert((class, number / BLOCK_IMPORTS));
        }
    }

    /// A change of an import, or of what it is judged by, is a new question to its sources.
    pub(super) fn forget_denials(&mut self, changes: &mut Changes) {
        let (ids, touched) = (&self.import_ids, &mut changes.touched);
        let judged = &changes.judged;
        self.desired.withheld.retain(|(class, number)| {
            let stays = ids
                .get(number)
                .is_some_and(|import| !judged.contains(import));
            if !stays {
                touched.blocks.insert((*class, number / BLOCK_IMPORTS));
            }
            stays
        });
    }
}
