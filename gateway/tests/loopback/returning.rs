//! A peer that was away comes back.

use std::{
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use clusterlink_model::LbScheme;

use crate::support::{
    Authority, Node, allow_all, eventually, export, import, read_to_end, speaker, splice,
};

/// The only way to a gateway, which can be barred: then whatever passes is cut, and nobody gets through.
struct Door {
    address: SocketAddr,
    /// Both ends of what passes, while it is open.
    passing: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Door {
    fn to(gateway: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let passing = Arc::new(Mutex::new(Some(Vec::new())));
        let shared = passing.clone();
        thread::spawn(move || {
            for caller in listener.incoming() {
                let (Ok(caller), Some(passing)) = (caller, &mut *shared.lock().unwrap()) else {
                    continue;
                };
                let Ok(called) = TcpStream::connect(gateway) else {
                    continue;
                };
                splice(&caller, &called);
                passing.extend([caller, called]);
            }
        });
        Self { address, passing }
    }

    fn bar(&self) {
        let passing = self.passing.lock().unwrap().take();
        for end in passing.into_iter().flatten() {
            // It may have ended by itself.
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn open(&self) {
        *self.passing.lock().unwrap() = Some(Vec::new());
    }
}

#[test]
fn a_peer_that_calls_again_is_used_again_by_every_worker() {
    let authority = Authority::new();
    let client = Node::start(&authority, "client", 2);
    let [one, two] = ["one", "two"].map(|name| {
        let server = Node::start(&authority, name, 1);
        server.change(|snapshot| {
            allow_all(snapshot);
            export(snapshot, &[speaker(name)]);
        });
        server
    });
    let door = Door::to(one.gateway.listen_address());
    client.change(|snapshot| {
        allow_all(snapshot);
        let sources = [("one", door.address), ("two", two.gateway.listen_address())];
        import(snapshot, LbScheme::RoundRobin, &sources);
    });
    let ones = || {
        let all = (0..40).map(|_| read_to_end(client.steering));
        all.filter(|said| said.as_ref().is_ok_and(|said| said == b"one"))
            .count()
    };
    eventually("both serve", || ones() == 20);
    door.bar();
    eventually("each worker has failed to reach one of them", || {
        ones() == 0
    });
    door.open();
    // Nobody has to wait for it: the other one serves.
    one.change(|snapshot| {
        let caller = [("client", client.gateway.listen_address())];
        import(snapshot, LbScheme::Static, &caller);
    });
    eventually("both serve again", || ones() == 20);
}
