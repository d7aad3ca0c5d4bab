//! What a process may use of its host
//! ([`getrlimit(2)`](https://man7.org/linux/man-pages/man2/getrlimit.2.html)).

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// With fewer open files than this a process says so: a gateway holds one for each connection and one
/// for its backend, a controller one for each agent.
const FEW: u64 = 16_384;

/// Raises the soft limit of open files to the hard one. Service managers keep the soft one at 1,024
/// for the sake of programs that use `select(2)`, which ours do not.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let mut raised = limit;
    raised.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "cannot raise the soft limit of open files");
    }
    if let Some(files) = getrlimit(Resource::Nofile)
        .current
        .filter(|files| *files < FEW)
    {
        warn!(
            files,
            "few files may be open at a time, and each connection takes up to two: raise the hard limit (LimitNOFILE, ulimit -Hn)"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = getrlimit(Resource::Nofile);
        let hard = limit.maximum;
        let mut lowered = limit;
        // Low enough to be seen, high enough for whatever else runs in this process.
        lowered.current = Some(hard.unwrap_or(u64::from(u32::MAX)) - 1);
        setrlimit(Resource::Nofile, lowered).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
