//! How connections are spread over two sources whose servers answer with their names.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::place::Place;
use crate::traffic::Client;

/// The critical value of chi-square with three degrees of freedom for p = 1e-6.
const CHI_SQUARE: f64 = 30.66;

/// Runs a client that makes many connections, which all have to be served, and gives who answered
/// each, in the order in which they were begun.
pub fn answers(calls: &Client, from: &Place) -> Result<Vec<String>> {
    let mut all = calls.run(from)?;
    let failed = all.iter().find(|one| !one.succeeded());
    ensure!(failed.is_none(), "a connection failed: {failed:?}");
    all.sort_by_key(|one| one.index);
    Ok(all.into_iter().map(|one| one.text).collect())
}

/// Both have answered equally often, but for the last turn.
pub fn in_turn(answers: &[String], sources: [&str; 2]) -> Result<()> {
    let counts = count(answers);
    let [first, second] = sources.map(|source| counts.get(source).copied().unwrap_or_default());
    ensure!(
        first.abs_diff(second) <= 1 && first + second == answers.len(),
        "{counts:?}"
    );
    Ok(())
}

/// The first one has answered every time.
pub fn the_first_always(answers: &[String], first: &str) -> Result<()> {
    let counts = count(answers);
    ensure!(
        counts == BTreeMap::from([(first, answers.len())]) && !answers.is_empty(),
        "{counts:?}"
    );
    Ok(())
}

/// Each connection goes to either with equal chance, whatever became of the one before it: all four
/// answers of two connections in a row are equally frequent. Gives chi-square.
pub fn by_equal_chance(answers: &[String], sources: [&str; 2]) -> Result<f64> {
    let pairs = answers.chunks_exact(2);
    let expected = pairs.len() as f64 / 4.0;
    let mut counts = BTreeMap::new();
    for pair in pairs {
        *counts.entry([&*pair[0], &*pair[1]]).or_insert(0.0) += 1.0;
    }
    let all = sources.map(|first| sources.map(|second| [first, second]));
    let squares = all.as_flattened().iter().map(|pair| {
        let off = counts.get(pair).copied().unwrap_or_default() - expected;
        off * off / expected
    });
    let chi_square: f64 = squares.sum();
    // A name that is none of theirs leaves a gap, too.
    ensure!(
        chi_square < CHI_SQUARE,
        "chi-square is {chi_square:.2}: {counts:?}"
    );
    Ok(chi_square)
}

fn count(answers: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for one in answers {
        *counts.entry(&**one).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: [&str; 2] = ["east", "north"];

    fn drawn(mut draw: impl FnMut(usize) -> bool) -> Vec<String> {
        let names = (0..2_000).map(|index| SOURCES[usize::from(draw(index))]);
        names.map(str::to_owned).collect()
    }

    #[test]
    fn only_independent_fair_draws_pass_as_random() {
        let fair = drawn(|_| rand::random());
        by_equal_chance(&fair, SOURCES).unwrap();
        for (what, wrong) in [
            ("turns", drawn(|index| index % 2 == 0)),
            ("turns of two", drawn(|index| index % 4 < 2)),
            ("always the first", drawn(|_| false)),
            ("three of five", drawn(|_| rand::random_range(0..5) < 3)),
        ] {
            assert!(by_equal_chance(&wrong, SOURCES).is_err(), "{what}");
        }
        let mut stranger = fair;
        stranger.truncate(1_000);
        stranger.extend(vec!["south".to_owned(); 1_000]);
        assert!(by_equal_chance(&stranger, SOURCES).is_err());
    }

    #[test]
    fn turns_are_equal_shares_of_both_and_no_one_elses() {
        let turns = drawn(|index| index % 2 == 0);
        in_turn(&turns, SOURCES).unwrap();
        in_turn(&turns[1..], SOURCES).unwrap();
        let mut one_more = turns.clone();
        one_more.extend(vec!["east".to_owned(); 2]);
        assert!(in_turn(&one_more, SOURCES).is_err());
        one_more[0] = "south".to_owned();
        assert!(in_turn(&one_more, SOURCES).is_err());
    }

    #[test]
    fn the_first_always_is_the_first_alone() {
        let mut always = drawn(|_| false);
        the_first_always(&always, "east").unwrap();
        assert!(the_first_always(&always, "north").is_err());
        assert!(the_first_always(&[], "east").is_err());
        always[7] = "north".to_owned();
        assert!(the_first_always(&always, "east").is_err());
    }
}
