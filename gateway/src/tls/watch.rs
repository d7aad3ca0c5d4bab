//! Replaces credentials when their files change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use super::{
    credentials::Credentials,
    error::CredentialsError,
    files::{self, Fingerprint},
};

/// Looks at a certificate directory each time it is polled, twice a second in the agent. A set of
/// files that cannot be used leaves the last good one in force.
pub struct Watcher {
    dir: PathBuf,
    clock: Arc<dyn TimeProvider>,
    current: Arc<Credentials>,
    loaded: Fingerprint,
    failing: Option<Failing>,
}

/// A state of the files that could not be loaded. It is tried again at each poll, since what is
/// wrong may be the time, and reported once, at the second poll that finds it: files are written
/// one after the other, and a pair that is half replaced is nothing to report.
struct Failing {
    fingerprint: Fingerprint,
    reported: bool,
}

impl Watcher {
    /// Loads the first generation, numbered `generation`; each reload adds one.
    pub fn open(dir: &Path, generation: u64) -> Result<Self, CredentialsError> {
        Self::open_with_clock(dir, generation, Arc::new(DefaultTimeProvider))
    }

    /// The last good credentials.
    pub fn current(&self) -> &Arc<Credentials> {
        &self.current
    }

    /// Reloads if the files changed: `Some` is a new generation. An error says why the files as
    /// they are now cannot be used, and is returned once for each state of the files.
    ///
    /// Of files that cannot all be used the bundle and the revocation lists are taken over alone, if
    /// they go with the certificate that is in force: a revocation must not wait for a leaf.
    pub fn poll(&mut self) -> Result<Option<Arc<Credentials>>, CredentialsError> {
        let now = Fingerprint::of(&self.dir);
        if now == self.loaded {
            self.failing = None;
            return Ok(None);
        }
        let error = match self.load() {
            Ok((credentials, fingerprint)) => {
                self.loaded = fingerprint;
                self.failing = None;
                self.current = Arc::new(credentials);
                return Ok(Some(self.current.clone()));
            }
            Err(error) => error,
        };
        match &mut self.failing {
            Some(failing) if failing.fingerprint == now => {
                if std::mem::replace(&mut failing.reported, true) {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
            _ => {
                self.failing = Some(Failing {
                    fingerprint: now,
                    reported: false,
                });
                Ok(self.take_bundle())
            }
        }
    }

    fn load(&self) -> Result<(Credentials, Fingerprint), CredentialsError> {
        let generation = self.current.generation() + 1;
        let loaded = Credentials::load_with_clock(&self.dir, generation, self.clock.clone())?;
        if loaded.0.name() == self.current.name() {
            Ok(loaded)
        } else {
            Err(CredentialsError::Renamed {
                cert: self.dir.join(files::CERT),
                from: self.current.name().clone(),
                to: loaded.0.name().clone(),
            })
        }
    }

    /// The error that [`Watcher::poll`] reports is the one of the whole set.
    fn take_bundle(&mut self) -> Option<Arc<Credentials>> {
        let credentials = self.current.with_bundle_of(&self.dir).ok()?;
        if credentials.judges_like(&self.current) {
            return None;
        }
        self.current = Arc::new(credentials);
        Some(self.current.clone())
    }

    pub(super) fn open_with_clock(
        dir: &Path,
        generation: u64,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Self, CredentialsError> {
        let (credentials, loaded) = Credentials::load_with_clock(dir, generation, clock.clone())?;
        let current = Arc::new(credentials);
        Ok(Self {
            dir: dir.to_owned(),
            clock,
            current,
            loaded,
            failing: None,
        })
    }
}
