use proptest::prelude::*;

use super::*;
use crate::cluster::fleet::tests::{a_fleet, an_agent};

fn import(number: usize) -> ObjectName {
    ObjectName::new("ns", format!("web-{number}"))
}

fn place<'a>(roster: &'a Roster, import: &ObjectName, count: usize) -> Vec<&'a Agent> {
    roster.place(import, count, &Rejecting::new()).agents
}

fn nodes(import: &ObjectName, roster: &Roster, count: usize) -> Vec<String> {
    names(&place(roster, import, count))
}

fn names(agents: &[&Agent]) -> Vec<String> {
    let agents = agents.iter();
    agents.map(|agent| agent.node.to_string()).collect()
}

fn rejecting<'a>(nodes: impl IntoIterator<Item = &'a String>) -> Rejecting {
    let nodes = nodes.into_iter();
    nodes.map(|node| (node.as_str().into(), None)).collect()
}

#[test]
fn up_to_sixteen_agents_serve_every_import_and_of_more_sixteen_do() {
    for (agents, wanted) in [(0, 0), (1, 1), (16, 16), (17, 16), (1000, 16)] {
        let fleet = a_fleet((0..agents).map(|number| an_agent(number, None, number % 2 == 0)));
        assert_eq!(
            place(&Roster::new(&fleet), &import(1), MOST).len(),
            wanted,
            "{agents} agents"
        );
    }
}

#[test]
fn agents_that_do_not_serve_stand_in_only_where_too_few_do() {
    let fleet = a_fleet((0..40).map(|number| an_agent(number, None, number < 10)));
    let roster = Roster::new(&fleet);
    let placed = place(&roster, &import(1), MOST);
    assert_eq!(placed.iter().filter(|agent| agent.ready).count(), 10);
    assert_eq!(placed.len(), MOST);
}

#[test]
fn every_zone_has_its_share_and_every_agent_its_imports() {
    let zones = ["a", "b", "c"];
    let fleet = a_fleet((0..300).map(|n| {
        // The third zone is small.
        let zone = if n < 4 { 2 } else { usize::from(n % 2) };
        an_agent(n, Some(zones[zone]), true)
    }));
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    let roster = Roster::new(&fleet);
    for number in 0..1000 {
        let placed = place(&roster, &import(number), MOST);
        let of = |zone: &str| {
            placed
                .iter()
                .filter(|a| a.zone.as_deref() == Some(zone))
                .count()
        };
        assert_eq!((of("a"), of("b"), of("c")), (6, 6, 4), "import {number}");
        for agent in placed {
            *served.entry(agent.node.to_string()).or_default() += 1;
        }
    }
    let large = served.values().filter(|count| **count < 1000);
    // 296 agents share 12,000 places: 40 each, give or take.
    assert!(large.clone().count() == 296 && large.clone().all(|count| (15..=75).contains(count)));
}

#[test]
fn an_agent_that_flips_among_a_thousand_changes_the_sets_that_hold_it_and_no_others() {
    let zones = ["a", "b", "c"];
    let agent = |n: u16, ready| an_agent(n, Some(zones[usize::from(n % 3)]), ready);
    let before = a_fleet((0..1000).map(|n| agent(n, true)));
    let mut after = before.clone();
    after.insert("n0500".into(), agent(500, false));
    let (before, after) = (Roster::new(&before), Roster::new(&after));
    let (mut held, mut changed) = (0, 0);
    for number in 0..5000 {
        let old = nodes(&import(number), &before, MOST);
        let new = nodes(&import(number), &after, MOST);
        held += usize::from(old.contains(&"n0500".to_owned()));
        if old != new {
            changed += 1;
            let stayed = old.iter().filter(|node| new.contains(node)).count();
            assert_eq!(stayed, MOST - 1, "one other agent takes its place");
        }
    }
    println!("5,000 imports at 1,000 agents: one flip changes {changed} sets");
    assert_eq!(held, changed);
    // 16 of 1,000 agents hold an import, so about 80 of 5,000.
    assert!((40..=130).contains(&changed), "{changed}");
}

#[test]
fn of_a_few_agents_all_serve_an_import_but_those_that_reject_it() {
    let roster = Roster::new(&a_fleet((0..4).map(|n| an_agent(n, None, n < 3))));
    let reject = ["n0001".to_owned(), "n0003".to_owned()];
    let placed = roster.place(&import(1), MOST, &rejecting(&reject));
    assert_eq!(names(&placed.agents), ["n0000", "n0002"]);
    assert_eq!(names(&placed.left_out), reject);
}

#[test]
fn of_many_agents_another_one_takes_the_place_of_one_that_rejects_the_import() {
    let zones = ["a", "b", "c"];
    let agent = |n: u16| an_agent(n, Some(zones[usize::from(n % 3)]), true);
    let roster = Roster::new(&a_fleet((0..40).map(agent)));
    let before = nodes(&import(1), &roster, MOST);
    let reject = rejecting(&before[..1]);
    let placed = roster.place(&import(1), MOST, &reject);
    assert_eq!(names(&placed.left_out), before[..1]);
    let after = names(&placed.agents);
    assert_eq!(after.len(), MOST);
    let stayed = after.iter().filter(|node| before.contains(node)).count();
    assert_eq!(stayed, MOST - 1);
    // Somebody without a place makes no difference.
    let all: Vec<_> = (0..40).map(|n| agent(n).node.to_string()).collect();
    let spare = all.iter().find(|node| !before.contains(node)).unwrap();
    let placed = roster.place(&import(1), MOST, &rejecting([spare]));
    assert_eq!(names(&placed.agents), before);
    assert_eq!(names(&placed.left_out), Vec::<String>::new());

    let placed = roster.place(&import(1), MOST, &rejecting(&all));
    assert_eq!((placed.agents.len(), placed.left_out.len()), (0, 40));
}

proptest! {
    /// A new leader knows of those alone that were left out for the one before it.
    #[test]
    fn those_that_were_left_out_are_enough_to_place_the_others_alike(
        states in proptest::collection::vec((0u8..4, any::<bool>(), any::<bool>()), 1..60),
        count in 1usize..20,
        number in 0usize..50,
    ) {
        let zone = |zone: u8| (zone > 0).then(|| zone.to_string());
        let agents = states.iter().enumerate();
        let agents = agents.map(|(n, (z, ready, _))| an_agent(n as u16, zone(*z).as_deref(), *ready));
        let fleet = a_fleet(agents);
        let all: Vec<_> = fleet.keys().map(ToString::to_string).collect();
        let reject = all.iter().zip(&states).filter(|(_, (.., rejects))| *rejects);
        let reject = rejecting(reject.map(|(node, _)| node));
        let roster = Roster::new(&fleet);
        let placed = roster.place(&import(number), count, &reject);
        prop_assert!(placed.agents.iter().all(|agent| !reject.contains_key(&agent.node)));
        prop_assert_eq!(placed.agents.len(), count.min(all.len() - reject.len()));
        // As if those that reject it were not there.
        let mut others = fleet.clone();
        others.retain(|node, _| !reject.contains_key(node));
        prop_assert_eq!(
            names(&placed.agents),
            nodes(&import(number), &Roster::new(&others), count)
        );
        let known = rejecting(&names(&placed.left_out));
        let again = roster.place(&import(number), count, &known);
        prop_assert_eq!(names(&again.agents), names(&placed.agents));
        prop_assert_eq!(names(&again.left_out), names(&placed.left_out));
    }

    #[test]
    fn a_set_without_the_agent_that_flips_stays_the_same(
        states in proptest::collection::vec((0u8..4, any::<bool>()), 1..80),
        flipped in any::<prop::sample::Index>(),
        count in 1usize..20,
        number in 0usize..50,
    ) {
        let zone = |zone: u8| (zone > 0).then(|| zone.to_string());
        let agent = |(n, (z, ready)): (usize, &(u8, bool))| an_agent(n as u16, zone(*z).as_deref(), *ready);
        let before = a_fleet(states.iter().enumerate().map(agent));
        let mut states = states.clone();
        let flipped = flipped.index(states.len());
        states[flipped].1 = !states[flipped].1;
        let after = a_fleet(states.iter().enumerate().map(agent));
        let (before, after) = (Roster::new(&before), Roster::new(&after));
        let old = nodes(&import(number), &before, count);
        let new = nodes(&import(number), &after, count);
        prop_assert_eq!(old.len(), states.len().min(count));
        let node = an_agent(flipped as u16, None, true).node.to_string();
        if !old.contains(&node) && !new.contains(&node) {
            prop_assert_eq!(old, new);
        }
    }
}
