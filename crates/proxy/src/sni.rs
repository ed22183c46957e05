//! The server name in a TLS ClientHello (RFC 6066 section 3), read before a backend is chosen and left where it is:
//! the backend gets every byte.
//!
//! The parser is rustls's, which needs no crypto for it. Deliberately absent: sockets and clocks
//! ([`crate::worker`]), and QUIC, whose hello is encrypted.

use rustls::server::Acceptor;

/// The longest hello that is looked at, in bytes, records' headers included.
pub const MOST: usize = 16 << 10;

/// A hello that is still coming in.
#[derive(Default)]
pub struct Hello {
    acceptor: Acceptor,
    read: usize,
}

/// What has been heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The hello is not whole yet.
    More,
    /// The name, in lower case.
    Name(Box<str>),
    /// No name will come: there is none in the hello, or it is no hello.
    NoName,
}

impl Hello {
    /// Reads on. `bytes`: what the client has sent so far, from its first byte.
    pub fn hear(&mut self, bytes: &[u8]) -> Heard {
        while let Some(mut rest) = bytes.get(self.read..).filter(|rest| !rest.is_empty()) {
            match self.acceptor.read_tls(&mut rest) {
                Ok(0) | Err(_) => return Heard::NoName,
                Ok(read) => self.read += read,
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let name = hello.server_name().map(|name| name.to_ascii_lowercase().into());
                    return name.map_or(Heard::NoName, Heard::Name);
                }
                Err(_) => return Heard::NoName,
            }
        }
        if self.read < MOST { Heard::More } else { Heard::NoName }
    }
}

/// The name in what a client sends, which comes in parts of `part` bytes. For the fuzz target.
pub fn server_name_in(bytes: &[u8], part: usize) -> Option<String> {
    let mut hello = Hello::default();
    let ends =
        (1..=bytes.len().min(MOST)).filter(|end| end % part.max(1) == 0 || *end == bytes.len().min(MOST));
    for end in ends {
        match hello.hear(&bytes[..end]) {
            Heard::More => {}
            Heard::Name(name) => return Some(name.into()),
            Heard::NoName => return None,
        }
    }
    None
}
