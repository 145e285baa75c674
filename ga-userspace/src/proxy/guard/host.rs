//! `Host` and the authority of a target (RFC 9110 §7.2).

/// Whether it is `name`, `address` or `[address]`, each with or without `:port`. No user, no path, no list.
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = split(host);
    let good = match name {
        [b'[', inner @ .., b']'] => !inner.is_empty() && inner.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')),
        name => !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')),
    };
    let port_is_good =
        |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && number(port) <= u32::from(u16::MAX);
    good && port.is_none_or(port_is_good)
}

/// Whether both name the same place, `default_port` being that of one that names none.
pub(super) fn same(a: &[u8], b: &[u8], default_port: u32) -> bool {
    let ((a, a_port), (b, b_port)) = (split(a), split(b));
    let port = |port: Option<&[u8]>| port.filter(|port| !port.is_empty()).map_or(default_port, number);
    a.eq_ignore_ascii_case(b) && port(a_port) == port(b_port)
}

/// `host` without its port.
pub(super) fn name(host: &[u8]) -> &[u8] {
    split(host).0
}

/// The name, and what stands behind the last colon that is not inside of brackets.
fn split(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    match host.iter().rposition(|b| *b == b':') {
        Some(colon) if !host[colon..].contains(&b']') => (&host[..colon], Some(&host[colon + 1..])),
        _ => (host, None),
    }
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0_u32, |sum, digit| sum.saturating_mul(10).saturating_add(u32::from(digit.wrapping_sub(b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_with_or_without_a_port() {
        for host in ["a", "a.example", "A.Example.:80", "a_b.example", "192.0.2.1:65535", "[2001:db8::1]", "[::1]:8080", "a:"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        let bad = [
            "", ":80", "a b", "a,b", "a/b", "a?b", "a#b", "u@a", "a:b", "a:80:80", "a:65536", "a:-1", "[]", "[::1", "::1",
            "[::1]x", "[g]", "a%41", "a\\b", "ä", "a\0", "*.a",
        ];
        for host in bad {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn a_default_port_makes_no_difference() {
        assert!(same(b"A.example:80", b"a.EXAMPLE", 80));
        assert!(same(b"a.example:", b"a.example:443", 443));
        assert!(same(b"[::1]:0080", b"[::1]", 80));
        assert!(!same(b"a.example:81", b"a.example", 80));
        assert!(!same(b"a.example", b"b.example", 80));
    }
}
