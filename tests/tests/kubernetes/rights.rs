//! Each right of the controller is needed: taken away by itself, just what it is for fails. And what
//! people may do by the roles that they have.

mod granted;
mod probes;
mod users;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clusterlink_tests::conditions::SOON;
use clusterlink_tests::kubernetes::{Audit, ControlPlane, Request};
use clusterlink_tests::wait::{wait_for, wait_until};
use clusterlink_tests::{Controller, ControllerOptions, Host, story};

use granted::{ACCOUNT, Right, granted};
use probes::{Probe, Trigger, probe};

/// A control plane, and a controller that writes.
struct Stage {
    plane: ControlPlane,
    host: Host,
    controller: Option<Controller>,
    audit: Audit,
}

#[test]
fn each_right_of_the_controller_is_needed_and_users_have_what_their_roles_say() -> Result<()> {
    story("kubernetes-rights", |scene| {
        let plane = ControlPlane::start(&scene.host("api")?)?;
        plane.install_clusterlink()?;
        probes::strict(&plane)?;
        let rights = granted(&plane)?;
        ensure!(
            rights.len() > 40,
            "only {} rights are granted",
            rights.len()
        );
        let (mut live, mut start) = (Vec::new(), Vec::new());
        for right in &rights {
            let probe = probe(right)?;
            match probe.trigger {
                Trigger::Live(_) => live.push((right, probe)),
                Trigger::Start { .. } => start.push((right, probe)),
            }
        }
        let mut stage = Stage {
            audit: plane.audit()?,
            plane,
            host: scene.host("controller")?,
            controller: None,
        };
        stage.lead()?;
        probes::prepare(&stage.plane)?;
        stage.nothing_is_refused("with all rights")?;
        // The leadership comes last: it has to be won back.
        live.sort_by_key(|(right, _)| right.resource == "leases");
        for (right, probe) in &live {
            stage
                .take_away(right, probe)
                .with_context(|| format!("without {right}"))?;
        }
        stage.stop()?;
        for (right, probe) in &start {
            stage
                .take_away(right, probe)
                .with_context(|| format!("without {right}"))?;
        }
        // With all rights again everything works, after all that.
        stage.lead()?;
        stage.nothing_is_refused("with all rights again")?;
        users::may_do_what_their_roles_say(&stage.plane)
    })
}

impl Stage {
    fn lead(&mut self) -> Result<()> {
        let options = ControllerOptions::named("controller");
        let controller = Controller::start_with(&self.host, &self.plane, &options)?;
        wait_for("it leads", SOON, || controller.leads())?;
        self.controller = Some(controller);
        Ok(())
    }

    fn stop(&mut self) -> Result<()> {
        let controller = self.controller.take().context("no controller runs")?;
        ensure!(
            controller.stop()?.success(),
            "it did not stop in good order"
        );
        Ok(())
    }

    fn nothing_is_refused(&mut self, when: &str) -> Result<()> {
        let answered = self.audit.answered()?;
        let asked = answered.iter().filter(|one| one.user == ACCOUNT).count();
        ensure!(asked > 0, "{when}: the audit log knows of no request");
        let refused: Vec<Request> = answered.into_iter().filter(ours).collect();
        ensure!(refused.is_empty(), "{when}: {refused:?}");
        Ok(())
    }

    /// Takes one right away, does what needs it, sees it refused and told of, and gives it back.
    fn take_away(&mut self, right: &Right, probe: &Probe) -> Result<()> {
        let began = Instant::now();
        self.audit.answered()?;
        right.set(&self.plane, false)?;
        match probe.trigger {
            Trigger::Live(act) => {
                act(&self.plane)?;
                self.refused(right, probe)?;
                let controller = self.controller.as_ref().context("no controller runs")?;
                told(controller, probe)?;
            }
            Trigger::Start { before, by_name } => {
                before(&self.plane)?;
                let mut options = ControllerOptions::named("controller");
                if !by_name {
                    options.peer_name = None;
                }
                let controller = Controller::spawn(&self.host, &self.plane, &options)?;
                self.refused(right, probe)?;
                told(&controller, probe)?;
                // Dropped, it is killed.
            }
        }
        right.set(&self.plane, true)?;
        self.settle(right, probe)?;
        eprintln!("{right}: {:.1} s", began.elapsed().as_secs_f32());
        Ok(())
    }

    /// Waits for the refusal, and sees that nothing else was refused.
    fn refused(&mut self, right: &Right, probe: &Probe) -> Result<()> {
        let audit = &mut self.audit;
        let seen = wait_until("the API server refuses it", SOON, || {
            let refused: Vec<Request> = audit.answered()?.into_iter().filter(ours).collect();
            Ok((!refused.is_empty()).then_some(refused))
        })?;
        for one in seen {
            ensure!(probe.is_about(right, &one), "{one:?} is refused, too");
        }
        Ok(())
    }

    /// Waits until what is under way has come to its end, so that the next right stands alone.
    fn settle(&mut self, right: &Right, probe: &Probe) -> Result<()> {
        let audit = &mut self.audit;
        let mut last = Instant::now();
        let mut late = Vec::new();
        wait_for("nothing is refused any more", SOON, || {
            let refused = audit.answered()?.into_iter().filter(ours);
            let before = late.len();
            late.extend(refused);
            if late.len() > before {
                last = Instant::now();
            }
            Ok(last.elapsed() > Duration::from_millis(150))
        })?;
        for one in late {
            ensure!(probe.is_about(right, &one), "{one:?} is refused, too");
        }
        if right.resource == "leases"
            && let Some(controller) = &self.controller
        {
            wait_for("it leads again", SOON, || controller.leads())?;
        }
        Ok(())
    }
}

/// The log names what is missing.
fn told(controller: &Controller, probe: &Probe) -> Result<()> {
    wait_for("the log tells of it", SOON, || {
        // Some texts are fields of a log, with their quotes escaped.
        let log = controller.log()?.replace(['"', '\\'], "");
        if log.contains(&probe.told) {
            return Ok(true);
        }
        bail!("{:?} is not in it", probe.told)
    })
}

fn ours(request: &Request) -> bool {
    request.user == ACCOUNT && request.is_refused()
}
