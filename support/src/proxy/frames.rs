//! Cuts a stream of Postgres messages into messages, wherever the reads cut it.

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes still to come of a message without a tag.
    untagged: usize,
    /// The tag and the length of the current message, as far as they have come.
    head: Vec<u8>,
    /// Bytes still to come of its body.
    left: usize,
    body: Vec<u8>,
}

/// A message that has come to its end.
pub(super) struct Frame<'a> {
    pub(super) tag: u8,
    /// The body, or the beginning of one that does not matter to us as a whole.
    pub(super) body: &'a [u8],
    /// Its length on the wire.
    pub(super) length: usize,
    /// Where it ends in the bytes that were read last.
    pub(super) end: usize,
}

/// The head is a tag and the length of all that follows the tag.
const HEAD: usize = 5;

impl Frames {
    /// A stream that begins with `untagged` bytes of start-up.
    pub(super) fn after(untagged: usize) -> Self {
        Frames { untagged, ..Frames::default() }
    }

    pub(super) fn read(&mut self, bytes: &[u8], mut each: impl FnMut(Frame<'_>)) {
        let mut at = self.untagged.min(bytes.len());
        self.untagged -= at;

        while at < bytes.len() {
            if self.head.len() < HEAD {
                self.head.push(bytes[at]);
                at += 1;
                if self.head.len() < HEAD {
                    continue;
                }
                self.left = self.length() - HEAD;
            }
            let taken = self.left.min(bytes.len() - at);
            let kept = taken.min(kept(self.head[0]).saturating_sub(self.body.len()));
            self.body.extend_from_slice(&bytes[at..at + kept]);
            self.left -= taken;
            at += taken;

            if self.left == 0 {
                each(Frame { tag: self.head[0], body: &self.body, length: self.length(), end: at });
                self.head.clear();
                self.body.clear();
            }
        }
    }

    fn length(&self) -> usize {
        let length = self.head[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        length.max(4) + 1
    }
}

/// How much of a message's body is worth keeping.
fn kept(tag: u8) -> usize {
    match tag {
        // Parse, Query: SQL.
        b'P' | b'Q' => usize::MAX,
        // Bind, Close, Execute: names come first.
        b'B' | b'C' | b'E' => 256,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_the_same_wherever_the_reads_cut_them() {
        let stream = b"startQ\0\0\0\x0dSELECT 1\0S\0\0\0\x04d\0\0\0\x07abcX\0\0\0\x04";
        let expected = vec![
            (b'Q', b"SELECT 1\0".to_vec(), 14),
            (b'S', Vec::new(), 5),
            (b'd', Vec::new(), 8),
            (b'X', Vec::new(), 5),
        ];

        for size in 1..=stream.len() {
            let mut frames = Frames::after(5);
            let mut seen = Vec::new();
            for chunk in stream.chunks(size) {
                frames.read(chunk, |frame| seen.push((frame.tag, frame.body.to_vec(), frame.length)));
            }
            assert_eq!(seen, expected, "in reads of {size} bytes");
        }
    }

    #[test]
    fn a_message_tells_where_it_ends_in_the_read() {
        let mut frames = Frames::default();
        let mut ends = Vec::new();
        frames.read(b"S\0\0\0\x04Q\0\0", |frame| ends.push(frame.end));
        frames.read(b"\0\x05\0S\0", |frame| ends.push(frame.end));
        assert_eq!(ends, [5, 3]);
    }
}
