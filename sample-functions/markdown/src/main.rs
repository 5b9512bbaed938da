//! Renders Markdown from stdin as HTML on stdout.
//!
//! The caller wrote the input and somebody's browser may show the output, so nothing of the input becomes markup but
//! what Markdown itself stands for: raw HTML is shown as text, and links lead only to web pages and mail addresses.

use std::io::{self, Read, Write};

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, html};

/// A limit of our own: the whole document is held in memory.
const MAX_INPUT: u64 = 4 << 20;

fn main() -> io::Result<()> {
    let mut input = Vec::new();
    io::stdin().take(MAX_INPUT + 1).read_to_end(&mut input)?;
    if input.len() as u64 > MAX_INPUT {
        eprintln!("markdown: the document is larger than {MAX_INPUT} bytes");
        std::process::exit(1);
    }
    io::stdout().write_all(render(&String::from_utf8_lossy(&input)).as_bytes())
}

/// Markdown to HTML that is safe to show, whoever wrote the Markdown.
fn render(markdown: &str) -> String {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut output = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut output, Parser::new_ext(markdown, options).map(disarm));
    output
}

/// Turns what could carry markup or script into text.
fn disarm(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Html(raw) | Event::InlineHtml(raw) => Event::Text(raw),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: harmless(dest_url),
            title,
            id,
        }),
        Event::Start(Tag::Image {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Image {
            link_type,
            dest_url: harmless(dest_url),
            title,
            id,
        }),
        other => other,
    }
}

/// Keeps an address with a scheme known to be harmless or with none; `javascript:` and its like become `#`.
fn harmless(url: CowStr<'_>) -> CowStr<'_> {
    // A scheme ends at the first colon and has none of these before it. Browsers skip blanks and control characters in
    // front of and inside it, so whatever else stands there counts as part of an unknown scheme.
    let scheme = match url.find([':', '/', '?', '#']) {
        Some(end) if url[end..].starts_with(':') => &url[..end],
        _ => return url,
    };
    if ["http", "https", "mailto"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        url
    } else {
        "#".into()
    }
}

#[cfg(test)]
mod tests {
    use super::render;

    #[test]
    fn markdown_becomes_html() {
        assert_eq!(
            render("# Hi\n\n*you*"),
            "<h1>Hi</h1>\n<p><em>you</em></p>\n"
        );
    }

    #[test]
    fn raw_html_is_shown_as_text() {
        for attack in [
            "<script>alert(1)</script>",
            "a <img src=x onerror=alert(1)> b",
            "<div\nonclick=x>",
        ] {
            let html = render(attack);
            assert!(
                !html.contains("<script") && !html.contains("<img") && !html.contains("<div"),
                "{html}"
            );
        }
    }

    #[test]
    fn links_to_scripts_lead_nowhere() {
        for attack in [
            "[x](javascript:alert(1))",
            "[x](JavaScript:alert(1))",
            "[x](<\tjavascript:alert(1)>)",
            "[x](java&#x09;script:alert(1))",
            "![x](data:text/html;base64,PHNjcmlwdD4=)",
            "<javascript:alert(1)>",
        ] {
            let html = render(attack);
            assert!(html.contains("\"#\""), "{attack}: {html}");
        }
    }

    #[test]
    fn links_to_pages_are_kept() {
        for url in [
            "https://example.org/a:b",
            "HTTP://example.org",
            "mailto:a@example.org",
            "/a:b",
            "a/b",
            "#top",
            "?q=a:b",
        ] {
            let html = render(&format!("[x]({url})"));
            assert!(html.contains(&format!("href=\"{url}\"")), "{url}: {html}");
        }
    }
}
