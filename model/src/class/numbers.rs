//! A stable dense numbering.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use serde::{Deserialize, Serialize};

/// Numbers for keys: dense, stable, and given to another key only after an explicit release. Of
/// the released numbers the one that was released first is used first, so that what still carries
/// a number by mistake has the longest time to go away.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    into = "State<K>",
    try_from = "State<K>",
    bound(
        serialize = "K: Clone + Serialize",
        deserialize = "K: Clone + Eq + Hash + Deserialize<'de>"
    )
)]
pub struct Numbers<K> {
    by_key: HashMap<K, u32>,
    by_number: BTreeMap<u32, K>,
    /// Oldest release first.
    released: VecDeque<u32>,
    first: u32,
    /// The least number that was never given.
    next: u32,
}

/// All numbers are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "all numbers up to {} are in use; remove what is no longer needed",
    u32::MAX
)]
pub struct NumbersExhausted;

/// Why a numbering that was read back cannot be used; whoever reads it starts a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNumbers {
    /// A number is named twice.
    #[error("number {0} is given twice; remove the state file and start anew")]
    Twice(u32),
    /// A number lies outside of those that were given.
    #[error(
        "number {number} is not from {first} to below {next}; remove the state file and start anew"
    )]
    OutOfRange {
        /// The number.
        number: u32,
        /// The least one that can be given.
        first: u32,
        /// The least one that was never given.
        next: u32,
    },
    /// The numbering does not begin where it has to.
    #[error("numbers begin at {found} instead of {expected}; remove the state file and start anew")]
    First {
        /// Where it begins.
        found: u32,
        /// Where it has to begin.
        expected: u32,
    },
    /// Two numbers have the same key.
    #[error("numbers {0} and {1} mean the same; remove the state file and start anew")]
    SameKey(u32, u32),
}

impl<K: Clone + Eq + Hash> Numbers<K> {
    /// An empty numbering whose least number is `first`.
    pub fn starting_at(first: u32) -> Self {
        Self {
            by_key: HashMap::new(),
            by_number: BTreeMap::new(),
            released: VecDeque::new(),
            first,
            next: first,
        }
    }

    /// The number of `key`: the one that it has, or else a new one.
    pub fn assign(&mut self, key: &K) -> Result<u32, NumbersExhausted> {
        if let Some(number) = self.by_key.get(key) {
            return Ok(*number);
        }
        let number = match self.released.pop_front() {
            Some(number) => number,
            None => {
                let number = self.next;
                self.next = number.checked_add(1).ok_or(NumbersExhausted)?;
                number
            }
        };
        self.by_key.insert(key.clone(), number);
        self.by_number.insert(number, key.clone());
        Ok(number)
    }

    /// Gives up the number of `key`, which another key may get from now on.
    pub fn release<Q>(&mut self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let number = self.by_key.remove(key)?;
        self.by_number.remove(&number);
        self.released.push_back(number);
        Some(number)
    }

    /// Gives up a number, and says what it meant.
    pub fn release_number(&mut self, number: u32) -> Option<K> {
        let key = self.by_number.remove(&number)?;
        self.by_key.remove(&key);
        self.released.push_back(number);
        Some(key)
    }

    /// The number of `key`, if it has one.
    pub fn number<Q>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.by_key.get(key).copied()
    }

    /// What a number means, if it is in use.
    pub fn key(&self, number: u32) -> Option<&K> {
        self.by_number.get(&number)
    }

    /// All numbers in use with their keys, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &K)> + '_ {
        self.by_number.iter().map(|(number, key)| (*number, key))
    }

    /// Checks that a numbering that was read back begins at `expected`.
    pub fn expect_first(&self, expected: u32) -> Result<(), InvalidNumbers> {
        match self.first {
            found if found == expected => Ok(()),
            found => Err(InvalidNumbers::First { found, expected }),
        }
    }

    /// The least number that was never given: an upper bound for tables.
    pub fn bound(&self) -> u32 {
        self.next
    }
}

/// How a numbering is written down.
#[derive(Serialize, Deserialize)]
struct State<K> {
    first: u32,
    next: u32,
    used: Vec<(u32, K)>,
    released: VecDeque<u32>,
}

impl<K> From<Numbers<K>> for State<K> {
    fn from(numbers: Numbers<K>) -> Self {
        Self {
            first: numbers.first,
            next: numbers.next,
            used: numbers.by_number.into_iter().collect(),
            released: numbers.released,
        }
    }
}

impl<K: Clone + Eq + Hash> TryFrom<State<K>> for Numbers<K> {
    type Error = InvalidNumbers;

    fn try_from(state: State<K>) -> Result<Self, InvalidNumbers> {
        let State {
            first,
            next,
            used,
            released,
        } = state;
        let mut seen = HashSet::new();
        for number in used
            .iter()
            .map(|(number, _)| *number)
            .chain(released.iter().copied())
        {
            if !(first..next).contains(&number) {
                return Err(InvalidNumbers::OutOfRange {
                    number,
                    first,
                    next,
                });
            }
            if !seen.insert(number) {
                return Err(InvalidNumbers::Twice(number));
            }
        }
        let mut numbers = Self {
            first,
            next,
            released,
            ..Self::starting_at(first)
        };
        for (number, key) in used {
            if let Some(other) = numbers.by_key.insert(key.clone(), number) {
                return Err(InvalidNumbers::SameKey(other, number));
            }
            numbers.by_number.insert(number, key);
        }
        Ok(numbers)
    }
}
