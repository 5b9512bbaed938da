//! What may stand as the host of a request (RFC 9110 §7.2): a name or an address, perhaps with a port; pure.

/// Whether this names one host. Empty is allowed: HTTP/1.1 asks for the field, and some clients have nothing to say.
pub(crate) fn is_host(text: &[u8]) -> bool {
    if text.is_empty() {
        return true;
    }
    if text[0] == b'[' {
        let Some(end) = text.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
        return end > 1 && text[1..end].iter().all(is_part) && is_port(&text[end + 1..]);
    }
    let end = text
        .iter()
        .position(|byte| *byte == b':')
        .unwrap_or(text.len());
    let (host, port) = text.split_at(end);
    // Without the separators of lists, logins and paths, in which a second reader could find another host.
    let is_part = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            )
    };
    !host.is_empty() && host.iter().all(is_part) && is_port(port)
}

/// Nothing, or a colon and a port, which may be left out.
fn is_port(text: &[u8]) -> bool {
    match text.split_first() {
        None => true,
        Some((b':', [])) => true,
        Some((b':', digits)) => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits
                    .iter()
                    .fold(0_u32, |port, digit| port * 10 + u32::from(digit - b'0'))
                    <= 65_535
        }
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts_and_lists_and_logins_are_not() {
        for host in [
            "",
            "a",
            "a.example:80",
            "127.0.0.1:65535",
            "[::1]",
            "[::1]:8080",
            "a_b",
            "a:",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for none in [
            "a,b",
            "a b",
            "u@a",
            "a:b",
            "a:65536",
            "a:1:2",
            ":80",
            "[::1",
            "[]",
            "[::1]x",
            "a/b",
            "a?b",
            "a#b",
            "a:-1",
            "gr\u{fc}n",
        ] {
            assert!(!is_host(none.as_bytes()), "{none}");
        }
    }
}
