//! C strings in one buffer: an environment, or arguments.

/// Strings, each closed by a NUL byte.
#[derive(Debug, Default, Clone)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Strings {
    /// The strings as they stand in memory, each followed by its NUL byte.
    pub(crate) fn pointers(&self) -> impl Iterator<Item = &[u8]> {
        self.starts.iter().map(|start| &self.bytes[*start..])
    }

    /// The strings without their NUL bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self
            .starts
            .iter()
            .skip(1)
            .copied()
            .chain([self.bytes.len()]);
        self.starts
            .iter()
            .zip(ends)
            .map(|(start, end)| &self.bytes[*start..end - 1])
    }

    /// Adds one string, which is the joined parts; none of them may contain a NUL byte.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        self.starts.push(self.bytes.len());
        parts
            .iter()
            .for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.push(0);
    }

    /// Adds all of `others`.
    pub(crate) fn append(&mut self, others: &Self) {
        let offset = self.bytes.len();
        self.starts
            .extend(others.starts.iter().map(|start| start + offset));
        self.bytes.extend_from_slice(&others.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_closed_joined_and_appended() {
        let (mut some, mut more) = (Strings::default(), Strings::default());
        some.push(&[b"A=", b"1"]);
        some.push(&[]);
        more.push(&[b"B"]);
        some.append(&more);
        assert_eq!(some.iter().collect::<Vec<_>>(), [&b"A=1"[..], b"", b"B"]);
        let closed: Vec<_> = some.pointers().map(<[u8]>::len).collect();
        assert_eq!(closed, [7, 3, 2]);
    }
}
