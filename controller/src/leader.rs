//! Which replica writes: the holder of a `coordination.k8s.io/v1` Lease.
//!
//! ```text
//! Lease ─ read ─▶ Elector (pure: what was seen, and when by the local clock) ─▶ create or update
//!                    └─▶ watch::Receiver<Leadership>
//! ```
//! Every replica serves agents, one writes. Clocks of different machines are never compared: a
//! lease of another has run out once it has not changed for its whole duration by the clock of the
//! one who looks. The holder itself stops earlier than that: some time before its last renewal can
//! have run out for anybody, it writes no more, whether the API server answers or not.

mod election;
mod elector;

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

pub use election::{Election, LEASE};
pub use elector::{Elector, Record, Step};

/// What a replica knows of the leadership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// This replica holds the lease now, and may write.
    pub leading: bool,
    /// Who holds it, as far as was last read: a [`Holder`] in text.
    pub holder: Option<String>,
}

/// The `holderIdentity` of the Lease: a replica, and where agents send it their reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The replica, which is its pod's name.
    pub identity: String,
    /// Where it listens for agents.
    pub push: SocketAddr,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.identity, self.push)
    }
}

/// Why a text is no [`Holder`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no holder of our lease: it is written as NAME/ADDR:PORT")]
pub struct NoHolder(String);

impl FromStr for Holder {
    type Err = NoHolder;

    fn from_str(text: &str) -> Result<Self, NoHolder> {
        let split = text.rsplit_once('/').filter(|(name, _)| !name.is_empty());
        let parsed = split.and_then(|(name, push)| Some((name, push.parse().ok()?)));
        let (identity, push) = parsed.ok_or_else(|| NoHolder(text.to_owned()))?;
        Ok(Self {
            identity: identity.to_owned(),
            push,
        })
    }
}

/// How long leases last, and how they are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait for a holder that is not heard of.
    pub duration: Duration,
    /// How long the holder itself goes on after its last renewal; shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often the lease is renewed by its holder, and looked at by the others.
    pub retry: Duration,
}

impl Default for Timing {
    /// What Kubernetes' own controllers use.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// Why these times cannot be used together.
    ///
    /// # Errors
    /// When a holder might write after others take over, or could not renew in time.
    pub fn check(&self) -> Result<(), String> {
        if self.duration.as_secs() == 0 || self.duration.subsec_nanos() != 0 {
            return Err(format!(
                "--lease-duration is {:?}: write whole seconds, at least 1s",
                self.duration
            ));
        }
        if self.renew_deadline >= self.duration {
            return Err(format!(
                "--renew-deadline {:?} is not shorter than --lease-duration {:?}: a holder has to stop before others begin",
                self.renew_deadline, self.duration
            ));
        }
        if self.retry.is_zero() || self.retry * 2 > self.renew_deadline {
            return Err(format!(
                "--retry-period {:?} is 0 or more than half of --renew-deadline {:?}: one lost renewal may not end a leadership",
                self.retry, self.renew_deadline
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_is_written() {
        for text in ["controller-1/10.0.0.1:4445", "a.b/[fd00::1]:4445"] {
            assert_eq!(text.parse::<Holder>().unwrap().to_string(), text);
        }
        for text in ["", "controller", "/10.0.0.1:4445", "a/10.0.0.1"] {
            let error = text.parse::<Holder>().unwrap_err().to_string();
            assert!(error.contains("NAME/ADDR:PORT"), "{error}");
        }
    }

    #[test]
    fn times_that_would_let_two_write_are_refused() {
        let timing = |duration, renew_deadline, retry| Timing {
            duration: Duration::from_millis(duration),
            renew_deadline: Duration::from_millis(renew_deadline),
            retry: Duration::from_millis(retry),
        };
        assert_eq!(Timing::default().check(), Ok(()));
        for (wrong, named) in [
            (timing(0, 0, 1), "--lease-duration"),
            (timing(1500, 1000, 100), "--lease-duration"),
            (timing(10_000, 10_000, 100), "--renew-deadline"),
            (timing(10_000, 5_000, 0), "--retry-period"),
            (timing(10_000, 5_000, 3_000), "--retry-period"),
        ] {
            let error = wrong.check().unwrap_err();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
