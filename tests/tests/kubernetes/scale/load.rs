//! Many objects made and looked at in one go: `kubectl` would take minutes.

use anyhow::{Context, Result, ensure};
use clusterlink_crds::Import;
use clusterlink_tests::kubernetes::ControlPlane;
use clusterlink_tests::manifests::{import, source};
use clusterlink_tests::network;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};

/// How many requests are under way at once.
const BUSY: usize = 32;

/// How many Exports there are, which the Imports take in turn.
pub(crate) const EXPORTS: usize = 8;

/// Makes Imports `web-0`, `web-1` and so on.
pub(crate) fn create_imports(plane: &ControlPlane, namespace: &str, many: usize) -> Result<()> {
    within(plane, async |client| {
        let api = Api::<Import>::namespaced(client, namespace);
        let objects = (0..many).map(|number| {
            let name = format!("web-{number}");
            let sources = [source("east", namespace, &export_of(number))];
            serde_json::from_value::<Import>(import(namespace, &name, 80, &sources))
        });
        let objects = objects.collect::<Result<Vec<_>, _>>()?;
        let parameters = PostParams::default();
        let creates = objects.iter().map(|object| api.create(&parameters, object));
        let made = stream::iter(creates).buffer_unordered(BUSY);
        made.try_for_each(async |_| Ok(())).await?;
        Ok(())
    })
}

/// The Export that the Import of a number leads to.
pub(crate) fn export_of(number: usize) -> String {
    format!("export-{}", number % EXPORTS)
}

/// Fails with the first Import that has a condition that is not True, or no target port.
pub(crate) fn all_served(plane: &ControlPlane, namespace: &str, many: usize) -> Result<bool> {
    within(plane, async |client| {
        let api = Api::<Import>::namespaced(client, namespace);
        let all = api.list(&ListParams::default()).await?.items;
        ensure!(all.len() == many, "there are {} Imports", all.len());
        for one in &all {
            let conditions = one.status.iter().flat_map(|status| &status.conditions);
            let well = conditions.filter(|condition| condition.status == "True");
            let port = one.status.as_ref().and_then(|status| status.target_port);
            ensure!(
                well.count() == 2 && port.is_some(),
                "{}: {:?}",
                one.name_any(),
                one.status
            );
        }
        Ok(true)
    })
}

/// Runs a function with a client of the administrator's, in the network of the control plane.
fn within<T: Send>(
    plane: &ControlPlane,
    call: impl AsyncFnOnce(Client) -> Result<T> + Send,
) -> Result<T> {
    // A second one of the process finds it installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    network::within(plane.host().namespace(), || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(plane.kubeconfig())?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            call(Client::try_from(config)?).await
        })
    })?
}
