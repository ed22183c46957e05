//! Diagnostics: what is wrong with a text, where, and what to do about it.

use std::ops::Range;

/// A byte range of the source text.
pub type Span = Range<usize>;
