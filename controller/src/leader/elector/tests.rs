use super::*;

/// An API server with one Lease, which several replicas use at a simulated time.
struct World {
    start: Instant,
    lease: Option<Record>,
    writes: u64,
}

impl World {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            lease: None,
            writes: 0,
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    /// One round of a replica: it reads and does what follows.
    fn round(&mut self, elector: &mut Elector, millis: u64) -> bool {
        let now = self.at(millis);
        let step = elector.read(self.lease.clone(), now);
        self.write(elector, step, now);
        elector.leadership(now).leading
    }

    /// Whether the write succeeded.
    fn write(&mut self, elector: &mut Elector, step: Step, began: Instant) -> bool {
        let transitions = match step {
            Step::Wait => return false,
            Step::Create if self.lease.is_some() => return false,
            Step::Create => 0,
            Step::Update {
                version,
                transitions,
                ..
            } => {
                if self
                    .lease
                    .as_ref()
                    .is_none_or(|lease| lease.version != version)
                {
                    return false;
                }
                transitions
            }
        };
        self.writes += 1;
        let version = self.writes.to_string();
        self.lease = Some(Record {
            holder: Some(elector.identity.clone()),
            duration: elector.timing.duration,
            transitions,
            version: version.clone(),
        });
        elector.wrote(version, began);
        true
    }

    fn release(&mut self, elector: &mut Elector, millis: u64) {
        let version = elector.release(self.at(millis));
        if let Some(lease) = &mut self.lease
            && Some(&lease.version) == version.as_ref()
        {
            self.writes += 1;
            lease.holder = None;
            lease.version = self.writes.to_string();
        }
    }
}

fn replica(name: &str) -> Elector {
    Elector::new(name.to_owned(), Timing::default())
}

#[test]
fn the_first_creates_the_lease_and_the_second_waits() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    assert!(world.round(&mut a, 0));
    assert!(!world.round(&mut b, 10));
    assert_eq!(b.leadership(world.at(10)).holder.as_deref(), Some("a"));
}

#[test]
fn of_two_that_create_at_once_one_leads() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    let now = world.at(0);
    let (first, second) = (a.read(None, now), b.read(None, now));
    assert!(world.write(&mut a, first, now));
    assert!(!world.write(&mut b, second, now));
    assert!(a.leadership(now).leading && !b.leadership(now).leading);
}

#[test]
fn a_holder_that_renews_keeps_the_lease() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    for second in 0..120 {
        assert!(world.round(&mut a, second * 2000));
        assert!(!world.round(&mut b, second * 2000 + 1000));
    }
    assert_eq!(world.lease.unwrap().transitions, 0);
}

#[test]
fn a_holder_that_is_gone_is_followed_once_its_lease_has_run_out_for_the_one_who_looks() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    assert!(world.round(&mut a, 0));
    // The other one starts late: it has to see the whole duration itself.
    assert!(!world.round(&mut b, 14_000));
    assert!(!world.round(&mut b, 28_900));
    assert!(world.round(&mut b, 29_000));
    assert_eq!(world.lease.as_ref().unwrap().transitions, 1);
    // The first one comes back and finds that it lost the lease.
    assert!(!world.round(&mut a, 29_100));
}

#[test]
fn a_holder_stops_by_itself_before_another_can_begin() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    assert!(world.round(&mut a, 0));
    assert!(!world.round(&mut b, 1));
    // The API server answers nobody until 14.9 s.
    let mut both = 0;
    for millis in (0..20_000).step_by(50) {
        let now = world.at(millis);
        if millis > 14_900 {
            world.round(&mut b, millis);
        }
        both += u32::from(a.leadership(now).leading && b.leadership(now).leading);
    }
    assert_eq!(both, 0);
    assert!(a.leadership(world.at(9_999)).leading);
    assert!(!a.leadership(world.at(10_000)).leading);
    assert!(b.leadership(world.at(20_000)).leading);
}

#[test]
fn the_time_that_a_write_takes_counts_against_the_writer() {
    let (mut world, mut a) = (World::new(), replica("a"));
    let step = a.read(None, world.at(0));
    // The answer arrives after 9 s; the lease is counted from when the request was sent.
    assert!(world.write(&mut a, step, world.start));
    assert!(a.leadership(world.at(9_000)).leading);
    assert!(!a.leadership(world.at(10_000)).leading);
}

#[test]
fn a_holder_whose_renewals_failed_for_a_while_takes_up_its_lease_again() {
    let (mut world, mut a) = (World::new(), replica("a"));
    assert!(world.round(&mut a, 0));
    assert!(!a.leadership(world.at(12_000)).leading);
    assert!(world.round(&mut a, 12_100));
    assert_eq!(world.lease.unwrap().transitions, 0);
}

#[test]
fn a_released_lease_is_taken_at_the_next_look() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    assert!(world.round(&mut a, 0));
    assert!(!world.round(&mut b, 100));
    world.release(&mut a, 200);
    assert!(!a.leadership(world.at(200)).leading);
    assert!(world.round(&mut b, 300));
}

#[test]
fn who_does_not_hold_the_lease_releases_nothing() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    assert!(world.round(&mut a, 0));
    assert!(!world.round(&mut b, 100));
    assert_eq!(b.release(world.at(200)), None);
    // Nor one that held it so long ago that another may hold it now.
    assert_eq!(a.release(world.at(10_001)), None);
}

#[test]
fn a_deleted_lease_ends_the_leadership_until_it_is_created_anew() {
    let (mut world, mut a) = (World::new(), replica("a"));
    assert!(world.round(&mut a, 0));
    world.lease = None;
    assert_eq!(a.read(None, world.at(100)), Step::Create);
    assert!(!a.leadership(world.at(100)).leading);
    assert!(world.round(&mut a, 200));
}

#[test]
fn a_write_that_another_was_faster_with_changes_nothing() {
    let (mut world, mut a, mut b) = (World::new(), replica("a"), replica("b"));
    assert!(world.round(&mut a, 0));
    assert!(!world.round(&mut b, 1));
    let now = world.at(20_000);
    let step = b.read(world.lease.clone(), now);
    assert!(matches!(step, Step::Update { acquires: true, .. }));
    // The holder renews in between.
    assert!(world.round(&mut a, 20_000));
    assert!(!world.write(&mut b, step, now));
    assert!(!b.leadership(now).leading);
}
