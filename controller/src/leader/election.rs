//! The election against the API server.

use std::{hash::BuildHasher, hash::RandomState, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Elector, Holder, Leadership, Record, Step, Timing};

/// The name of the Lease in the system namespace.
pub const LEASE: &str = "clusterlink-controller";

/// Takes part in the election until it is stopped.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a client has nothing to show")]
pub struct Election {
    leases: Api<Lease>,
    identity: String,
    timing: Timing,
    published: watch::Sender<Leadership>,
}

impl Election {
    /// A replica that takes part for the Lease of the system namespace.
    pub fn new(client: Client, namespace: &str, holder: &Holder, timing: Timing) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            identity: holder.to_string(),
            timing,
            published: watch::Sender::default(),
        }
    }

    /// Who leads, as it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.published.subscribe()
    }

    /// Looks at the lease and renews it until `stop`; then gives it back.
    pub async fn run(self, stop: CancellationToken) {
        let mut elector = Elector::new(self.identity.clone(), self.timing);
        let mut failing = false;
        let mut next = Instant::now();
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = expiry(elector.until()) => self.publish(&elector),
                () = sleep_until(next) => {
                    let result = self.round_or_expiry(&mut elector).await;
                    self.publish(&elector);
                    match result {
                        Ok(()) => failing = false,
                        Err(error) if failing => tracing::debug!(error, "the lease is out of reach"),
                        Err(error) => {
                            warn!(error, lease = LEASE, "the lease is out of reach; it is tried again");
                            failing = true;
                        }
                    }
                    next = Instant::now() + jittered(self.timing.retry);
                }
            }
        }
        self.published.send_replace(Leadership::default());
        self.release(&mut elector).await;
    }

    /// One round, which may take no longer than a retry period. The holder's time runs meanwhile:
    /// should it end, the leadership does not wait for an answer.
    async fn round_or_expiry(&self, elector: &mut Elector) -> Result<(), String> {
        let patience = self.timing.retry.max(Duration::from_millis(500));
        let until = elector.until();
        let round = timeout(patience, self.round(elector));
        tokio::pin!(round);
        let result = tokio::select! {
            result = &mut round => result,
            () = expiry(until) => {
                self.lapse();
                round.await
            }
        };
        result.unwrap_or_else(|_| Err(format!("the API server did not answer within {patience:?}")))
    }

    async fn round(&self, elector: &mut Elector) -> Result<(), String> {
        let current = self.leases.get_opt(LEASE).await.map_err(text)?;
        let step = elector.read(current.as_ref().map(record), Instant::now());
        // What was read counts at once: a holder that lost its lease stops before the next call.
        self.publish(elector);
        let began = Instant::now();
        let written = match step {
            Step::Wait => return Ok(()),
            Step::Create => {
                let lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(LEASE.to_owned()),
                        ..ObjectMeta::default()
                    },
                    spec: Some(self.spec(0, Timestamp::now(), None)),
                };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Step::Update {
                version,
                transitions,
                acquires,
            } => {
                let mut lease = current.unwrap_or_default();
                let before = lease.spec.take().and_then(|spec| spec.acquire_time);
                let acquired = before.filter(|_| !acquires);
                lease.spec = Some(self.spec(transitions, Timestamp::now(), acquired));
                lease.metadata.resource_version = Some(version);
                self.leases
                    .replace(LEASE, &PostParams::default(), &lease)
                    .await
            }
        };
        match written {
            Ok(lease) => {
                elector.wrote(lease.metadata.resource_version.unwrap_or_default(), began);
                Ok(())
            }
            // Another was faster; who it was is read in the next round.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(())
            }
            Err(error) => Err(text(error)),
        }
    }

    fn spec(&self, transitions: i32, now: Timestamp, acquired: Option<MicroTime>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            lease_transitions: Some(transitions),
            acquire_time: acquired.or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that another need not wait for its end.
    async fn release(&self, elector: &mut Elector) {
        let Some(version) = elector.release(Instant::now()) else {
            return;
        };
        let attempt = async {
            let mut lease = self.leases.get(LEASE).await?;
            if lease.metadata.resource_version.as_ref() != Some(&version) {
                return Ok(());
            }
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
            let parameters = PostParams::default();
            self.leases
                .replace(LEASE, &parameters, &lease)
                .await
                .map(drop)
        };
        match timeout(self.timing.retry, attempt).await {
            Ok(Ok(())) => info!(lease = LEASE, "the lease is given back"),
            Ok(Err(error)) => warn!(%error, "the lease is not given back; it runs out by itself"),
            Err(_) => warn!("the lease is not given back in time; it runs out by itself"),
        }
    }

    fn lapse(&self) {
        let holder = self.published.borrow().holder.clone();
        self.tell(Leadership {
            leading: false,
            holder,
        });
    }

    fn publish(&self, elector: &Elector) {
        self.tell(elector.leadership(Instant::now()));
    }

    fn tell(&self, now: Leadership) {
        self.published.send_if_modified(|before| {
            if before.leading != now.leading {
                let holder = now.holder.as_deref().unwrap_or("nobody");
                if now.leading {
                    info!(lease = LEASE, "this replica leads: it writes from now on");
                } else {
                    warn!(
                        lease = LEASE,
                        holder, "this replica leads no more: it stops to write"
                    );
                }
            }
            let changed = *before != now;
            *before = now;
            changed
        });
    }
}

/// Completes when a leadership ends for want of a renewal; never, where there is none.
async fn expiry(until: Option<Instant>) {
    match until.filter(|until| *until > Instant::now()) {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Record {
        holder: spec.holder_identity,
        duration: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        transitions: spec.lease_transitions.unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

/// Up to a fifth longer, so that replicas do not look all at once.
fn jittered(period: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 200;
    period.mul_f64(1.0 + random as f64 / 1000.0)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err takes")]
fn text(error: kube::Error) -> String {
    format!("Lease {LEASE}: {error}")
}
