//! The lease of the steered addresses. An address of an import may be given to another Service once
//! every agent has let it go, or once their leases have run out: so an agent that does not hear from
//! the controller must stop steering by itself. Connections go by the Service path then.

use std::time::Duration;

/// How long addresses stay steered after the controller was last heard from.
pub const TERM: Duration = Duration::from_secs(3600);

/// The right to steer; times are since the boot of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    last_contact: Option<Duration>,
}

impl Lease {
    /// A lease that counts from the last contact of an earlier process, if there was one.
    pub fn new(last_contact: Option<Duration>) -> Self {
        Self { last_contact }
    }

    /// The controller was heard from, and all that it knows is known here.
    pub fn renew(&mut self, at: Duration) {
        self.last_contact = self.last_contact.max(Some(at));
    }

    /// Whether addresses may be steered.
    pub fn holds(&self, now: Duration) -> bool {
        self.last_contact
            .is_some_and(|last| now.saturating_sub(last) < TERM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_an_hour_after_the_last_contact() {
        let minute = Duration::from_secs(60);
        let start = 1000 * minute;
        let mut lease = Lease::new(None);
        assert!(!lease.holds(start), "nothing is steered before a contact");
        lease.renew(start);
        assert!(lease.holds(start) && lease.holds(start + 59 * minute));
        assert!(!lease.holds(start + 60 * minute));
        assert!(!lease.holds(start + 6000 * minute));
        lease.renew(start + 90 * minute);
        assert!(lease.holds(start + 149 * minute), "it is renewed");
        lease.renew(start);
        assert!(lease.holds(start + 149 * minute), "time does not go back");
    }

    #[test]
    fn a_restart_goes_on_with_the_lease_of_the_process_before() {
        let hour = TERM;
        let lease = Lease::new(Some(hour));
        assert!(lease.holds(hour + hour / 2));
        assert!(!lease.holds(hour + hour));
    }
}
