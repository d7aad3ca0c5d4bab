//! What a certificate is issued for: how long, and with which kind of key.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::ValueEnum;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

/// How long before now certificates begin, so that a peer whose clock is behind accepts them.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const DAY: u64 = 24 * 3600;
/// The longest validity that makes sense, and that X.509 dates of this century can express.
const MAX_DAYS: u64 = 36_500;

/// How long a certificate is valid, counted from now: `365d`, `8760h`, `30m` or `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity(Duration);

impl Validity {
    /// So many days.
    pub const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * DAY))
    }

    /// From when, and until when, a certificate issued now is valid.
    pub(super) fn period(self) -> (SystemTime, SystemTime) {
        let now = SystemTime::now();
        (now - CLOCK_SKEW, now + self.0)
    }
}

impl FromStr for Validity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no validity: write a whole number with one of the units d, h, m, s, \
                 from 1s to {MAX_DAYS}d, such as 365d or 8760h"
            )
        };
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            'd' => DAY,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let digits = &text[..text.len() - unit.len_utf8()];
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let total = digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(seconds));
        match total {
            Some(total) if (1..=MAX_DAYS * DAY).contains(&total) => {
                Ok(Self(Duration::from_secs(total)))
            }
            Some(_) | None => Err(wrong()),
        }
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            _ if seconds.is_multiple_of(DAY) => write!(f, "{}d", seconds / DAY),
            _ if seconds.is_multiple_of(3600) => write!(f, "{}h", seconds / 3600),
            _ if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            _ => write!(f, "{seconds}s"),
        }
    }
}

/// Which kind of key a peer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyType {
    /// ECDSA with the curve P-256, understood everywhere.
    EcdsaP256,
    /// Ed25519: smaller and faster, unknown to some older tools.
    Ed25519,
}

impl KeyType {
    /// A fresh key.
    pub(super) fn generate(self) -> anyhow::Result<KeyPair> {
        let algorithm = match self {
            Self::EcdsaP256 => &PKCS_ECDSA_P256_SHA256,
            Self::Ed25519 => &PKCS_ED25519,
        };
        KeyPair::generate_for(algorithm).context("cannot generate a private key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_validity_reads_back_as_it_is_written() {
        for (text, seconds) in [
            ("365d", 365 * DAY),
            ("8761h", 8761 * 3600),
            ("30m", 1800),
            ("90s", 90),
        ] {
            let validity: Validity = text.parse().unwrap();
            assert_eq!(validity.0.as_secs(), seconds, "{text}");
            let again: Validity = validity.to_string().parse().unwrap();
            assert_eq!(again, validity, "{text}");
        }
    }

    #[test]
    fn a_wrong_validity_is_refused_with_an_example() {
        for text in [
            "",
            "d",
            "0d",
            "365",
            "-1d",
            "+1d",
            "1.5d",
            "1y",
            "36501d",
            "99999999999999999999d",
            "1 d",
            "1ä",
        ] {
            let error = text.parse::<Validity>().unwrap_err();
            assert!(error.contains("365d"), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_certificate_begins_an_hour_ago() {
        let (from, until) = Validity::days(1).period();
        let total = until.duration_since(from).unwrap();
        assert_eq!(total, Duration::from_secs(DAY + 3600));
    }
}
