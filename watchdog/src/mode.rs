//! The ways to answer a request, and in what each differs from the classic one.

use hyper::StatusCode;

/// The most that a run may write in `mode=serializing`: all of it is held, for each call at the same time.
pub(crate) const LARGEST_SERIALIZED: usize = 16 * 1024 * 1024;

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One process per request; small answers have an exact status.
    Classic,
    /// One process per request; the answer begins with the first byte of output.
    Streaming,
    /// One process per request; the answer begins when the run is over, however long it is.
    Serializing,
    /// One long-lived process with a server of its own, to which requests are passed on.
    Http,
    /// No process: files.
    Static,
}

impl Mode {
    /// The modes as the variable names them.
    const NAMES: [(&'static str, Self); 5] = [
        ("classic", Self::Classic),
        ("streaming", Self::Streaming),
        ("serializing", Self::Serializing),
        ("http", Self::Http),
        ("static", Self::Static),
    ];

    /// Reads the variable.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (_, mode) = Self::NAMES.iter().find(|(name, _)| *name == text)?;
        Some(*mode)
    }

    /// All names, for the sentence that refuses another one.
    pub(crate) fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(_, mode)| *mode == self);
        found.map_or("unknown", |(name, _)| name)
    }

    /// Whether each request has a process of its own.
    pub(crate) fn has_runs(self) -> bool {
        matches!(self, Self::Classic | Self::Streaming | Self::Serializing)
    }

    /// Bytes of output that are held back before the answer begins.
    pub(crate) fn held_output(self, response_buffer: usize) -> usize {
        match self {
            Self::Classic => response_buffer,
            Self::Streaming | Self::Http | Self::Static => 0,
            Self::Serializing => LARGEST_SERIALIZED,
        }
    }

    /// The status of a run that `exec_timeout` has ended.
    pub(crate) fn slow_run(self) -> StatusCode {
        match self {
            Self::Classic => StatusCode::REQUEST_TIMEOUT,
            Self::Serializing => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Streaming | Self::Http | Self::Static => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_its_mode() {
        for (name, mode) in Mode::NAMES {
            assert_eq!((Mode::parse(name), mode.name()), (Some(mode), name));
        }
        assert_eq!(Mode::parse("afterburn"), None);
    }
}
