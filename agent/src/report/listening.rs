//! The TCP ports that processes of this node listen on. The controller gives none of them to an
//! import.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader},
};

/// Below are the ports that no import gets anyway.
const LEAST: u16 = 1024;

/// The state `TCP_LISTEN`, as the kernel writes it.
const LISTEN: &str = "0A";

/// The ports that are listened on in the network namespace of this thread, without those that are the
/// agent's `own`.
pub(super) fn ports(own: impl Fn(u16) -> bool) -> io::Result<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        match File::open(format!("/proc/thread-self/net/{table}")) {
            Ok(file) => read(BufReader::new(file), &mut ports)?,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    ports.retain(|port| *port >= LEAST && !own(*port));
    Ok(ports)
}

/// Reads a table as far as needed: the kernel lists listeners first and makes the text as it is read,
/// so that a node with a million connections costs no more than one without any.
fn read(table: impl BufRead, ports: &mut BTreeSet<u16>) -> io::Result<()> {
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (Some(local), Some(LISTEN)) = (fields.next(), fields.nth(1)) else {
            break;
        };
        let port = local.rsplit(':').next();
        ports.extend(port.and_then(|port| u16::from_str_radix(port, 16).ok()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listeners_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2505 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   2: 0100007F:9C40 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0
";
        let mut ports = BTreeSet::new();
        read(table.as_bytes(), &mut ports).unwrap();
        assert_eq!(ports, [0x2505, 22].into());
        let mut ports = BTreeSet::new();
        let six = "header
   0: 00000000000000000000000001000000:115B 00000000000000000000000000000000:0000 0A x
 nonsense
   1: 00000000000000000000000001000000:115C 00000000000000000000000000000000:0000 0A x";
        read(six.as_bytes(), &mut ports).unwrap();
        assert_eq!(ports, [4443].into());
    }

    #[test]
    fn a_listener_of_this_host_is_found_and_an_own_one_left_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(ports(|_| false).unwrap().contains(&port));
        assert!(!ports(|own| own == port).unwrap().contains(&port));
        let six = std::net::TcpListener::bind("[::1]:0").unwrap();
        let port = six.local_addr().unwrap().port();
        assert!(ports(|_| false).unwrap().contains(&port));
    }
}
