//! The syntax of names, labels and hosts, as the Kubernetes API server checks it.

use std::net::IpAddr;

/// Whether `text` is a DNS label that starts with a letter: the name of a Service.
pub(crate) fn is_service_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.ends_with('-')
}

/// Whether `text` is a DNS label: the name of a namespace.
pub(crate) fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether `text` is a DNS subdomain in lower case: the name of most objects.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// Whether `text` can be dialled: an IP address, or a DNS name of any case.
pub(crate) fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || {
        let text = text.strip_suffix('.').unwrap_or(text);
        // Underscores are no part of host names, but ExternalName targets do use them.
        text.len() <= 253
            && text.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
    }
}

/// Whether `text` is a label key: a name, or a DNS subdomain, `/` and a name.
pub(crate) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_name(name),
        None => is_label_name(text),
    }
}

/// Whether `text` is a label value.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

fn is_label_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names() {
        for good in ["a", "web-1", &"x".repeat(63)] {
            assert!(is_service_name(good), "{good}");
        }
        for bad in [
            "",
            "1web",
            "-web",
            "web-",
            "Web",
            "we.b",
            "wëb",
            &"x".repeat(64),
        ] {
            assert!(!is_service_name(bad), "{bad}");
        }
    }

    #[test]
    fn hosts() {
        for good in [
            "10.0.0.1",
            "fd00::1",
            "Peer.example.com",
            "a",
            "a.example.",
            "_srv.example",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", ".", "a..b", "a b", "http://a", "[fd00::1]", "a:1", "-a"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn label_keys_and_values() {
        for good in ["app", "app.kubernetes.io/name", "A_b.c-1"] {
            assert!(is_label_key(good), "{good}");
        }
        for bad in [
            "",
            "/name",
            "a/",
            "a/b/c",
            "A/b",
            "-a",
            "a b",
            &"x".repeat(64),
        ] {
            assert!(!is_label_key(bad), "{bad}");
        }
        for good in ["", "web", "v1.2_3-x"] {
            assert!(is_label_value(good), "{good}");
        }
        for bad in ["-", "a b", "a/b", &"x".repeat(64)] {
            assert!(!is_label_value(bad), "{bad}");
        }
    }

    #[test]
    fn dns_subdomains() {
        for good in ["a", "1a.b-c", "default"] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", "A", "a_b", "a.", &"a.".repeat(127)] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
    }
}
