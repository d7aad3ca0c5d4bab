//! What the Secret of the authorities says, and what has to become of it.

use std::{collections::BTreeMap, time::SystemTime};

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::CA;
use crate::push::{AuthorityError, Roots};

/// The key of the Secret: certificates, each followed by its private key.
const KEY: &str = "authorities.pem";

/// What to do next. It has private keys in it, so it is never printed.
pub(super) enum Step {
    /// The Secret is as it should be.
    Use(Roots),
    /// There is none yet.
    Create(Secret, Roots),
    /// It is time to renew what is in it.
    Update(Secret, Roots),
}

/// Somebody has to correct the Secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "Secret {namespace}/{CA}, key {KEY}: {why}, so agents cannot trust what this replica would sign; delete the Secret, and it is made anew"
)]
pub(super) struct Fault {
    namespace: String,
    why: String,
}

/// Decides by what is stored, and by what this process uses already.
pub(super) fn decide(
    stored: Option<Secret>,
    known: Option<&Roots>,
    namespace: &str,
    now: SystemTime,
) -> Result<Step, DecideError> {
    let Some(mut secret) = stored else {
        // Agents trust what is known here, so a Secret that somebody deleted comes back as it was.
        let roots = match known {
            Some(known) => known
                .renewed(namespace, now)?
                .unwrap_or_else(|| known.clone()),
            None => Roots::generate(namespace, now)?,
        };
        let mut secret = Secret {
            metadata: ObjectMeta {
                name: Some(CA.to_owned()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        put(&mut secret, &roots);
        return Ok(Step::Create(secret, roots));
    };
    let roots = read(&secret).map_err(|why| Fault {
        namespace: namespace.to_owned(),
        why,
    })?;
    let Some(renewed) = roots.renewed(namespace, now)? else {
        return Ok(Step::Use(roots));
    };
    put(&mut secret, &renewed);
    Ok(Step::Update(secret, renewed))
}

/// Why nothing can be decided.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecideError {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

fn read(secret: &Secret) -> Result<Roots, String> {
    let data = secret.data.as_ref().and_then(|data| data.get(KEY));
    let data = data.ok_or("the key is missing")?;
    let text = str::from_utf8(&data.0).map_err(|_| "it is no text")?;
    Roots::from_pem(text).map_err(|error| error.to_string())
}

fn put(secret: &mut Secret, roots: &Roots) {
    let content = ByteString(roots.to_pem().into_bytes());
    secret
        .data
        .get_or_insert_with(BTreeMap::new)
        .insert(KEY.to_owned(), content);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SYSTEM: &str = "clusterlink-system";
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

    fn made(now: SystemTime) -> (Secret, Roots) {
        match decide(None, None, SYSTEM, now) {
            Ok(Step::Create(secret, roots)) => (secret, roots),
            _ => panic!("nothing was there, so it is made"),
        }
    }

    #[test]
    fn the_first_replica_makes_it_and_the_others_read_it() {
        let now = SystemTime::now();
        let (secret, roots) = made(now);
        assert_eq!(secret.metadata.name.as_deref(), Some(CA));
        let Ok(Step::Use(read)) = decide(Some(secret), None, SYSTEM, now) else {
            panic!("it is good");
        };
        assert_eq!(read.to_pem(), roots.to_pem());
    }

    #[test]
    fn a_deleted_one_comes_back_with_what_agents_trust() {
        let now = SystemTime::now();
        let (_, roots) = made(now);
        let Ok(Step::Create(_, again)) = decide(None, Some(&roots), SYSTEM, now) else {
            panic!("it is made again");
        };
        assert_eq!(again.to_pem(), roots.to_pem());
    }

    #[test]
    fn it_is_renewed_in_the_version_that_was_read_with_the_old_one_still_trusted() {
        let now = SystemTime::now();
        let (mut secret, roots) = made(now);
        secret.metadata.resource_version = Some("7".to_owned());
        let later = now + YEAR + Duration::from_secs(1);
        let Ok(Step::Update(secret, renewed)) = decide(Some(secret), None, SYSTEM, later) else {
            panic!("half of its life is over");
        };
        assert_eq!(secret.metadata.resource_version.as_deref(), Some("7"));
        assert!(
            renewed
                .certificates(later)
                .starts_with(&roots.certificates(later))
        );
        assert_eq!(renewed.certificates(later).matches("BEGIN").count(), 2);
        assert!(matches!(
            decide(Some(secret), None, SYSTEM, later),
            Ok(Step::Use(_))
        ));
    }

    #[test]
    fn a_broken_or_foreign_one_is_not_touched_and_told_of_with_its_cure() {
        let now = SystemTime::now();
        let data = |key: &str, value: &[u8]| Secret {
            data: Some([(key.to_owned(), ByteString(value.to_vec()))].into()),
            ..Secret::default()
        };
        for (secret, why) in [
            (Secret::default(), "the key is missing"),
            (data("tls.crt", b"x"), "the key is missing"),
            (data(KEY, b"\xff"), "it is no text"),
            (data(KEY, b"nonsense"), "no certificate is in it"),
        ] {
            let Err(error) = decide(Some(secret), None, SYSTEM, now) else {
                panic!("{why}");
            };
            let error = error.to_string();
            assert!(
                error.contains(why) && error.contains("delete the Secret"),
                "{error}"
            );
            assert!(error.starts_with("Secret clusterlink-system/clusterlink-controller-ca"));
        }
    }
}
