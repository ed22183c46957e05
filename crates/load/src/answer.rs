//! An answer as it comes, piece by piece: when it is whole, and whether it is one. Pure: bytes in.
//!
//! Bodies are counted, not kept. Deliberately absent: everything about HTTP that does not say where an answer ends.

/// The longest head of an HTTP answer, in bytes, and the most headers.
const MOST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 64;

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The head of an HTTP answer is not whole.
    Head,
    /// So many bytes of a body are missing.
    Body { missing: u64, keep: bool },
    /// A chunked body (RFC 9112, 7.1).
    Chunked { at: Chunk, keep: bool },
    /// The body ends with the connection.
    UntilEnd,
    /// So many bytes of an echo have come.
    Echo { come: usize },
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// In the digits of a size: none yet, or so much.
    Size(Option<u64>),
    /// Behind the digits, until the line ends.
    Extension(u64),
    /// In the data.
    Data(u64),
    /// In the line end behind the data: bytes missing.
    DataEnd(u8),
    /// In the trailer: bytes of the present line.
    Trailer(u64),
}

/// What a piece made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Took {
    /// There is more to come.
    More,
    /// It is whole. Whether the connection stays.
    Whole { keep: bool },
    /// This is no answer.
    Wrong,
}

impl Answer {
    /// Takes the next piece of an HTTP answer. `held` has the pieces of a head that came in several, else nothing.
    pub(crate) fn take(&mut self, mut piece: &[u8], held: &mut Vec<u8>) -> Took {
        if *self == Self::Head {
            let before = held.len();
            let parsed = if before == 0 {
                head(piece)
            } else {
                held.extend_from_slice(piece);
                head(held)
            };
            match parsed {
                Ok(Some((length, answer))) => {
                    piece = &piece[length - before..];
                    held.clear();
                    *self = answer;
                }
                Ok(None) if before == 0 => {
                    held.extend_from_slice(piece);
                    return Took::More;
                }
                Ok(None) if held.len() <= MOST_HEAD => return Took::More,
                _ => return Took::Wrong,
            }
        }
        match self {
            Self::Body { missing, keep } => {
                let len = piece.len() as u64;
                if len > *missing {
                    return Took::Wrong;
                }
                *missing -= len;
                if *missing == 0 { Took::Whole { keep: *keep } } else { Took::More }
            }
            Self::Chunked { at, keep } => match at.take(piece) {
                Took::Whole { .. } => Took::Whole { keep: *keep },
                other => other,
            },
            Self::UntilEnd | Self::Head => Took::More,
            Self::Echo { .. } => Took::Wrong,
        }
    }

    /// Takes the next piece of an echo of `message`.
    pub(crate) fn take_echo(&mut self, piece: &[u8], message: &[u8]) -> Took {
        let Self::Echo { come } = self else { return Took::Wrong };
        if message.get(*come..*come + piece.len()) != Some(piece) {
            return Took::Wrong;
        }
        *come += piece.len();
        if *come == message.len() { Took::Whole { keep: true } } else { Took::More }
    }

    /// Whether the end of the connection makes the answer whole.
    pub(crate) fn ends_with_connection(self) -> bool {
        self == Self::UntilEnd
    }
}

impl Chunk {
    fn take(&mut self, mut piece: &[u8]) -> Took {
        while let Some((byte, rest)) = piece.split_first() {
            if let Self::Data(missing) = self {
                let here = (*missing).min(piece.len() as u64);
                piece = &piece[here as usize..];
                *self = if here == *missing { Self::DataEnd(2) } else { Self::Data(*missing - here) };
                continue;
            }
            piece = rest;
            *self = match (*self, byte) {
                (Self::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    let digit = (*byte as char).to_digit(16).map_or(0, u64::from);
                    let size = size.unwrap_or(0).checked_mul(16).and_then(|size| size.checked_add(digit));
                    let Some(size) = size else { return Took::Wrong };
                    Self::Size(Some(size))
                }
                (Self::Size(Some(size)), b'\r' | b';' | b' ' | b'\t') => Self::Extension(size),
                (Self::Extension(0), b'\n') => Self::Trailer(0),
                (Self::Extension(size), b'\n') => Self::Data(size),
                (Self::Extension(size), _) => Self::Extension(size),
                (Self::DataEnd(2), b'\r') => Self::DataEnd(1),
                (Self::DataEnd(1), b'\n') => Self::Size(None),
                (Self::Trailer(0), b'\n') if rest.is_empty() => return Took::Whole { keep: true },
                (Self::Trailer(0), b'\n') => return Took::Wrong,
                (Self::Trailer(0), b'\r') => Self::Trailer(0),
                (Self::Trailer(_), b'\n') => Self::Trailer(0),
                (Self::Trailer(length), _) if length < MOST_HEAD as u64 => Self::Trailer(length + 1),
                _ => return Took::Wrong,
            };
        }
        Took::More
    }
}

/// Parses a head: its length, and what follows it; `None` while it is not whole.
fn head(bytes: &[u8]) -> Result<Option<(usize, Answer)>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(()),
    };
    let code = response.code.ok_or(())?;
    if !(200..400).contains(&code) {
        return Err(());
    }
    let mut keep = response.version == Some(1);
    let mut missing = None;
    let mut chunked = false;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            missing =
                Some(std::str::from_utf8(header.value).ok().and_then(|v| v.trim().parse().ok()).ok_or(())?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = has_word(header.value, b"chunked");
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep = if has_word(header.value, b"close") {
                false
            } else {
                keep || has_word(header.value, b"keep-alive")
            };
        }
    }
    let answer = match (chunked, missing) {
        (true, _) => Answer::Chunked { at: Chunk::Size(None), keep },
        // RFC 9110, 15.3.5 and 15.4.5: these have no body.
        _ if code == 204 || code == 304 => Answer::Body { missing: 0, keep },
        (false, Some(missing)) => Answer::Body { missing, keep },
        (false, None) => Answer::UntilEnd,
    };
    Ok(Some((length, answer)))
}

fn has_word(value: &[u8], word: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer makes of `text` in pieces of every length.
    fn took(text: &str) -> Took {
        let mut results = (1..=text.len()).map(|length| {
            let (mut answer, mut held) = (Answer::Head, Vec::new());
            let mut pieces = text.as_bytes().chunks(length).peekable();
            while let Some(piece) = pieces.next() {
                match answer.take(piece, &mut held) {
                    Took::More if pieces.peek().is_none() && answer.ends_with_connection() => {
                        return Took::Whole { keep: false };
                    }
                    Took::More => {}
                    // What follows a whole answer was not asked for.
                    Took::Whole { .. } if pieces.peek().is_some() => return Took::Wrong,
                    other => return other,
                }
            }
            Took::More
        });
        let first = results.next().expect("at least one length");
        assert!(results.all(|result| result == first), "{text:?} depends on how it is cut");
        first
    }

    #[test]
    fn answers_end_where_they_say() {
        let kept = Took::Whole { keep: true };
        let ended = Took::Whole { keep: false };
        assert_eq!(took("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), kept);
        assert_eq!(took("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell"), Took::More);
        assert_eq!(took("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!"), Took::Wrong);
        assert_eq!(took("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok"), ended);
        assert_eq!(took("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"), ended);
        assert_eq!(took("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"), kept);
        assert_eq!(took("HTTP/1.1 204 No Content\r\n\r\n"), kept);
        assert_eq!(took("HTTP/1.1 200 OK\r\n\r\nuntil the end"), ended);
        assert_eq!(took("HTTP/1.1 200 OK\r\nContent-Le"), Took::More);
    }

    #[test]
    fn chunks_end_where_they_say() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = |body: &str| took(&format!("{head}{body}"));
        assert_eq!(body("5\r\nhello\r\n0\r\n\r\n"), Took::Whole { keep: true });
        assert_eq!(
            body("5;a=b\r\nhello\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nA: b\r\n\r\n"),
            Took::Whole { keep: true }
        );
        assert_eq!(body("5\r\nhello\r\n0\r\n"), Took::More);
        assert_eq!(body("5\r\nhello!\r\n0\r\n\r\n"), Took::Wrong);
        assert_eq!(body("\r\n"), Took::Wrong);
        assert_eq!(body("ffffffffffffffffff\r\n"), Took::Wrong);
        assert_eq!(body("0\r\n\r\nx"), Took::Wrong);
    }

    #[test]
    fn what_is_no_answer() {
        assert_eq!(took("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), Took::Wrong);
        assert_eq!(took("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), Took::Wrong);
        assert_eq!(took("SSH-2.0-OpenSSH_9.2\r\n"), Took::Wrong);
        assert_eq!(took("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n"), Took::Wrong);
    }

    #[test]
    fn an_echo_is_compared() {
        let mut answer = Answer::Echo { come: 0 };
        assert_eq!(answer.take_echo(b"he", b"hello"), Took::More);
        assert_eq!(answer.take_echo(b"llo", b"hello"), Took::Whole { keep: true });
        let mut answer = Answer::Echo { come: 0 };
        assert_eq!(answer.take_echo(b"hello!", b"hello"), Took::Wrong);
        assert_eq!(answer.take_echo(b"hallo", b"hello"), Took::Wrong);
    }
}
