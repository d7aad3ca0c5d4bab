//! The certificates that the push server shows, and the authorities that sign them.
//!
//! ```text
//! Roots, shared by all replicas ─▶ Authority: a certificate of this process alone ─▶ handshakes
//!   └─ their certificates, without keys ─▶ what agents trust
//! ```

mod root;
mod roots;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use self::root::{Leaf, Root};
pub use self::roots::Roots;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Gives every handshake a certificate that agents trust.
pub struct Authority {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    roots: Option<Arc<Roots>>,
    current: Option<(Arc<Root>, Leaf)>,
}

/// A certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It could not be made.
    #[error("the push server's certificate authority: {attempt}")]
    Certificate {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: rcgen::Error,
    },
    /// The key of a certificate could not be used.
    #[error("the key of the push server's certificate cannot be used")]
    Key(#[source] rustls::Error),
    /// What was kept is not what was stored once.
    #[error("{0}")]
    Content(String),
    /// There is none that is valid, or not yet.
    #[error("no certificate authority is there yet")]
    None,
}

impl Authority {
    /// The name that agents expect of a controller in a namespace.
    pub fn server_name(namespace: &str) -> String {
        format!("clusterlink-controller.{namespace}.svc")
    }

    /// Refuses every handshake until it is given authorities.
    pub fn pending(namespace: &str) -> Self {
        Self {
            name: Self::server_name(namespace),
            state: Mutex::default(),
        }
    }

    /// With a new authority that nobody shares yet.
    ///
    /// # Errors
    /// When no key or certificate can be made.
    pub fn new(namespace: &str) -> Result<Self, AuthorityError> {
        let authority = Self::pending(namespace);
        authority.set(Roots::generate(namespace, SystemTime::now())?)?;
        Ok(authority)
    }

    /// Takes the authorities that sign from now on. The certificate that is shown stays if it is
    /// still one of theirs.
    ///
    /// # Errors
    /// When they cannot sign; then what was there before stays.
    pub fn set(&self, roots: Roots) -> Result<(), AuthorityError> {
        let now = SystemTime::now();
        // What cannot work is found here, not in a handshake.
        let root = roots.signer(now).ok_or(AuthorityError::None)?;
        let kept = self.lock().is_current(root, now);
        let fresh = match kept {
            true => None,
            false => Some((Arc::clone(root), root.issue(&self.name, now)?)),
        };
        let mut state = self.lock();
        state.roots = Some(Arc::new(roots));
        if fresh.is_some() {
            state.current = fresh;
        }
        Ok(())
    }

    /// What agents have to trust, PEM; empty while nothing is known.
    pub fn certificate_pem(&self) -> String {
        let state = self.lock();
        state
            .roots
            .as_ref()
            .map_or_else(String::new, |roots| roots.certificates(SystemTime::now()))
    }

    fn certified_key(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, AuthorityError> {
        let mut state = self.lock();
        let roots = state.roots.clone().ok_or(AuthorityError::None)?;
        let root = roots.signer(now).ok_or(AuthorityError::None)?;
        if state.is_current(root, now)
            && let Some((_, leaf)) = &state.current
        {
            return Ok(Arc::clone(&leaf.key));
        }
        let leaf = root.issue(&self.name, now)?;
        let key = Arc::clone(&leaf.key);
        state.current = Some((Arc::clone(root), leaf));
        Ok(key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_current(&self, root: &Root, now: SystemTime) -> bool {
        self.current
            .as_ref()
            .is_some_and(|(by, leaf)| by.certificate() == root.certificate() && now < leaf.renew)
    }
}

impl std::fmt::Debug for Authority {
    /// Without keys.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Authority {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.certified_key(SystemTime::now()) {
            Ok(key) => Some(key),
            Err(AuthorityError::None) => {
                tracing::debug!("an agent cannot connect: no certificate authority is there yet");
                None
            }
            Err(error) => {
                tracing::error!(%error, "agents cannot connect: no certificate for the push server");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "clusterlink-system";

    #[test]
    fn a_certificate_is_made_anew_long_before_it_ends() {
        let authority = Authority::new(NAMESPACE).unwrap();
        let now = SystemTime::now();
        let first = authority.certified_key(now).unwrap();
        let later = authority.certified_key(now + 29 * DAY).unwrap();
        assert!(Arc::ptr_eq(&first, &later));
        let renewed = authority.certified_key(now + 31 * DAY).unwrap();
        assert_ne!(first.cert, renewed.cert);
    }

    #[test]
    fn the_certificate_stays_when_the_same_authorities_are_read_again() {
        let now = SystemTime::now();
        let roots = Roots::generate(NAMESPACE, now).unwrap();
        let again = Roots::from_pem(&roots.to_pem()).unwrap();
        let other = Roots::generate(NAMESPACE, now).unwrap();
        let authority = Authority::pending(NAMESPACE);
        assert!(matches!(
            authority.certified_key(now),
            Err(AuthorityError::None)
        ));
        authority.set(roots).unwrap();
        let first = authority.certified_key(now).unwrap();
        authority.set(again).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.certified_key(now).unwrap()));
        authority.set(other).unwrap();
        assert_ne!(first.cert, authority.certified_key(now).unwrap().cert);
    }

    #[test]
    fn no_key_is_shown() {
        let roots = Roots::generate(NAMESPACE, SystemTime::now()).unwrap();
        assert!(roots.to_pem().contains("PRIVATE KEY"));
        assert!(!format!("{roots:?}").contains("PRIVATE"));
        let authority = Authority::pending(NAMESPACE);
        authority.set(roots).unwrap();
        assert!(!format!("{authority:?}").contains("PRIVATE"));
        assert!(!authority.certificate_pem().contains("PRIVATE"));
    }
}
