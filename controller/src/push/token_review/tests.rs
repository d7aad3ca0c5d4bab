use serde_json::{Value, json};

use super::*;

fn token(claims: &Value) -> String {
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("e30.{claims}.c2ln")
}

fn user(username: &str, extra: &[(&str, &[&str])]) -> UserInfo {
    let values = |values: &[&str]| values.iter().map(ToString::to_string).collect();
    let extra = extra
        .iter()
        .map(|(key, all)| ((*key).to_owned(), values(all)));
    UserInfo {
        username: Some(username.to_owned()),
        extra: Some(extra.collect()),
        ..UserInfo::default()
    }
}

#[test]
fn what_a_token_says_of_itself_can_refuse_it() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    let audience = |aud: Value| token(&json!({"aud": aud, "exp": 2_000}));
    let not_valid = |problem: &str| Err(Refusal::NotValid(problem.to_owned()));
    for (token, expected) in [
        (audience(json!(["clusterlink-controller"])), Ok(2_000)),
        (audience(json!("clusterlink-controller")), Ok(2_000)),
        (
            audience(json!(["other", "clusterlink-controller"])),
            Ok(2_000),
        ),
        (
            audience(json!(["api"])),
            Err(Refusal::WrongAudience(vec!["api".to_owned()])),
        ),
        (
            token(&json!({"exp": 2_000})),
            Err(Refusal::WrongAudience(Vec::new())),
        ),
        (
            token(&json!({"aud": ["clusterlink-controller"], "exp": 1_000})),
            Err(Refusal::Expired),
        ),
        (
            token(&json!({"aud": ["clusterlink-controller"]})),
            not_valid("it does not say its audience and when it ends"),
        ),
        (
            token(&json!({"aud": ["clusterlink-controller"], "exp": u64::MAX})),
            not_valid("it ends never"),
        ),
        ("abc".to_owned(), not_valid("it is no JWT")),
        ("a.b.c.d".to_owned(), not_valid("it is no JWT")),
        ("a.!.c".to_owned(), not_valid("it is no JWT")),
        ("x".repeat(LONGEST_TOKEN + 1), not_valid("it is too long")),
    ] {
        let expected = expected.map(|s| SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(check_claims(&token, now), expected, "{token:.60}");
    }
}

#[test]
fn only_a_bound_token_of_the_agents_service_account_names_somebody() {
    let account = ObjectName::new("clusterlink-system", "clusterlink-agent");
    let expires = SystemTime::UNIX_EPOCH;
    let agent = "system:serviceaccount:clusterlink-system:clusterlink-agent";
    let bound: &[(&str, &[&str])] = &[
        (POD_NAME, &["a-1"]),
        (POD_UID, &["u-1"]),
        (NODE_NAME, &["n1"]),
    ];
    let known = identity(user(agent, bound), &account, expires).unwrap();
    assert_eq!(known.pod, ObjectName::new("clusterlink-system", "a-1"));
    assert_eq!((&*known.pod_uid, &*known.node), ("u-1", "n1"));
    for missing in [POD_NAME, POD_UID, NODE_NAME] {
        let rest: Vec<_> = (bound.iter().copied())
            .filter(|(key, _)| *key != missing)
            .collect();
        let refused = identity(user(agent, &rest), &account, expires);
        assert_eq!(refused, Err(Refusal::Unbound), "without {missing}");
    }
    let doubtful: &[(&str, &[&str])] = &[
        (POD_NAME, &["a-1"]),
        (POD_UID, &["u-1"]),
        (NODE_NAME, &["n1", "n2"]),
    ];
    assert_eq!(
        identity(user(agent, doubtful), &account, expires),
        Err(Refusal::Unbound)
    );
    for other in [
        "system:serviceaccount:clusterlink-system:default",
        "system:serviceaccount:other:clusterlink-agent",
        "admin",
        "",
    ] {
        let refused = identity(user(other, bound), &account, expires);
        assert!(
            matches!(refused, Err(Refusal::WrongServiceAccount { .. })),
            "{other}"
        );
    }
}
