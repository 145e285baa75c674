//! Which bytes may stand where.

/// `tchar` of RFC 9110 §5.6.2: methods, names of fields, words of lists.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

/// Targets: what RFC 3986 has in paths and queries, and `{`, `|` and `}`, which clients leave unencoded.
const TARGET: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = !matches!(byte as u8, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`');
        byte += 1;
    }
    table
};

pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

pub(super) fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|byte| is_token_byte(*byte))
}

pub(super) fn is_target(target: &[u8]) -> bool {
    target.iter().all(|byte| TARGET[usize::from(*byte)])
}

/// `field-vchar`, spaces and tabs of RFC 9110 §5.5.
pub(super) const fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

/// Whether all bytes are [values'](is_value_byte). Looks at all of them, many at a time.
pub(super) fn is_value(value: &[u8]) -> bool {
    value.iter().fold(true, |good, byte| good & is_value_byte(*byte))
}

/// Without spaces and tabs at both ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_a_target_here_is_one_for_hyper() {
        for byte in 0..=255_u8 {
            for target in [vec![b'/', byte, b'a'], vec![b'/', b'?', byte, b'a']] {
                assert!(!is_target(&target) || http::Uri::try_from(&*target).is_ok(), "{byte:#x}");
            }
        }
    }

    #[test]
    fn whatever_is_a_token_or_a_value_here_is_one_for_hyper() {
        for byte in 0..=255_u8 {
            assert_eq!(is_token(&[b'a', byte]), http::HeaderName::try_from(&[b'a', byte][..]).is_ok(), "{byte:#x}");
            assert_eq!(is_value(&[byte]), http::HeaderValue::try_from(&[byte][..]).is_ok(), "{byte:#x}");
        }
    }

    #[test]
    fn only_spaces_and_tabs_are_trimmed() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b"\x0ba\x0c"), b"\x0ba\x0c");
        assert_eq!(trim(b" \t"), b"");
    }
}
