//! Diagnostics: what is wrong with a text, where, and what to do about it.
//!
//! One diagnostic has one primary place, any number of further places and at most one hint. It is shown to a
//! person by [`render`] and to a program by [`Diagnostic::located`]. Deliberately absent: reading files,
//! deciding on colours, and counting ("3 errors"), which are the caller's business.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// A byte range of the source text.
pub type Span = Range<usize>;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

/// A place in the text and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What, in a few words; empty underlines only.
    pub text: String,
}

/// One mistake, or one warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The offending text.
    pub primary: Label,
    /// Further places that are part of the mistake.
    pub related: Vec<Label>,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            primary: Label { span, text: String::new() },
            related: Vec::new(),
            hint: None,
        }
    }

    /// A warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// The same with words beside the primary place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        self.primary.text = text.into();
        self
    }

    /// The same with a further place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push(Label { span, text: text.into() });
        self
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as [`hint`](Self::hint) where there is one.
    #[must_use]
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The diagnostic with lines and columns instead of byte ranges, to be serialized.
    pub fn located<'a>(&'a self, source: &'a Source) -> Located<'a> {
        Located {
            severity: self.severity,
            message: &self.message,
            place: Place::of(source, &self.primary),
            hint: self.hint.as_deref(),
            related: self.related.iter().map(|label| Place::of(source, label)).collect(),
        }
    }
}

/// A diagnostic whose places are lines and columns: what `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located<'a> {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: &'a str,
    /// Where.
    #[serde(flatten)]
    pub place: Place<'a>,
    /// What the user can do.
    pub hint: Option<&'a str>,
    /// Further places.
    pub related: Vec<Place<'a>>,
}

/// A place as an editor names it. Lines and columns count from 1, columns in characters (Unicode scalar
/// values); the end is exclusive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place<'a> {
    /// The source's name.
    pub file: &'a str,
    /// First line.
    pub line: usize,
    /// First column.
    pub column: usize,
    /// Last line.
    pub end_line: usize,
    /// The column behind the last character.
    pub end_column: usize,
    /// What there is to say about the place; may be empty.
    pub label: &'a str,
}

impl<'a> Place<'a> {
    fn of(source: &'a Source, label: &'a Label) -> Self {
        let span = source.clamp(&label.span);
        let (line, column) = source.position(span.start);
        let (end_line, end_column) = source.position(span.end);
        Self { file: &source.name, line, column, end_line, end_column, label: &label.text }
    }
}

/// A text with a name: a file, or a command line.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// The byte offset of each line's first character; never empty.
    lines: Vec<usize>,
}

impl Source {
    /// A named text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let mut lines = vec![0];
        lines.extend(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1));
        Self { name: name.into(), text, lines }
    }

    /// The name, as it stands in front of line and column.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The nearest range that lies within the text, on character boundaries.
    fn clamp(&self, span: &Span) -> Span {
        let start = self.text.floor_char_boundary(span.start);
        let end = self.text.ceil_char_boundary(span.end.min(self.text.len()));
        start..end.max(start)
    }

    /// Line and column of a byte offset on a character boundary, both from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.line_of(at);
        (line + 1, self.text[self.lines[line]..at].chars().count() + 1)
    }

    /// The index of the line that holds a byte offset.
    fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at) - 1
    }

    /// A line's byte range without its end-of-line bytes.
    fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.lines[line];
        let end = self.lines.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        start..end
    }
}

/// The diagnostics as a person reads them: message, `file:line:column`, the line with the offending text
/// underlined, the hint as `help:`. Each ends with an empty line.
///
/// A place that covers several lines is shown by its first. The cost of a diagnostic depends neither on the size
/// of the file nor on the length of its lines.
pub fn render(source: &Source, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group =
            level.primary_title(printable(&diagnostic.message)).elements(excerpts(source, diagnostic));
        if let Some(hint) = &diagnostic.hint {
            group = group.element(Level::HELP.message(printable(hint)));
        }
        let groups: [Group<'_>; 1] = [group];
        out.push_str(&renderer.render(&groups));
        out.push_str("\n\n");
    }
    out
}

/// Lines between two places that are still shown in one excerpt.
const NEAR: usize = 4;

/// The longest line that is shown whole, in bytes; of a longer one, as much on both sides of the place.
const LONG: usize = 1000;

/// Lines that are shown together.
struct Excerpt<'a> {
    /// The first line.
    first: usize,
    /// The last line.
    last: usize,
    /// What is marked.
    marks: Vec<(AnnotationKind, Span, &'a str)>,
}

/// The excerpts of a diagnostic: the primary place first, places near each other together. The renderer's work
/// grows with the text it is given, so it is given little.
fn excerpts<'a>(source: &'a Source, diagnostic: &'a Diagnostic) -> Vec<Element<'a>> {
    let places = [(AnnotationKind::Primary, &diagnostic.primary)]
        .into_iter()
        .chain(diagnostic.related.iter().map(|label| (AnnotationKind::Context, label)));
    let mut excerpts: Vec<Excerpt<'_>> = Vec::new();
    let mut elements = Vec::new();
    for (kind, label) in places {
        let span = source.clamp(&label.span);
        let line = source.line_of(span.start);
        let whole = source.line_range(line);
        let span = span.start.min(whole.end)..span.end.min(whole.end);
        let text = label.text.as_str();
        if whole.len() > LONG {
            elements.extend(cut(source, whole, (kind, span, text)));
            continue;
        }
        let near = |other: &&mut Excerpt<'_>| {
            let lines = other.first.min(line)..other.last.max(line);
            let close = line + NEAR >= other.first && line <= other.last + NEAR;
            close && lines.into_iter().all(|between| source.line_range(between).len() <= LONG)
        };
        match excerpts.iter_mut().find(near) {
            Some(excerpt) => {
                (excerpt.first, excerpt.last) = (line.min(excerpt.first), line.max(excerpt.last));
                excerpt.marks.push((kind, span, text));
            }
            None => excerpts.push(Excerpt { first: line, last: line, marks: vec![(kind, span, text)] }),
        }
    }
    let whole = excerpts.into_iter().map(|excerpt| {
        let shown = source.lines[excerpt.first]..source.line_range(excerpt.last).end;
        let marks = excerpt.marks.into_iter().map(|mark| annotation(shown.start, mark));
        let snippet = Snippet::source(&source.text[shown.clone()]).path(source.name.as_str());
        Element::from(snippet.line_start(excerpt.first + 1).annotations(marks))
    });
    // The primary place leads, cut or whole.
    if source.line_range(source.line_of(source.clamp(&diagnostic.primary.span).start)).len() > LONG {
        elements.into_iter().chain(whole).collect()
    } else {
        whole.chain(elements).collect()
    }
}

/// The part of a long line around a place, with the place's line and column in front.
fn cut<'a>(source: &'a Source, line: Range<usize>, mark: (AnnotationKind, Span, &str)) -> [Element<'a>; 2] {
    let (kind, span, text) = mark;
    let end = source.text.floor_char_boundary(span.end.min(span.start + LONG));
    let from = source.text.ceil_char_boundary(span.start.saturating_sub(LONG).max(line.start));
    let to = source.text.floor_char_boundary((end + LONG).min(line.end));
    let (number, column) = source.position(span.start);
    let snippet = Snippet::source(&source.text[from..to]).line_start(number);
    let origin = Origin::path(source.name.as_str()).line(number).char_column(column);
    [origin.into(), snippet.annotation(annotation(from, (kind, span.start..end, text))).into()]
}

/// A mark in an excerpt that begins at byte `base` of the text.
fn annotation<'a>(base: usize, (kind, span, text): (AnnotationKind, Span, &str)) -> Annotation<'a> {
    let annotation = kind.span(span.start - base..span.end.max(span.start) - base);
    if text.is_empty() { annotation } else { annotation.label(printable(text)) }
}

/// Text for a terminal: control characters (escape sequences among them) are spelled out.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// A value as it is quoted in a message: in backquotes, control characters spelled out, cut when long.
pub(crate) fn quote(value: &str) -> String {
    const MOST: usize = 60;
    let mut shown: String = printable(&value.chars().take(MOST).collect::<String>());
    if value.chars().nth(MOST).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}
