//! Where one WebSocket frame ends and the next begins (RFC 6455 §5.2), as far as it takes to say goodbye between two. Pure.

/// What a gateway says that has to end a conversation: "going away" (RFC 6455 §7.4.1).
const GOING_AWAY: u16 = 1001;
const OPCODE: u8 = 0x0f;
const CLOSE: u8 = 0x8;
const LAST_FRAGMENT: u8 = 0x80;
const MASKED: u8 = 0x80;
/// The longest head of a frame: two bytes, eight of length, four of mask.
const LONGEST_HEAD: usize = 14;

/// Follows the frames of one direction by the bytes that have passed.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; LONGEST_HEAD],
    head_len: usize,
    /// What of the frame's payload is still to come.
    payload: u64,
    said_goodbye: bool,
}

impl Frames {
    /// These bytes have passed.
    pub(super) fn passed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// How many of these bytes belong to the frame that has begun; none at a boundary.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut ahead = Self {
            head: self.head,
            ..*self
        };
        let mut passed = 0;
        while !ahead.is_between_frames() && passed < bytes.len() {
            passed += ahead.step(&bytes[passed..]);
        }
        passed
    }

    /// Whether a frame of our own could stand here.
    pub(super) fn is_between_frames(&self) -> bool {
        self.head_len == 0 && self.payload == 0
    }

    /// Whether a close frame has gone by: then there is nothing to add.
    pub(super) fn said_goodbye(&self) -> bool {
        self.said_goodbye
    }

    /// Takes the bytes of one piece, of a head or of a payload, and says how many they are.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.payload > 0 {
            let passed = usize::try_from(self.payload).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.payload -= passed as u64;
            return passed;
        }
        self.head[self.head_len] = bytes[0];
        self.head_len += 1;
        if self.head_len >= 2 && self.head_len == self.length_of_head() {
            self.said_goodbye |= self.head[0] & OPCODE == CLOSE;
            self.payload = self.length_of_payload();
            self.head_len = 0;
        }
        1
    }

    fn length_of_head(&self) -> usize {
        let mask = if self.head[1] & MASKED == 0 { 0 } else { 4 };
        2 + self.bytes_of_length() + mask
    }

    /// How many bytes after the first two tell the length.
    fn bytes_of_length(&self) -> usize {
        match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn length_of_payload(&self) -> u64 {
        match self.bytes_of_length() {
            0 => u64::from(self.head[1] & !MASKED),
            bytes => {
                let digits = self.head[2..2 + bytes].iter();
                digits.fold(0, |length, byte| length << 8 | u64::from(*byte))
            }
        }
    }
}

/// A close frame that says why. A client's frames are masked, so the one that we send in its stead is, too.
pub(super) fn going_away(reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = GOING_AWAY.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    debug_assert!(payload.len() <= 125, "a control frame is short");
    let mut frame = vec![
        LAST_FRAGMENT | CLOSE,
        u8::try_from(payload.len()).unwrap_or_default(),
    ];
    if let Some(mask) = mask {
        frame[1] |= MASKED;
        frame.extend(mask);
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, length: usize, mask: bool) -> Vec<u8> {
        let bit = if mask { MASKED } else { 0 };
        let mut bytes = vec![LAST_FRAGMENT | opcode];
        match length {
            0..126 => bytes.push(bit | length as u8),
            126..=0xffff => {
                bytes.push(bit | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(bit | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(7, if mask { 4 } else { 0 }));
        // Payloads full of what would be the head of a close frame.
        bytes.extend(std::iter::repeat_n(0x88, length));
        bytes
    }

    #[test]
    fn boundaries_are_found_whatever_the_pieces() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 5];
        let frames: Vec<_> = lengths
            .iter()
            .flat_map(|length| [frame(1, *length, true), frame(2, *length, false)])
            .collect();
        let all = frames.concat();
        let ends: Vec<_> = frames
            .iter()
            .scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            })
            .collect();
        for piece in [1, 2, 3, 7, 100, 8192, all.len()] {
            let mut tracked = Frames::default();
            let mut at = 0;
            for bytes in all.chunks(piece) {
                tracked.passed(bytes);
                at += bytes.len();
                assert_eq!(tracked.is_between_frames(), ends.contains(&at), "at {at}");
                let next = ends.iter().find(|end| **end >= at).unwrap_or(&at);
                assert_eq!(tracked.rest_of_frame(&all[at..]), next - at, "at {at}");
            }
            assert!(!tracked.said_goodbye(), "payloads are not frames");
        }
    }

    #[test]
    fn the_rest_of_a_frame_ends_with_what_there_is() {
        let mut tracked = Frames::default();
        let whole = frame(1, 300, true);
        assert_eq!(tracked.rest_of_frame(&whole), 0, "none has begun");
        tracked.passed(&whole[..3]);
        assert_eq!(tracked.rest_of_frame(&whole[3..10]), 7);
    }

    #[test]
    fn a_goodbye_is_seen_and_ours_is_one() {
        for frame in [
            frame(CLOSE, 2, true),
            going_away("why", None),
            going_away("why", Some([1, 2, 3, 4])),
        ] {
            let mut tracked = Frames::default();
            tracked.passed(&frame);
            assert!(tracked.said_goodbye() && tracked.is_between_frames());
        }
        assert_eq!(going_away("x", None), [0x88, 3, 0x03, 0xe9, b'x']);
        let masked = going_away("x", Some([1, 2, 3, 4]));
        assert_eq!(masked, [0x88, 0x83, 1, 2, 3, 4, 0x02, 0xeb, b'x' ^ 3]);
    }
}
