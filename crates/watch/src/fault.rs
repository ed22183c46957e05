//! What a check that has ended says.
//!
//! A check can go wrong for two reasons, and only one of them says something of the backend. Deliberately absent: what
//! follows from it ([`crate::probe`]).

/// Why a check has no good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The backend has failed it.
    Failed(String),
    /// It could not be made, for want of something here: no word about the backend.
    NotMade(String),
}

impl Fault {
    /// A failed step of a check.
    pub(crate) fn of(step: &str, error: &std::io::Error) -> Self {
        let words = format!("{step}: {}", words(error));
        if exhausted(error) { Self::NotMade(words) } else { Self::Failed(words) }
    }
}

/// What a check that has ended says: the words of a good one, or why it is not.
pub(crate) type Made = Result<String, Fault>;

/// An error for people, without the number.
fn words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// Whether this process or host has run out of something.
fn exhausted(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN))
}
