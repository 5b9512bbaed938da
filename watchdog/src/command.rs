//! The command of `fprocess`: how its line becomes arguments, and where its program lies.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::strings::Strings;

/// Splits a command line: at every single space, or like a shell would if it has quotes.
pub(crate) fn split(line: &str) -> Result<Vec<String>, String> {
    if line.contains('\0') {
        return Err("contains a NUL byte".to_owned());
    }
    let words = if line.contains(['\'', '"']) {
        split_quoted(line)?
    } else {
        line.split(' ').map(str::to_owned).collect()
    };
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("begins with a space, so that it names no program; remove the space".to_owned()),
    }
}

/// The quoting of a shell, without its expansions: `'…'` is literal, `\` escapes outside and inside `"…"`.
fn split_quoted(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None, ' ' | '\t' | '\n') => words.extend(word.take()),
            // The line goes on; inside of quotes, too.
            (None | Some('"'), '\\') if chars.as_str().starts_with('\n') => drop(chars.next()),
            (None, '\\') => word
                .get_or_insert_default()
                .push(chars.next().unwrap_or('\\')),
            (Some('"'), '\\') => {
                let escaped = chars.as_str().chars().next();
                let escaped = escaped.filter(|next| matches!(next, '"' | '\\' | '$' | '`'));
                if escaped.is_some() {
                    chars.next();
                }
                word.get_or_insert_default().push(escaped.unwrap_or('\\'));
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("has a {open} that is never closed; close it"));
    }
    words.extend(word);
    Ok(words)
}

/// A command ready to be started: its arguments and, once found, its path.
#[derive(Debug)]
pub(crate) struct Command {
    name: String,
    arguments: Strings,
    path: OnceLock<CString>,
    search: Vec<PathBuf>,
}

impl Command {
    /// Takes the words of `split` and the value of `PATH`.
    pub(crate) fn new(words: &[String], path: Option<&OsStr>) -> Self {
        // `split` has refused NUL bytes.
        let mut arguments = Strings::default();
        for word in words {
            arguments.push(&[word.as_bytes()]);
        }
        let search = path.map_or_else(
            || vec![PathBuf::from("/bin"), PathBuf::from("/usr/bin")],
            |path| std::env::split_paths(path).collect(),
        );
        Self {
            name: words.first().cloned().unwrap_or_default(),
            arguments,
            path: OnceLock::new(),
            search,
        }
    }

    /// The program as the command line names it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The arguments, the program's name first.
    pub(crate) fn arguments(&self) -> &Strings {
        &self.arguments
    }

    /// The program's path, looked up before anything is started: a child between clone and exec may not allocate.
    pub(crate) fn path(&self) -> io::Result<&CString> {
        if let Some(path) = self.path.get() {
            return Ok(path);
        }
        let found = self.find()?;
        Ok(self.path.get_or_init(|| found))
    }

    fn find(&self) -> io::Result<CString> {
        let as_path =
            |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
        if self.name.contains('/') {
            return as_path(Path::new(&self.name));
        }
        let mut denied = false;
        for directory in &self.search {
            let candidate = directory.join(&self.name);
            match std::fs::metadata(&candidate) {
                Ok(file) if file.is_file() && file.permissions().mode() & 0o111 != 0 => {
                    return as_path(&candidate);
                }
                Ok(file) if file.is_file() => denied = true,
                _ => {}
            }
        }
        Err(if denied {
            io::Error::new(
                io::ErrorKind::PermissionDenied,
                "file found in PATH but not executable; chmod +x it",
            )
        } else {
            io::Error::new(
                io::ErrorKind::NotFound,
                "executable file not found in PATH; install it or give its full path",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap()
    }

    #[test]
    fn without_quotes_every_single_space_separates() {
        assert_eq!(words("cat"), ["cat"]);
        assert_eq!(words("wc -c"), ["wc", "-c"]);
        assert_eq!(words("a  b "), ["a", "", "b", ""]);
        assert_eq!(words(r"a \n"), ["a", r"\n"]);
    }

    #[test]
    fn with_quotes_it_splits_like_a_shell() {
        assert_eq!(
            words(r#"sh -c 'echo "hi"; exit 3'"#),
            ["sh", "-c", r#"echo "hi"; exit 3"#]
        );
        assert_eq!(words(r#"a  "b c"d ''"#), ["a", "b cd", ""]);
        assert_eq!(words(r#"a "x\"y\z" q\ r"#), ["a", r#"x"y\z"#, "q r"]);
        assert_eq!(words("'my program' x"), ["my program", "x"]);
        assert_eq!(words("a \\\n\"b\\\nc\" '\\\n'"), ["a", "bc", "\\\n"]);
    }

    #[test]
    fn a_line_without_a_program_is_refused() {
        assert!(split("").is_err());
        assert!(split(" cat").is_err());
        assert!(split("sh -c 'oops").unwrap_err().contains("never closed"));
    }

    #[test]
    fn a_program_is_found_in_path_and_named_when_missing() {
        let found = Command::new(&words("sh -c true"), Some(OsStr::new("/nonexistent:/bin")));
        assert_eq!(found.path().unwrap().to_str().unwrap(), "/bin/sh");
        let missing = Command::new(&words("nosuchprogram"), Some(OsStr::new("/bin")));
        assert_eq!(missing.path().unwrap_err().kind(), io::ErrorKind::NotFound);
        let full = Command::new(&words("./here"), None);
        assert_eq!(full.path().unwrap().to_str().unwrap(), "./here");
    }
}
