//! The few bytes of DNS that the lab's server reads and writes (RFC 1035, section 4).

const OPT: u16 = 41;

/// The part of a query that matters.
pub(super) struct Question<'q> {
    id: &'q [u8],
    recursion_desired: u8,
    /// The question section, as it was sent: the name's case may carry entropy.
    section: &'q [u8],
    /// In lower case, without the dot at the end.
    pub(super) name: String,
    /// The type asked for.
    pub(super) kind: u16,
    /// The largest datagram that the asker takes: 512 bytes, or what its OPT record says (RFC 6891).
    pub(super) room: usize,
}

impl<'q> Question<'q> {
    /// `None` for what is no question.
    pub(super) fn read(query: &'q [u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]));
        if word(4)? != 1 || query[2] & 0x80 != 0 {
            return None;
        }
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(*query.get(at)?);
            let label = query.get(at + 1..at + 1 + length)?;
            at += 1 + length;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        }
        let section = query.get(12..at + 4)?;
        let kind = word(at)?;
        // An OPT record of the root name, if anything follows.
        let opt = at + 4;
        let has_opt = query.get(opt) == Some(&0) && word(opt + 1) == Some(OPT);
        let room = if has_opt { usize::from(word(opt + 3)?).max(512) } else { 512 };
        let (id, recursion_desired) = (&query[..2], query[2] & 1);
        Some(Self { id, recursion_desired, section, name: labels.join("."), kind, room })
    }

    /// The answer with these records, `cut` where they are left out for want of room.
    pub(super) fn answer(&self, code: u8, records: &[Vec<u8>], ttl: u32, cut: bool) -> Vec<u8> {
        let count = u16::try_from(records.len()).expect("the lab's answers are small");
        // QR, AA, TC, RD as asked; RA and the code.
        let flags = [0x84 | u8::from(cut) << 1 | self.recursion_desired, 0x80 | code];
        let mut out = [self.id, &flags, &1_u16.to_be_bytes(), &count.to_be_bytes(), &[0; 4]].concat();
        out.extend(self.section);
        for data in records {
            // The name is a pointer to the question's.
            out.extend([0xc0, 12]);
            out.extend(self.kind.to_be_bytes());
            out.extend(1_u16.to_be_bytes());
            out.extend(ttl.to_be_bytes());
            out.extend(u16::try_from(data.len()).expect("the lab's records are small").to_be_bytes());
            out.extend(data);
        }
        out
    }
}

/// A name in the form of the wire, uncompressed.
pub(super) fn encode_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("labels have at most 63 bytes"));
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}
