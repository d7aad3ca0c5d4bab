//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Asks again and again, with back-off, until `condition` holds, and names what it last saw when the deadline passes.
///
/// The condition answers `Ok(Some(value))` when it holds, `Ok(None)` when it does not hold yet,
/// and `Err` with the reason why it cannot be told yet; only the deadline ends the waiting.
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
}
