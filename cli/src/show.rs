//! Tables and small texts for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};

/// A table without lines.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(header.iter().copied());
    table
}

/// Prints a titled table; an empty one is left out.
pub(crate) fn print(title: &str, table: &Table) {
    if table.row_count() > 0 {
        println!("{title}");
        for line in table.lines() {
            println!("  {}", line.trim_end());
        }
        println!();
    }
}

/// How long ago, such as `3m`.
pub(crate) fn ago(milliseconds: u64) -> String {
    let then = UNIX_EPOCH + Duration::from_millis(milliseconds);
    short(SystemTime::now().duration_since(then).unwrap_or_default())
}

/// A duration in its largest unit.
pub(crate) fn short(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{}ms", duration.as_millis()),
        seconds @ 1..=119 => format!("{seconds}s"),
        seconds @ 120..=7_199 => format!("{}m", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// Bytes in binary units.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B" && value < 10.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// A missing value.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_short() {
        assert_eq!(short(Duration::from_millis(20)), "20ms");
        assert_eq!(short(Duration::from_secs(600)), "10m");
        assert_eq!(short(Duration::from_secs(86_400 * 3)), "3d");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }
}
