//! Waiting for a condition, never for a time.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// What must not be seen at any time, not even in passing.
#[derive(Debug)]
struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Fails unless this holds. Within a condition that is waited for any other error is one more reason
/// to ask again; this one ends the waiting, since it would be forgotten by the next answer.
pub fn always(holds: bool, violation: impl fmt::Display) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Violation(violation.to_string()).into())
}

/// Asks again and again, with back-off, until `condition` holds, and names what it last saw when the deadline passes.
///
/// The condition answers `Ok(Some(value))` when it holds, `Ok(None)` when it does not hold yet,
/// and `Err` with the reason why it cannot be told yet; only the deadline ends the waiting, and what
/// must [`always`] hold.
pub fn wait_until<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "it does not hold".to_owned(),
            Err(error) if error.is::<Violation>() => {
                return Err(error.context(format!("while waiting until {what}")));
            }
            Err(error) => format!("{error:#}"),
        };
        let waited = start.elapsed();
        if waited >= deadline {
            return Err(anyhow!(
                "waited {:.1} s in vain until {what}; last seen: {last}",
                waited.as_secs_f32()
            ));
        }
        std::thread::sleep(pause.min(deadline.saturating_sub(waited)));
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// [`wait_until`] for a plain yes or no.
pub fn wait_for(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    wait_until(what, deadline, || Ok(condition()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_condition_that_never_holds_fails_with_what_was_last_seen() {
        let error = wait_until::<()>("the moon is blue", Duration::from_millis(20), || {
            anyhow::bail!("it is white")
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("the moon is blue"), "{error}");
        assert!(error.contains("it is white"), "{error}");
    }

    #[test]
    fn a_condition_is_asked_again_until_it_holds() {
        let mut asked = 0;
        let value = wait_until("the third time", Duration::from_secs(5), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn what_must_always_hold_ends_the_waiting_when_it_does_not_however_it_is_told() {
        let mut asked = 0;
        let error = wait_until::<()>("they agree", Duration::from_secs(60), || {
            asked += 1;
            wait_for("an inner condition", Duration::from_secs(60), || {
                always(asked < 3, "both lead").context("at the second replica")?;
                Ok(true)
            })?;
            anyhow::bail!("they do not agree")
        })
        .unwrap_err();
        assert_eq!(asked, 3);
        let told = format!("{error:#}");
        for part in [
            "until they agree",
            "until an inner condition",
            "both lead",
            "at the second replica",
        ] {
            assert!(told.contains(part), "{told}");
        }
    }
}
