//! Clients of the Service path that have connections here, and of which this node is told no more: the
//! controller keeps so many of those current that were asked for, and lets go of the oldest. They are
//! looked up again, so that a change of their labels reaches their connections.

use std::{collections::HashMap, rc::Rc, time::Duration};

use clusterlink_model::Client;

use crate::{egress::HOLD, judge::Live, worker::Worker};

/// How often they are looked up: what changed meanwhile applies within a second.
pub(crate) const AGAIN: Duration = Duration::from_millis(500);

/// How many at a time. With more clients than the controller keeps current, each of them that is looked
/// up pushes another one out.
const AT_ONCE: usize = 64;

/// Looks up those that were forgotten, each address once.
pub(crate) fn look_up(worker: &Rc<Worker>) {
    let mut found = HashMap::new();
    {
        let mut asked = worker.asked.borrow_mut();
        for live in worker.live.borrow().values() {
            if asked.len() >= AT_ONCE {
                break;
            }
            if let Some(at) = live.forgotten_at()
                && asked.insert(at.ip())
            {
                found.insert(at.ip(), live.clone());
            }
        }
    }
    for (address, live) in found {
        let worker = worker.clone();
        tokio::task::spawn_local(async move {
            ask(&worker, &live).await;
            worker.asked.borrow_mut().remove(&address);
        });
    }
}

/// Judges all flows of a client as whom it is now. One of whom nobody knows stays the one it was.
async fn ask(worker: &Worker, live: &Live) {
    let Some(at) = live.forgotten_at() else {
        return;
    };
    let answer = tokio::time::timeout(HOLD, live.look_up(&*worker.shared.origins)).await;
    let Ok(client @ Client::Pod { .. }) = answer else {
        return;
    };
    let view = worker.view();
    let flows: Vec<_> = worker.live.borrow().values().cloned().collect();
    for flow in flows {
        if flow.forgotten_at().is_some_and(|flow| flow.ip() == at.ip()) {
            flow.judge_as(&view, client.clone());
        }
    }
}
