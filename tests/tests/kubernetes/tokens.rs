//! Whom the push server takes for an agent, against a real API server.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_controller::push::{Authenticator, Identity, Refusal, TokenReviewer, live_pods};
use clusterlink_model::ObjectName;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::{Host, network, story};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

const SYSTEM: &str = "clusterlink-system";
const AGENT: &str = "clusterlink-agent";
/// The API server remembers a good token for ten seconds.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn only_the_agents_token_for_the_controller_bound_to_its_pod_is_good() -> Result<()> {
    story("agent-tokens", |scene| {
        let host = scene.host("cluster")?;
        let plane = ControlPlane::start(&host)?;
        plane.run(&["create", "namespace", SYSTEM])?;
        for account in [AGENT, "other"] {
            plane.run(&["-n", SYSTEM, "create", "serviceaccount", account])?;
        }
        plane.apply(&[
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
            pod("agent-1", AGENT),
            pod("other-1", "other"),
        ])?;
        let uid = |pod: &str| {
            plane.run(&[
                "-n",
                SYSTEM,
                "get",
                "pod",
                pod,
                "-o",
                "jsonpath={.metadata.uid}",
            ])
        };
        let agent_uid = uid("agent-1")?;

        let good = token(&plane, AGENT, "clusterlink-controller", Some("agent-1"))?;
        let known = authenticate(&host, &plane, &good)?
            .map_err(|refusal| anyhow::anyhow!("the good token is refused: {refusal}"))?;
        let Identity {
            pod,
            pod_uid,
            node,
            expires,
        } = known;
        ensure!(pod == ObjectName::new(SYSTEM, "agent-1"), "{pod}");
        ensure!(
            *pod_uid == *agent_uid && &*node == "n1",
            "{pod_uid} on {node}"
        );
        let left = expires.duration_since(SystemTime::now())?;
        ensure!(
            left > Duration::from_secs(3000) && left <= Duration::from_secs(3600),
            "{left:?}"
        );

        let mut forged = good.clone();
        // Another signature over the same claims.
        forged.replace_range(forged.len() - 8.., "AAAAAAAA");
        for (what, token, reason) in [
            ("forged", forged, "not-valid"),
            (
                "for another audience",
                token(&plane, AGENT, "api", Some("agent-1"))?,
                "wrong-audience",
            ),
            (
                "bound to nothing",
                token(&plane, AGENT, "clusterlink-controller", None)?,
                "unbound",
            ),
            (
                "of another ServiceAccount",
                token(&plane, "other", "clusterlink-controller", Some("other-1"))?,
                "wrong-service-account",
            ),
            (
                "the administrator's",
                "administrator".to_owned(),
                "not-valid",
            ),
        ] {
            match authenticate(&host, &plane, &token)? {
                Ok(identity) => bail!("the token {what} is taken for {identity:?}"),
                Err(refusal) => ensure!(refusal.reason() == reason, "{what}: {refusal}"),
            }
        }

        // A pod that goes takes its token with it, and is no longer live.
        ensure!(
            live(&host, &plane, |uids| uids.contains(&agent_uid))?,
            "the agent's pod is live"
        );
        plane.run(&[
            "-n",
            SYSTEM,
            "delete",
            "pod",
            "agent-1",
            "--force",
            "--grace-period=0",
        ])?;
        ensure!(
            live(&host, &plane, Vec::is_empty)?,
            "no agent's pod is live"
        );
        let start = Instant::now();
        loop {
            match authenticate(&host, &plane, &good)? {
                Err(refusal) => {
                    ensure!(refusal.reason() == "not-valid", "{refusal}");
                    return Ok(());
                }
                Ok(_) => ensure!(start.elapsed() < SOON, "the token outlives its pod"),
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    })
}

/// A pod on the node.
fn pod(name: &str, account: &str) -> serde_json::Value {
    let app = format!(
        "clusterlink-{}",
        if account == AGENT { "agent" } else { account }
    );
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": SYSTEM, "labels": {"app.kubernetes.io/name": app}},
        "spec": {
            "nodeName": "n1", "serviceAccountName": account, "automountServiceAccountToken": false,
            "containers": [{"name": "it", "image": "it"}],
        },
    })
}

fn token(plane: &ControlPlane, account: &str, audience: &str, pod: Option<&str>) -> Result<String> {
    let audience = format!("--audience={audience}");
    let mut arguments = vec![
        "-n",
        SYSTEM,
        "create",
        "token",
        account,
        "--duration=1h",
        &audience,
    ];
    let bound = pod.map(|pod| format!("--bound-object-name={pod}"));
    if let Some(bound) = &bound {
        arguments.extend(["--bound-object-kind=Pod", bound]);
    }
    Ok(plane.run(&arguments)?.trim().to_owned())
}

fn authenticate(
    host: &Host,
    plane: &ControlPlane,
    token: &str,
) -> Result<Result<Identity, Refusal>> {
    with_client(host, plane, async |client| {
        let reviewer = TokenReviewer::new(client, ObjectName::new(SYSTEM, AGENT));
        Ok(reviewer.authenticate(token).await)
    })
}

/// Whether the UIDs of the agents' pods come to be as they should.
fn live(
    host: &Host,
    plane: &ControlPlane,
    condition: impl Fn(&Vec<String>) -> bool + Send + Sync,
) -> Result<bool> {
    with_client(host, plane, async |client| {
        let (mut live, task) = live_pods(client, SYSTEM);
        let seen = live.wait_for(|live| {
            live.as_ref().is_some_and(|live| {
                let uids = live.iter().map(ToString::to_string).collect();
                condition(&uids)
            })
        });
        tokio::select! {
            seen = tokio::time::timeout(SOON, seen) => Ok(matches!(seen, Ok(Ok(_)))),
            () = task => bail!("the watch has ended"),
        }
    })
}

/// Does something with a client that is in the network of the control plane.
fn with_client<T: Send, F: Future<Output = Result<T>>>(
    host: &Host,
    plane: &ControlPlane,
    act: impl FnOnce(Client) -> F + Send,
) -> Result<T> {
    let kubeconfig: PathBuf = plane.kubeconfig();
    network::within(host.namespace(), move || {
        // Another call may have installed it.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            act(Client::try_from(config).context("no client")?).await
        })
    })?
}
