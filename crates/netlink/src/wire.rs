//! Netlink bytes: messages and attributes, written and read (`include/uapi/linux/netlink.h`, `nfnetlink.h`).
//! Pure; reading never panics, whatever the bytes: what is malformed ends the iteration.

/// Flags of a message header (`NLM_F_*`).
pub mod flag {
    /// It is a request.
    pub const REQUEST: u16 = 0x1;
    /// Answer even when it succeeds.
    pub const ACK: u16 = 0x4;
    /// A dump was disturbed by a change and must be read again.
    pub const DUMP_INTR: u16 = 0x10;
    /// List everything.
    pub const DUMP: u16 = 0x300;
    /// Fail when it exists.
    pub const EXCL: u16 = 0x200;
    /// Make it.
    pub const CREATE: u16 = 0x400;
    /// Add behind what is there.
    pub const APPEND: u16 = 0x800;
}

/// Message type of an error or acknowledgement (`NLMSG_ERROR`).
pub const ERROR: u16 = 2;
/// Message type that ends a dump (`NLMSG_DONE`).
pub const DONE: u16 = 3;

const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Writes messages one behind the other.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What has been written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes have been written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends one message: netlink header, then `body`, the length filled in afterwards.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        body(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// Sets flags of the message that begins at `start`.
    pub fn add_flags(&mut self, start: usize, flags: u16) {
        if let Some(&mut [ref mut low, ref mut high]) = self.bytes.get_mut(start + 6..start + 8) {
            let [a, b] = (u16::from_ne_bytes([*low, *high]) | flags).to_ne_bytes();
            (*low, *high) = (a, b);
        }
    }

    /// The header of nfnetlink messages (`struct nfgenmsg`).
    pub fn nfgen(&mut self, family: u8, resource: u16) {
        self.raw(&[family, 0]);
        self.raw(&resource.to_be_bytes());
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// An attribute. Values longer than an attribute can be (65,531 bytes) are never written by this crate:
    /// lists are split before.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let start = self.open(kind);
        self.raw(value);
        self.close(start);
    }

    /// A text with its terminating zero.
    pub fn text(&mut self, kind: u16, text: &str) {
        let start = self.open(kind);
        self.raw(text.as_bytes());
        self.raw(&[0]);
        self.close(start);
    }

    /// A number in network order, as nf_tables wants them.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// An attribute that holds attributes.
    pub fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.open(kind | NESTED);
        body(self);
        self.close(start);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.raw(&[0; 2]);
        self.raw(&kind.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = self.bytes.len() - start;
        debug_assert!(length <= usize::from(u16::MAX), "attribute of {length} bytes");
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// One message of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The type.
    pub kind: u16,
    /// The flags.
    pub flags: u16,
    /// The sequence number of the request that it answers.
    pub sequence: u32,
    /// What follows the netlink header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The error number of an error message, 0 for an acknowledgement.
    pub fn error(&self) -> i32 {
        self.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code).saturating_neg())
    }

    /// The attributes behind a fixed header of `header` bytes.
    pub fn attributes(&self, header: usize) -> Attributes<'a> {
        Attributes { rest: self.payload.get(header..).unwrap_or(&[]) }
    }

    /// The attributes of an nfnetlink message.
    pub fn nf(&self) -> Attributes<'a> {
        self.attributes(4)
    }
}

/// The messages of a buffer.
#[derive(Clone)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Messages<'a> {
    /// Reads `bytes` from their beginning.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32::from_ne_bytes(*self.rest.first_chunk()?);
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let message = self.rest.get(..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let half = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
        let sequence = u32::from_ne_bytes([message[8], message[9], message[10], message[11]]);
        Some(Message { kind: half(4), flags: half(6), sequence, payload: &message[HEADER..] })
    }
}

/// Attributes one behind the other: type without its flag bits, and value.
#[derive(Clone)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Reads `bytes` from their beginning.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The first attribute of a type.
    pub fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().filter(|(found, _)| *found == kind).map(|(_, value)| value).next()
    }

    /// The attributes inside the first attribute of a type; none when there is no such.
    pub fn inside(&self, kind: u16) -> Self {
        Self { rest: self.find(kind).unwrap_or(&[]) }
    }

    /// A number in network order.
    pub fn find_be32(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// A number in network order.
    pub fn find_be64(&self, kind: u16) -> Option<u64> {
        self.find(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// A text up to its terminating zero.
    pub fn find_text(&self, kind: u16) -> Option<&'a str> {
        text(self.find(kind)?)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[a, b, c, d] = self.rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, value))
    }
}

/// A text up to its terminating zero, or to the end of the bytes.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

/// The value of a type in libnftnl's user data: type, length, value, one byte each for the first two
/// (libnftnl `src/udata.c`).
pub fn user_data(mut bytes: &[u8], kind: u8) -> Option<&[u8]> {
    loop {
        let &[found, length] = bytes.first_chunk()?;
        let end = 2 + usize::from(length);
        let value = bytes.get(2..end)?;
        if found == kind {
            return Some(value);
        }
        bytes = &bytes[end..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(attributes: Attributes<'_>, depth: usize) -> usize {
        let inner = |value| if depth == 0 { 0 } else { walk(Attributes::of(value), depth - 1) };
        attributes.map(|(kind, value)| usize::from(kind) + inner(value)).fold(0, usize::wrapping_add)
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages::of(&bytes) {
                walk(message.nf(), 4);
                message.error();
            }
            walk(Attributes::of(&bytes), 4);
            user_data(&bytes, 0);
            text(&bytes);
        }

        #[test]
        fn what_is_written_is_read(values in prop::collection::vec((1_u16..100, prop::collection::vec(any::<u8>(), 0..40)), 0..10)) {
            let mut writer = Writer::default();
            writer.message(7, flag::REQUEST, 9, |w| {
                w.nfgen(2, 10);
                w.nest(1, |w| values.iter().for_each(|(kind, value)| w.put(*kind, value)));
            });
            let message = Messages::of(writer.bytes()).next().unwrap();
            prop_assert_eq!((message.kind, message.flags, message.sequence), (7, flag::REQUEST, 9));
            let read: Vec<_> = message.nf().inside(1).map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
