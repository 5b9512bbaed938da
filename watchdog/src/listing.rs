//! The page that lists a directory.

use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One link per entry, sorted by name; directories have a slash at their end.
pub(crate) fn page(directory: &Path) -> io::Result<String> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let slash = if entry.path().is_dir() { "/" } else { "" };
        entries.push((entry.file_name(), slash));
    }
    entries.sort();
    let mut page = "<!doctype html>\n<meta charset=\"utf-8\">\n<pre>\n".to_owned();
    for (name, slash) in entries {
        let target = encoded(name.as_bytes());
        let shown = escaped(&name.to_string_lossy());
        // Writing to a String cannot fail.
        let _ = writeln!(page, "<a href=\"./{target}{slash}\">{shown}{slash}</a>");
    }
    page += "</pre>\n";
    Ok(page)
}

fn encoded(name: &[u8]) -> String {
    let mut out = String::new();
    for byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(*byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '"' => out += "&#34;",
            c => out.push(c),
        }
    }
    out
}
