//! Packets as a file that Wireshark and tcpdump read: pcapng (draft-ietf-opsawg-pcapng), with a section, an interface for each
//! wire, and the packets. Pure: bytes out.
//!
//! Three kinds of block are not worth a dependency. Deliberately absent: reading, and all other blocks.

use super::tap::{Frame, KEPT};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;

/// The options that are used: the end, a comment or an interface's name, the unit of times, the program.
const END: u16 = 0;
const COMMENT: u16 = 1;
const NAME: u16 = 2;
const UNIT: u16 = 9;
const PROGRAM: u16 = 4;

/// A file under way.
#[derive(Debug)]
pub struct File(Vec<u8>);

impl File {
    /// One of these wires; what it is of is its comment.
    pub fn new(comment: &str, wires: &[&str]) -> Self {
        let mut file = Self(Vec::new());
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        // Version 1.0; the section's length is not known.
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, COMMENT, comment.as_bytes());
        option(&mut body, PROGRAM, b"portway lab");
        option(&mut body, END, b"");
        file.block(SECTION, &body);
        for wire in wires {
            let mut body = ETHERNET.to_le_bytes().to_vec();
            body.extend([0, 0]);
            body.extend((KEPT as u32).to_le_bytes());
            option(&mut body, NAME, wire.as_bytes());
            // 10^-9 seconds.
            option(&mut body, UNIT, &[9]);
            option(&mut body, END, b"");
            file.block(INTERFACE, &body);
        }
        file
    }

    /// A packet on one of the wires.
    pub fn packet(&mut self, wire: u32, frame: &Frame) {
        let at = u64::try_from(frame.at.as_nanos()).unwrap_or(u64::MAX);
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let fields = [wire, (at >> 32) as u32, at as u32, length(frame.bytes.len()), length(frame.length)];
        let mut body: Vec<u8> = fields.into_iter().flat_map(u32::to_le_bytes).collect();
        body.extend(&frame.bytes);
        self.block(PACKET, &body);
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A block: its type and length, what it holds, its length again.
    fn block(&mut self, kind: u32, body: &[u8]) {
        let padded = body.len().next_multiple_of(4);
        let length = (padded + 12) as u32;
        self.0.extend(kind.to_le_bytes());
        self.0.extend(length.to_le_bytes());
        self.0.extend(body);
        self.0.resize(self.0.len() + padded - body.len(), 0);
        self.0.extend(length.to_le_bytes());
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_blocks_whose_lengths_agree() {
        let mut file = File::new("nft under connections", &["client", "server"]);
        let frame = Frame { at: Duration::new(1_700_000_000, 7), length: 1514, bytes: vec![0xab; 61] };
        file.packet(1, &frame);
        let (mut rest, mut kinds) = (file.bytes(), Vec::new());
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        while !rest.is_empty() {
            let length = word(rest, 4) as usize;
            assert_eq!((length % 4, word(rest, length - 4) as usize), (0, length));
            kinds.push(word(rest, 0));
            if word(rest, 0) == PACKET {
                let at = u64::from(word(rest, 12)) << 32 | u64::from(word(rest, 16));
                assert_eq!(Duration::from_nanos(at), frame.at);
                assert_eq!([word(rest, 8), word(rest, 20), word(rest, 24)], [1, 61, 1514]);
                assert_eq!(rest[28..28 + 61], frame.bytes);
            }
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, PACKET]);
    }
}
