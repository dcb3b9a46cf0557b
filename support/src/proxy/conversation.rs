//! What the two ends of a connection say, counted.

use std::collections::HashMap;

use super::Wire;
use super::frames::{Frame, Frames};

/// What a proxy writes down about all its connections.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) wire: Wire,
    pub(super) trace: Vec<String>,
    /// How many statements may pass before one stays without an answer.
    pub(super) fuse: Option<usize>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conversation {
    client: Frames,
    server: Frames,
    /// The server has let the client in: from here on things count.
    open: bool,
    /// The client has heard something since it last spoke.
    heard: bool,
    /// Whether the last statement was an Execute, not a Query.
    extended: bool,
    /// The SQL of prepared statements and of portals, by name.
    statements: HashMap<Vec<u8>, String>,
    portals: HashMap<Vec<u8>, String>,
    /// How many ReadyForQuery the server has yet to send.
    owed: usize,
    /// How many of them pass before the answer that the client does not get.
    doomed: Option<usize>,
}

/// What to do with bytes from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// So many of them are for the client.
    pub(super) passes: usize,
    /// Then the connection ends.
    pub(super) cut: bool,
}

impl Conversation {
    /// A connection whose client still has to send so many bytes of its first message.
    pub(super) fn new(startup: usize) -> Self {
        Conversation {
            client: Frames::after(startup),
            server: Frames::default(),
            open: false,
            heard: false,
            extended: false,
            statements: HashMap::new(),
            portals: HashMap::new(),
            owed: 1,
            doomed: None,
        }
    }

    pub(super) fn client_says(&mut self, bytes: &[u8], ledger: &mut Ledger) {
        let mut frames = std::mem::take(&mut self.client);
        frames.read(bytes, |frame| {
            if self.open && frame.tag != b'X' {
                self.count(&frame, &mut ledger.wire);
                self.understand(&frame, ledger);
            }
        });
        self.client = frames;
    }

    pub(super) fn server_says(&mut self, bytes: &[u8], ledger: &mut Ledger) -> Reply {
        let mut passes = if self.doomed == Some(0) { 0 } else { bytes.len() };
        let mut cut = false;
        let mut frames = std::mem::take(&mut self.server);
        frames.read(bytes, |frame| {
            let silent = self.doomed == Some(0);
            if self.open && !silent {
                ledger.wire.bytes_received += frame.length as u64;
            }
            match frame.tag {
                b'Z' => {
                    self.open = true;
                    self.owed = self.owed.saturating_sub(1);
                    cut |= silent;
                    self.doomed = self.doomed.map(|left| left.saturating_sub(1));
                    if !silent && self.doomed == Some(0) {
                        passes = frame.end;
                    }
                }
                // It waits for the rows of a COPY, for which nobody has asked the client.
                b'G' | b'W' => cut |= silent,
                _ => {}
            }
        });
        self.server = frames;
        Reply { passes, cut }
    }

    /// Bytes from the server reach the client.
    pub(super) fn client_hears(&mut self) {
        self.heard = true;
    }

    fn count(&mut self, frame: &Frame<'_>, wire: &mut Wire) {
        wire.bytes_sent += frame.length as u64;
        if self.heard {
            self.heard = false;
            wire.round_trips += 1;
        }
    }

    fn understand(&mut self, frame: &Frame<'_>, ledger: &mut Ledger) {
        match frame.tag {
            b'P' => {
                let (name, rest) = name(frame.body);
                let sql = text(rest);
                ledger.trace.push(sql.clone());
                self.statements.insert(name.to_vec(), sql);
            }
            b'B' => {
                let (portal, rest) = name(frame.body);
                let sql = self.statements.get(name(rest).0).cloned().unwrap_or_default();
                self.portals.insert(portal.to_vec(), sql);
            }
            b'E' => {
                let sql = self.portals.get(name(frame.body).0).cloned().unwrap_or_default();
                ledger.trace.push(format!("EXECUTE {sql}"));
                self.extended = true;
                self.pass_statement(ledger);
            }
            b'Q' => {
                ledger.trace.push(text(frame.body));
                self.extended = false;
                self.pass_statement(ledger);
                self.owed += 1;
            }
            b'C' => match frame.body.split_first() {
                Some((b'S', rest)) => drop(self.statements.remove(name(rest).0)),
                Some((_, rest)) => drop(self.portals.remove(name(rest).0)),
                None => {}
            },
            // Sync, FunctionCall.
            b'S' | b'F' => self.owed += 1,
            // CopyDone, CopyFail: while it takes the rows of a COPY, the server ignores the Sync after the Execute.
            b'c' | b'f' if self.extended => self.owed = self.owed.saturating_sub(1),
            _ => {}
        }
    }

    fn pass_statement(&mut self, ledger: &mut Ledger) {
        ledger.wire.statements += 1;
        match &mut ledger.fuse {
            Some(0) => {
                ledger.fuse = None;
                self.doomed = Some(self.owed);
            }
            Some(left) => *left -= 1,
            None => {}
        }
    }
}

/// A string that ends with a zero byte, and what follows it.
fn name(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (&bytes[..end], bytes.get(end + 1..).unwrap_or_default())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(name(bytes).0).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &[u8] = b"Z\0\0\0\x05I";
    const DONE: &[u8] = b"C\0\0\0\x0dSELECT 1\0";

    /// A connection that has been let in.
    fn open() -> (Conversation, Ledger) {
        let (mut conversation, mut ledger) = (Conversation::new(0), Ledger::default());
        conversation.server_says(READY, &mut ledger);
        conversation.client_hears();
        (conversation, ledger)
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("is short");
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    fn extended(sql: &[u8]) -> Vec<u8> {
        [
            message(b'P', &[b"s\0", sql, b"\0\0\0"].concat()),
            message(b'B', b"p\0s\0\0\0\0\0\0\0"),
            message(b'E', b"p\0\0\0\0\0"),
            message(b'S', b""),
        ]
        .concat()
    }

    #[test]
    fn what_is_sent_without_waiting_is_one_round_trip() {
        let (mut conversation, mut ledger) = open();
        conversation.client_says(&extended(b"SELECT 1"), &mut ledger);
        conversation.client_says(&extended(b"SELECT 2"), &mut ledger);
        assert_eq!((ledger.wire.statements, ledger.wire.round_trips), (2, 1));
        assert_eq!(ledger.trace, ["SELECT 1", "EXECUTE SELECT 1", "SELECT 2", "EXECUTE SELECT 2"]);

        conversation.server_says(READY, &mut ledger);
        conversation.client_hears();
        conversation.client_says(&message(b'Q', b"SELECT 3\0"), &mut ledger);
        assert_eq!((ledger.wire.statements, ledger.wire.round_trips), (3, 2));
    }

    #[test]
    fn the_end_of_a_connection_counts_as_nothing() {
        let (mut conversation, mut ledger) = open();
        conversation.client_says(&message(b'X', b""), &mut ledger);
        assert_eq!(ledger.wire, Wire::default());
    }

    #[test]
    fn an_answer_that_is_cut_leaves_the_earlier_ones_whole() {
        let (mut conversation, mut ledger) = open();
        ledger.fuse = Some(1);
        conversation.client_says(&extended(b"SELECT 1"), &mut ledger);
        conversation.client_says(&extended(b"SELECT 2"), &mut ledger);

        let answers = [DONE, READY, DONE].concat();
        let reply = conversation.server_says(&answers, &mut ledger);
        assert_eq!(reply, Reply { passes: DONE.len() + READY.len(), cut: false });
        assert_eq!(conversation.server_says(READY, &mut ledger), Reply { passes: 0, cut: true });
    }

    #[test]
    fn the_sync_that_a_copy_ignores_is_not_waited_for() {
        let (mut conversation, mut ledger) = open();
        conversation.client_says(&extended(b"COPY t FROM STDIN"), &mut ledger);
        conversation.client_says(&[message(b'c', b""), message(b'S', b"")].concat(), &mut ledger);
        conversation.server_says(READY, &mut ledger);

        ledger.fuse = Some(0);
        conversation.client_says(&message(b'Q', b"COMMIT\0"), &mut ledger);
        assert_eq!(conversation.server_says(READY, &mut ledger), Reply { passes: 0, cut: true });
    }
}
