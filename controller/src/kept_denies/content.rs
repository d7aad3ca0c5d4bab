//! Denies as the content of a ConfigMap: JSON, compressed, since an object holds a mebibyte.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    sync::Arc,
};

use clusterlink_model::Policy;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use k8s_openapi::{ByteString, api::core::v1::ConfigMap};

/// The key of the ConfigMap.
const KEY: &str = "denies.json.gz";
/// What the API server takes is a mebibyte with everything around it, in base64: about 30,000
/// denies of the usual size.
const LARGEST: usize = 700 * 1024;
/// More than can be meant, so that a small object cannot take all memory.
const UNPACKED: u64 = 64 * 1024 * 1024;

/// Why the content cannot be used, or made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContentError {
    #[error("the key {KEY} is missing")]
    Missing,
    #[error("the key {KEY} is damaged ({0})")]
    Damaged(io::Error),
    #[error("the key {KEY} holds no denies ({0})")]
    Json(#[from] serde_json::Error),
    #[error("{denies} denies take {bytes} bytes of ConfigMap, and {LARGEST} at most can be stored")]
    Large { denies: usize, bytes: usize },
}

/// The denies of a ConfigMap.
pub(super) fn read(map: &ConfigMap) -> Result<Vec<Arc<Policy>>, ContentError> {
    let data = map.binary_data.as_ref().and_then(|data| data.get(KEY));
    let data = data.ok_or(ContentError::Missing)?;
    let mut json = Vec::new();
    GzDecoder::new(&data.0[..])
        .take(UNPACKED)
        .read_to_end(&mut json)
        .map_err(ContentError::Damaged)?;
    Ok(serde_json::from_slice(&json)?)
}

/// Puts the denies into a ConfigMap; what others have put there stays.
pub(super) fn put(map: &mut ConfigMap, denies: &[Arc<Policy>]) -> Result<(), ContentError> {
    let json = serde_json::to_vec(denies)?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&json).map_err(ContentError::Damaged)?;
    let packed = encoder.finish().map_err(ContentError::Damaged)?;
    if packed.len() > LARGEST {
        return Err(ContentError::Large {
            denies: denies.len(),
            bytes: packed.len(),
        });
    }
    map.binary_data
        .get_or_insert_with(BTreeMap::new)
        .insert(KEY.to_owned(), ByteString(packed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clusterlink_model::{Action, ObjectName, PolicyName, Selector};

    use super::*;

    fn denies(count: usize, random: bool) -> Vec<Arc<Policy>> {
        let deny = |number: usize| {
            // A name that cannot be compressed, as in the worst case.
            let name = match random {
                true => (0..8).fold(String::new(), |name, part| {
                    let hash = number.wrapping_mul(8).wrapping_add(part);
                    let hash = (hash as u64)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        .rotate_left(29);
                    format!("{name}{:x}", hash.wrapping_mul(0xbf58_476d_1ce4_e5b9))
                }),
                false => format!("deny-{number}"),
            };
            Arc::new(Policy {
                name: PolicyName::Namespaced(ObjectName::new("shop", name)),
                action: Action::Deny,
                from: vec![Selector::default()],
                to: vec![Selector::default()],
            })
        };
        (0..count).map(deny).collect()
    }

    #[test]
    fn what_was_stored_is_read_back_and_30000_denies_fit() {
        for count in [0, 1, 30_000] {
            let mut map = ConfigMap::default();
            let all = denies(count, false);
            put(&mut map, &all).unwrap();
            assert_eq!(read(&map).unwrap(), all);
        }
    }

    #[test]
    fn too_many_are_told_of_and_leave_what_was_stored() {
        let mut map = ConfigMap::default();
        let few = denies(1, false);
        put(&mut map, &few).unwrap();
        let error = put(&mut map, &denies(30_000, true))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("30000 denies take "), "{error}");
        assert_eq!(read(&map).unwrap(), few);
    }

    #[test]
    fn what_is_not_ours_or_damaged_is_told_of() {
        let with = |bytes: &[u8]| ConfigMap {
            binary_data: Some([(KEY.to_owned(), ByteString(bytes.to_vec()))].into()),
            ..ConfigMap::default()
        };
        let mut half = ConfigMap::default();
        put(&mut half, &denies(10, false)).unwrap();
        let whole = half.binary_data.unwrap().remove(KEY).unwrap().0;
        for (map, why) in [
            (ConfigMap::default(), "is missing"),
            (with(b"nonsense"), "is damaged"),
            (with(&whole[..whole.len() / 2]), "is damaged"),
        ] {
            let error = read(&map).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
