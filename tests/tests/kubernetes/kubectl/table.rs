//! The tables that `kubectl get` prints, without what is different in each run.

use anyhow::{Context, Result};

/// Columns that hold how long something was ago.
const AGES: [&str; 2] = ["AGE", "LAST SEEN"];

/// The table with every age replaced by one word.
pub(crate) fn without_ages(table: &str) -> Result<String> {
    let header = table.lines().next().context("kubectl printed nothing")?;
    let starts = starts(header);
    let mut rows: Vec<Vec<String>> = table.lines().map(|line| cells(line, &starts)).collect();
    for column in 0..starts.len() {
        if AGES.contains(&&*rows[0][column]) {
            for row in &mut rows[1..] {
                let known = !row[column].is_empty();
                row[column] = if known { "(age)" } else { "" }.to_owned();
            }
        }
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..starts.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    Ok(rows.iter().map(line).collect())
}

/// Where the columns begin: names in the header have single spaces in them, at least three between them.
fn starts(header: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut blanks = 0;
    for (position, letter) in header.chars().enumerate() {
        if letter == ' ' {
            blanks += 1;
            continue;
        }
        if blanks >= 3 {
            starts.push(position);
        }
        blanks = 0;
    }
    starts
}

fn cells(line: &str, starts: &[usize]) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    let ends = starts.iter().skip(1).copied().chain([letters.len()]);
    let cell = |(start, end): (&usize, usize)| {
        let start = (*start).min(letters.len());
        let part = &letters[start..end.clamp(start, letters.len())];
        part.iter().collect::<String>().trim_end().to_owned()
    };
    starts.iter().zip(ends).map(cell).collect()
}

#[test]
fn ages_are_replaced_and_columns_stay_in_line() -> Result<()> {
    let table = "NAME   AGE     LAST SEEN   MESSAGE\na      5m12s               is x   y\nbbbb   3s      6y          no\n";
    let expected = "NAME   AGE     LAST SEEN   MESSAGE\na      (age)               is x   y\nbbbb   (age)   (age)       no\n";
    assert_eq!(without_ages(table)?, expected);
    Ok(())
}
