//! Buffers that a worker lends to whatever task is running, so that an idle flow owns none.

use std::{cell::RefCell, rc::Rc};

use crate::tunnel::MAX_DATA;

/// The largest TLS record with its overhead: what may be left over of the last read.
const RECORD: usize = 16 * 1024 + 512;

/// One worker's buffers. Borrowed only between two awaits.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Ciphertext as read from a session: room for what was left over and for a large read.
    pub(crate) read: Vec<u8>,
    /// Plaintext of `read`.
    pub(crate) plain: Vec<u8>,
    /// A frame header and what was read from an application.
    pub(crate) application: Vec<u8>,
}

impl Scratch {
    pub(crate) fn new() -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            read: vec![0; RECORD + MAX_DATA],
            plain: Vec::with_capacity(RECORD + MAX_DATA),
            application: vec![0; 8 + MAX_DATA],
        }))
    }
}
