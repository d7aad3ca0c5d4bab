//! Labels that change: new connections follow them, and live ones that are denied then are cut.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::live::{Live, logged};
use super::policy::{FORGOTTEN, REFUSED_BY_THE_OTHER};
use super::{Labelled, Stage};
use crate::manifests::{everything, matching, privileged_policy, with_label};
use crate::world::{Verdict, wait_verdict};

/// A label of anything that has some cuts what it makes a side deny.
///
/// Each side denies labels that nothing has yet. One label after the other is given under a live
/// connection, and taken away again.
pub fn labels_of_everything_are_judged_as_they_change(stage: &impl Stage) -> Result<()> {
    let (west, east) = (stage.west(), stage.east());
    let mut echo = stage.share("labels", "echo", &[])?;
    let client = stage.workload("labelled", |pod| with_label(pod, "app", "cart"))?;
    stage.allow_all()?;
    for (side, app) in [(west, "till"), (east, "vault")] {
        let all = everything();
        let app = matching("client.clusterlink.net/labels.app", app);
        let secret = matching("export.clusterlink.net/labels.tier", "secret");
        let abroad = matching("peer.clusterlink.net/labels.zone", "abroad");
        let denies = [
            ("apps", &app, &all),
            ("tiers", &all, &secret),
            ("callers", &abroad, &all),
            ("called", &all, &abroad),
        ];
        let deny = |(name, from, to)| privileged_policy(name, "deny", from, to);
        side.apply("denies.yaml", &denies.map(deny))?;
    }

    let name = echo.name.clone();
    let (tier, zone) = (("tier", "secret"), ("zone", "abroad"));
    let rows = [
        ("the Export", east, Labelled::Export(&name), tier, east),
        ("the Import", west, Labelled::Import(&name), tier, west),
        (
            "the calling Peer",
            east,
            Labelled::Peer(west.peer()),
            zone,
            east,
        ),
        (
            "the called Peer",
            west,
            Labelled::Peer(east.peer()),
            zone,
            west,
        ),
        (
            "the workload",
            west,
            Labelled::Workload(&client),
            ("app", "till"),
            west,
        ),
        (
            "the workload",
            west,
            Labelled::Workload(&client),
            ("app", "vault"),
            east,
        ),
    ];
    for (what, at, object, (key, value), judge) in rows {
        let what = format!("a label of {what} that {} denies", judge.peer());
        let served = [Verdict::Served];
        let patience = stage.soon() + FORGOTTEN;
        let before = format!("before {what}");
        wait_verdict(&before, patience, &client, echo.address, &served)?;
        let live = Live::connect(west, &client, &echo)?;
        at.label(object, key, Some(value))?;
        let start = Instant::now();
        let own = [stage.refused()];
        let (wanted, reasons) = if judge.peer() == west.peer() {
            (&own[..], ["denied", "peer-reset"])
        } else {
            (&REFUSED_BY_THE_OTHER[..], ["peer-reset", "denied"])
        };
        stage.sees(&what, &client, echo.address, wanted)?;
        let seen = start.elapsed();
        let [at_client, at_server] = live.cut(&mut echo, start).with_context(|| what.clone())?;
        for (side, reason) in [west, east].into_iter().zip(reasons) {
            logged(side, &echo, reason).with_context(|| what.clone())?;
        }
        eprintln!(
            "{what}: new connections {seen:.2?}, client cut {at_client:.2?}, server cut {at_server:.2?}"
        );
        at.label(object, key, (key == "app").then_some("cart"))?;
    }
    for side in [west, east] {
        side.withdraw("denies.yaml")?;
    }
    stage.allow_nothing()
}
