//! The authorities that the replicas of a cluster share: one, and around its renewal the next.
//!
//! A new one is trusted for a day before it signs, so that every agent knows it by then; an old one
//! is trusted until it ends.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::SystemTime,
};

use super::{AuthorityError, DAY, root::Root};

/// Authorities, the oldest first; there is always one.
#[derive(Clone)]
pub struct Roots {
    roots: Vec<Arc<Root>>,
}

impl Roots {
    /// One new authority.
    ///
    /// # Errors
    /// When no key or certificate can be made.
    pub fn generate(namespace: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let roots = vec![Arc::new(Root::generate(namespace, now)?)];
        Ok(Self { roots })
    }

    /// Reads what [`Self::to_pem`] has written.
    ///
    /// # Errors
    /// When it is not that.
    pub fn from_pem(text: &str) -> Result<Self, AuthorityError> {
        let blocks = blocks(text);
        let mut roots = Vec::new();
        for pair in blocks.chunks(2) {
            let [certificate, key] = pair else {
                let why = "a certificate is without its private key";
                return Err(AuthorityError::Content(why.to_owned()));
            };
            roots.push(Arc::new(Root::from_pem(certificate, key)?));
        }
        if roots.is_empty() {
            let why = "no certificate is in it";
            return Err(AuthorityError::Content(why.to_owned()));
        }
        Ok(Self { roots })
    }

    /// All of them, PEM: each certificate is followed by its key. A secret.
    pub fn to_pem(&self) -> String {
        self.roots.iter().fold(String::new(), |mut text, root| {
            let _ = write!(
                text,
                "{}{}",
                ended(root.certificate()),
                ended(&root.key_pem())
            );
            text
        })
    }

    /// What agents trust, PEM: the certificates alone.
    pub fn certificates(&self, now: SystemTime) -> String {
        let valid = self.roots.iter().filter(|root| !root.has_ended(now));
        valid.map(|root| ended(root.certificate())).collect()
    }

    /// With another one where it is time for it, and without those that have ended; `None` while
    /// nothing has to change.
    ///
    /// # Errors
    /// When no key or certificate can be made.
    pub fn renewed(
        &self,
        namespace: &str,
        now: SystemTime,
    ) -> Result<Option<Self>, AuthorityError> {
        let valid = self.roots.iter().filter(|root| !root.has_ended(now));
        let mut roots: Vec<Arc<Root>> = valid.cloned().collect();
        if roots.last().is_none_or(|last| last.is_to_be_followed(now)) {
            roots.push(Arc::new(Root::generate(namespace, now)?));
        } else if roots.len() == self.roots.len() {
            return Ok(None);
        }
        Ok(Some(Self { roots }))
    }

    /// The newest that every agent knows by now; if there is none, the oldest that is valid.
    pub(super) fn signer(&self, now: SystemTime) -> Option<&Arc<Root>> {
        let mut valid = self.roots.iter().filter(|root| !root.has_ended(now));
        let oldest = valid.clone().next();
        valid.rfind(|root| root.is_older_than(DAY, now)).or(oldest)
    }
}

impl fmt::Debug for Roots {
    /// Without keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.roots.len())
    }
}

/// The blocks of a PEM text; what is between them does not count.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut current: Option<String> = None;
    for line in text.lines() {
        if line.starts_with("-----BEGIN ") {
            current = Some(String::new());
        }
        if let Some(block) = &mut current {
            block.push_str(line);
            block.push('\n');
        }
        if line.starts_with("-----END ") {
            blocks.extend(current.take());
        }
    }
    blocks
}

/// With the end of the line.
fn ended(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: u32 = 365;

    fn count(roots: &Roots, now: SystemTime) -> usize {
        roots.certificates(now).matches("BEGIN").count()
    }

    #[test]
    fn what_was_stored_is_read_back() {
        let now = SystemTime::now();
        let one = Roots::generate("system", now).unwrap();
        let two = one.renewed("system", now + DAY * YEAR).unwrap().unwrap();
        assert_eq!(count(&two, now), 2);
        let read = Roots::from_pem(&two.to_pem()).unwrap();
        assert_eq!(read.to_pem(), two.to_pem());
    }

    #[test]
    fn an_authority_is_followed_half_way_and_trusted_until_it_ends() {
        let now = SystemTime::now();
        let at = |days: u32| now + DAY * days;
        let one = Roots::generate("system", now).unwrap();
        assert!(one.renewed("system", at(YEAR - 1)).unwrap().is_none());
        let two = one.renewed("system", at(YEAR)).unwrap().unwrap();
        assert!(two.renewed("system", at(YEAR + 1)).unwrap().is_none());
        let first = |days| {
            let signer = two.signer(at(days)).unwrap();
            signer.certificate() == one.signer(now).unwrap().certificate()
        };
        assert!(first(YEAR), "agents do not know the new one yet");
        assert!(!first(YEAR + 1));
        assert_eq!(count(&two, at(2 * YEAR - 1)), 2);
        let after = two.renewed("system", at(2 * YEAR)).unwrap().unwrap();
        assert_eq!(
            count(&after, at(2 * YEAR)),
            2,
            "the first went, a third came"
        );
    }

    #[test]
    fn one_that_has_ended_is_replaced_by_one_that_signs_at_once() {
        let now = SystemTime::now();
        let later = now + DAY * (2 * YEAR + 1);
        let old = Roots::generate("system", now).unwrap();
        assert!(old.signer(later).is_none());
        let fresh = old.renewed("system", later).unwrap().unwrap();
        assert!(fresh.signer(later).is_some() && count(&fresh, later) == 1);
    }

    #[test]
    fn what_was_not_stored_by_us_is_told_of_without_the_key() {
        let now = SystemTime::now();
        let [one, other] = [(); 2].map(|()| Roots::generate("system", now).unwrap().to_pem());
        let (certificate, key) = one.split_at(one.find("-----BEGIN PRIVATE").unwrap());
        let other_key = &other[other.find("-----BEGIN PRIVATE").unwrap()..];
        let leaf = rcgen::generate_simple_self_signed(["leaf".to_owned()]).unwrap();
        let leaf = leaf.cert.pem() + &leaf.signing_key.serialize_pem();
        for (text, why) in [
            (String::new(), "no certificate is in it"),
            ("garbage".to_owned(), "no certificate is in it"),
            (certificate.to_owned(), "without its private key"),
            (format!("{key}{certificate}"), "cannot be read"),
            (
                format!("{certificate}{other_key}"),
                "not that of its certificate",
            ),
            (leaf, "not that of an authority"),
        ] {
            let error = Roots::from_pem(&text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("BEGIN"), "{error}");
        }
    }
}
