//! Tokens of ServiceAccounts, checked by the API server.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clusterlink_model::ObjectName;
use clusterlink_proto::AUDIENCE;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::auth::{Authenticator, Identity, Refusal};

/// How many reviews run at the same time: strangers must not keep the API server busy.
const REVIEWS: usize = 16;
/// Longer ones are not looked at.
const LONGEST_TOKEN: usize = 16 * 1024;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Checks tokens by TokenReview.
#[expect(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct TokenReviewer {
    reviews: Api<TokenReview>,
    service_account: ObjectName,
    running: Semaphore,
}

/// What a token says of itself, before anybody has checked that. It names the reason of a refusal,
/// and the end of a token that the API server has found good.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    aud: Audiences,
    exp: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(audience) => vec![audience],
            Self::Several(audiences) => audiences,
        }
    }
}

impl TokenReviewer {
    /// Lets the pods of one ServiceAccount in.
    pub fn new(client: Client, service_account: ObjectName) -> Self {
        Self {
            reviews: Api::all(client),
            service_account,
            running: Semaphore::new(REVIEWS),
        }
    }

    async fn review(&self, token: &str) -> Result<UserInfo, Refusal> {
        let not_checked = |error: &dyn std::fmt::Display| Refusal::NotChecked(error.to_string());
        let _running = (self.running.acquire().await).map_err(|error| not_checked(&error))?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: token.to_owned(),
            },
            ..TokenReview::default()
        };
        let review = self.reviews.create(&PostParams::default(), &review).await;
        let status = (review.map_err(|error| not_checked(&error))?.status).unwrap_or_default();
        if status.authenticated != Some(true) {
            let error = status
                .error
                .unwrap_or_else(|| "no reason was given".to_owned());
            return Err(Refusal::NotValid(error));
        }
        // An authenticator that knows no audiences answers without them.
        let audiences = status.audiences.unwrap_or_default();
        if !audiences.iter().any(|audience| audience == AUDIENCE) {
            return Err(Refusal::WrongAudience(audiences));
        }
        Ok(status.user.unwrap_or_default())
    }
}

impl Authenticator for TokenReviewer {
    async fn authenticate(&self, token: &str) -> Result<Identity, Refusal> {
        let expires = check_claims(token, SystemTime::now())?;
        let user = self.review(token).await?;
        identity(user, &self.service_account, expires)
    }
}

/// Refuses what cannot be good; returns when the token ends.
fn check_claims(token: &str, now: SystemTime) -> Result<SystemTime, Refusal> {
    let not_valid = |problem: &str| Refusal::NotValid(problem.to_owned());
    if token.len() > LONGEST_TOKEN {
        return Err(not_valid("it is too long"));
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(not_valid("it is no JWT"));
    };
    let payload = (URL_SAFE_NO_PAD.decode(payload)).map_err(|_| not_valid("it is no JWT"))?;
    let claims: Claims = serde_json::from_slice(&payload)
        .map_err(|_| not_valid("it does not say its audience and when it ends"))?;
    let audiences = claims.aud.into_vec();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::WrongAudience(audiences));
    }
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp));
    let expires = expires.ok_or_else(|| not_valid("it ends never"))?;
    if expires <= now {
        return Err(Refusal::Expired);
    }
    Ok(expires)
}

/// Whom the API server has named.
fn identity(
    user: UserInfo,
    service_account: &ObjectName,
    expires: SystemTime,
) -> Result<Identity, Refusal> {
    let ObjectName { namespace, name } = service_account;
    let expected = format!("system:serviceaccount:{namespace}:{name}");
    let found = user.username.unwrap_or_default();
    if found != expected {
        return Err(Refusal::WrongServiceAccount { found, expected });
    }
    let extra: BTreeMap<String, Vec<String>> = user.extra.unwrap_or_default();
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Ok(value.as_str()),
        _ => Err(Refusal::Unbound),
    };
    Ok(Identity {
        pod: ObjectName::new(namespace.clone(), one(POD_NAME)?),
        pod_uid: one(POD_UID)?.into(),
        node: one(NODE_NAME)?.into(),
        expires,
    })
}

#[cfg(test)]
mod tests;
