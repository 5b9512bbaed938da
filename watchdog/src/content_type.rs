//! The content type of an answer; pure.

use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};

/// How much of an output is looked at.
const SNIFFED: usize = 512;

/// Kinds of data that no browser runs, but for the subtypes that hold scripts.
const INERT_KINDS: [&str; 5] = ["text", "image", "audio", "video", "font"];

/// The same among applications, besides JSON. A browser shows a PDF in a sandbox.
const INERT: [&str; 9] = [
    "gzip",
    "octet-stream",
    "pdf",
    "vnd.rar",
    "x-7z-compressed",
    "x-gzip",
    "x-tar",
    "zip",
    "zstd",
];

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The configured type, else a harmless one of the request, else what the output looks like.
pub(crate) fn choose(
    configured: Option<&HeaderValue>,
    request: &HeaderMap,
    output: &[u8],
) -> HeaderValue {
    if let Some(configured) = configured {
        return configured.clone();
    }
    let mut sent = request.get_all(CONTENT_TYPE).iter();
    match (sent.next(), sent.next()) {
        (Some(one), None) if is_echoed(one) => one.clone(),
        _ => sniff(output),
    }
}

/// Text or bytes: never a type that a browser would run.
fn sniff(output: &[u8]) -> HeaderValue {
    let head = &output[..output.len().min(SNIFFED)];
    // A character that the cut or the end of what is there splits does not make bytes of a text.
    let is_utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if is_utf8 && !head.iter().any(is_control) {
        TEXT
    } else {
        BYTES
    }
}

/// Whether the request's type may become the answer's. The caller chooses it, perhaps from a foreign page, so that
/// only inert data passes: text, JSON, images, sound, fonts, PDF and archives, nothing that can hold a script, and no list of types.
fn is_echoed(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let essence = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else {
        return false;
    };
    let is_token = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'-' | b'.' | b'_');
    let is_active = ["html", "xml", "svg", "script", "xsl"]
        .iter()
        .any(|word| subtype.contains(word));
    let is_json = kind == "application" && (subtype == "json" || subtype.ends_with("+json"));
    !text.contains(',')
        && !subtype.is_empty()
        && subtype.bytes().all(is_token)
        && !is_active
        && (INERT_KINDS.contains(&kind)
            || is_json
            || kind == "application" && INERT.contains(&subtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(request: &[&'static str], output: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        for value in request {
            headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
        }
        choose(None, &headers, output).to_str().unwrap().to_owned()
    }

    #[test]
    fn the_configured_type_wins() {
        let configured = HeaderValue::from_static("image/png");
        assert_eq!(
            choose(Some(&configured), &HeaderMap::new(), b"x"),
            configured
        );
    }

    #[test]
    fn types_of_inert_data_are_echoed() {
        for value in [
            "text/plain",
            "text/csv; charset=x",
            "application/json",
            "application/ld+json",
            "TEXT/Markdown",
            "image/png",
            "application/pdf",
            "application/zip",
            "application/octet-stream",
            "audio/mpeg",
            "font/woff2",
        ] {
            assert_eq!(chosen(&[value], b"\0"), value);
        }
    }

    #[test]
    fn active_and_odd_types_are_not_echoed() {
        for value in [
            "text/html",
            "text/HTML; charset=utf-8",
            "application/xhtml+xml",
            "image/svg+xml",
            "text/xml",
            "application/xml",
            "text/javascript",
            "text/plain, text/html",
            "text/plain; a=b, text/html",
            "text/",
            "text",
            "application/x-www-form-urlencoded",
            "application/x-shockwave-flash",
            "message/http",
            "application/x-json-html+json",
        ] {
            assert_eq!(
                chosen(&[value], b"hi"),
                "text/plain; charset=utf-8",
                "{value}"
            );
        }
        assert_eq!(
            chosen(&["text/csv", "text/plain"], b"hi"),
            "text/plain; charset=utf-8"
        );
    }

    #[test]
    fn output_is_text_or_bytes_never_html() {
        assert_eq!(chosen(&[], b"<html><script>"), "text/plain; charset=utf-8");
        assert_eq!(chosen(&[], b""), "text/plain; charset=utf-8");
        assert_eq!(
            chosen(&[], "gr\u{fc}n".as_bytes()),
            "text/plain; charset=utf-8"
        );
        assert_eq!(
            chosen(&[], b"\x89PNG\r\n\x1a\n"),
            "application/octet-stream"
        );
        assert_eq!(chosen(&[], b"gr\xfcn"), "application/octet-stream");
        let split = [vec![b'a'; SNIFFED - 1], "\u{fc}".as_bytes().to_vec()].concat();
        assert_eq!(chosen(&[], &split), "text/plain; charset=utf-8");
    }
}
