use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    Order,
    SourceState::{self, Denied, NoPeer, Unreachable, Usable},
    failover::{Failure, Next, Payload, after, is_denied_everywhere},
};
use crate::resource::LbScheme::{self, Random, RoundRobin, Static};

fn tried(order: &Order) -> Vec<usize> {
    order.candidates().iter().map(|c| c.index()).collect()
}

#[test]
fn a_source_is_judged_by_what_matters_first() {
    for (peer, allowed, reachable, expected) in [
        (true, true, true, Usable),
        (true, true, false, Unreachable),
        (true, false, true, Denied),
        (true, false, false, Denied),
        (false, true, true, NoPeer),
        (false, true, false, NoPeer),
        (false, false, true, NoPeer),
        (false, false, false, NoPeer),
    ] {
        assert_eq!(SourceState::new(peer, allowed, reachable), expected);
    }
}

#[test]
fn sources_are_tried_in_the_order_of_the_scheme() {
    let all = [Usable; 4];
    let mixed = [
        Unreachable,
        Usable,
        Denied,
        Usable,
        NoPeer,
        Unreachable,
        Usable,
    ];
    for (row, scheme, ticket, states, order) in [
        (
            "static is list order",
            Static,
            7,
            &all[..],
            &[0, 1, 2, 3][..],
        ),
        (
            "static: unreachable last",
            Static,
            7,
            &mixed,
            &[1, 3, 6, 0, 5],
        ),
        (
            "round-robin starts at the first",
            RoundRobin,
            0,
            &all,
            &[0, 1, 2, 3],
        ),
        ("round-robin goes on", RoundRobin, 1, &all, &[1, 2, 3, 0]),
        ("round-robin wraps", RoundRobin, 6, &all, &[2, 3, 0, 1]),
        (
            "round-robin turns over usable ones",
            RoundRobin,
            1,
            &mixed,
            &[3, 6, 1, 5, 0],
        ),
        (
            "round-robin at the largest count",
            RoundRobin,
            u64::MAX,
            &all,
            &[3, 0, 1, 2],
        ),
        ("one source", Random, 99, &[Usable], &[0]),
        (
            "random: unreachable is still tried",
            Random,
            99,
            &[Unreachable, Usable],
            &[1, 0],
        ),
        ("no source", RoundRobin, 3, &[], &[]),
        (
            "none that may be tried",
            RoundRobin,
            3,
            &[Denied, NoPeer],
            &[],
        ),
    ] {
        assert_eq!(
            tried(&Order::new(scheme, ticket, states.iter().copied())),
            order,
            "{row}"
        );
    }
}

#[test]
fn what_is_not_tried_is_kept_with_the_reason() {
    let order = Order::new(Random, 1, [NoPeer, Usable, Denied, Unreachable, NoPeer]);
    let skipped: Vec<_> = order
        .skipped()
        .iter()
        .map(|c| (c.index(), c.state))
        .collect();
    assert_eq!(skipped, [(0, NoPeer), (2, Denied), (4, NoPeer)]);
}

#[test]
fn rotation_is_strict_over_consecutive_connections() {
    let states = [Usable, Denied, Usable, Usable];
    let first = |count| tried(&Order::new(RoundRobin, count, states))[0];
    let served: Vec<_> = (0..9).map(first).collect();
    assert_eq!(served, [0, 2, 3, 0, 2, 3, 0, 2, 3]);
}

#[test]
fn random_is_uniform_over_usable_sources_and_over_what_follows() {
    let states = [Usable, Unreachable, Usable, Denied, Usable, Unreachable];
    let draws = 60_000_u64;
    let mut orders: BTreeMap<Vec<usize>, u64> = BTreeMap::new();
    for draw in 0..draws {
        // Evenly spread numbers stand for the caller's uniform ones.
        let ticket = draw.wrapping_mul(u64::MAX / draws) ^ draw.rotate_left(40);
        *orders
            .entry(tried(&Order::new(Random, ticket, states)))
            .or_default() += 1;
    }
    assert_eq!(
        orders.len(),
        12,
        "3! orders of the usable ones, 2! of the others: {orders:?}"
    );
    let expected = draws / 12;
    for (order, count) in &orders {
        assert!(
            count.abs_diff(expected) < expected / 10,
            "{order:?} came {count} times"
        );
    }
}

#[test]
fn sixteen_sources_are_ordered_without_an_allocation() {
    assert!(!Order::new(Random, 5, [Usable; 16]).candidates.spilled());
    assert_eq!(Order::new(Random, 5, [Usable; 17]).candidates().len(), 17);
}

#[test]
fn every_failure_leads_to_the_next_source_while_nothing_was_delivered() {
    use Failure::*;
    for (failure, payload, next) in [
        (Unreachable, Payload::Unsent, Next::TryNext),
        (DeniedHere, Payload::Unsent, Next::TryNext),
        (DeniedThere, Payload::Unsent, Next::TryNext),
        (Declined, Payload::Unsent, Next::TryNext),
        (TunnelFailed, Payload::Unsent, Next::TryNext),
        // The peer said no: what was sent along reached no backend, and goes to the next source.
        (DeniedThere, Payload::Sent, Next::TryNext),
        (Declined, Payload::Sent, Next::TryNext),
        // Nobody knows how far it got.
        (TunnelFailed, Payload::Sent, Next::Reset),
        (Unreachable, Payload::Sent, Next::Reset),
        (DeniedHere, Payload::Sent, Next::Reset),
    ] {
        assert_eq!(
            after(failure, payload),
            next,
            "{failure:?} after {payload:?}"
        );
    }
}

#[test]
fn a_denial_is_remembered_only_when_every_source_said_so() {
    use Failure::*;
    for (row, failures, remembered) in [
        ("every source", &[DeniedThere, DeniedThere][..], true),
        ("one is away", &[DeniedThere, Unreachable], false),
        ("one has no backend", &[DeniedThere, Declined], false),
        ("one is denied here", &[DeniedThere, DeniedHere], false),
        ("nothing was tried", &[], false),
    ] {
        let everywhere = is_denied_everywhere(failures.iter().copied());
        assert_eq!(everywhere, remembered, "{row}");
    }
}

fn scheme() -> impl Strategy<Value = LbScheme> {
    select(&[Random, RoundRobin, Static][..])
}

proptest! {
    #[test]
    fn every_source_is_either_tried_once_or_skipped(
        scheme in scheme(),
        ticket: u64,
        states in vec(select(&[Usable, Unreachable, Denied, NoPeer][..]), 0..40),
    ) {
        let order = Order::new(scheme, ticket, states.iter().copied());
        let all: BTreeSet<_> =
            order.candidates().iter().chain(order.skipped()).map(|c| c.index()).collect();
        prop_assert_eq!(all, (0..states.len()).collect::<BTreeSet<_>>());
        prop_assert_eq!(order.candidates().len() + order.skipped().len(), states.len());
        for candidate in order.candidates().iter().chain(order.skipped()) {
            prop_assert_eq!(candidate.state, states[candidate.index()]);
        }
        prop_assert!(order.candidates().iter().all(|c| c.state.is_tried()));
        prop_assert!(order.skipped().iter().all(|c| !c.state.is_tried()));
        prop_assert!(order.candidates().is_sorted_by_key(|c| c.state == Unreachable));
        prop_assert!(order.skipped().is_sorted_by_key(|c| c.index()));
    }
}
