//! Reads a TOML tree by the table of known keys, and notes every mistake on the way.
//!
//! What comes out is typed values with their places; a value that could not be read is missing, and the
//! mistake noted. Deliberately absent: serde. It stops at the first mistake and loses the places.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Text;
use super::keys::{Bounds, Key, Kind, Section, hint_for_unknown};
use super::nearest::nearest;
use super::value::{DurationError, format_duration, parse_duration};
use crate::diagnostic::{Diagnostic, Span, quote};

/// A value that has the type its key asks for.
#[derive(Debug)]
pub enum Value {
    /// [`Kind::Text`].
    Text(Text),
    /// [`Kind::Texts`], and whether it was written as a list.
    Texts { texts: Vec<Text>, list: bool, span: Span },
    /// [`Kind::Choice`].
    Choice(&'static str, Span),
    /// [`Kind::Count`].
    Count(NonZeroU32, Span),
    /// [`Kind::Duration`].
    Duration(Duration),
    /// [`Kind::Table`].
    Table(Fields),
    /// [`Kind::Tables`].
    Tables(Vec<Fields>),
}

/// The readable values of one table.
#[derive(Debug)]
pub struct Fields {
    /// The table's header, or the whole inline table.
    pub span: Span,
    values: BTreeMap<&'static str, Value>,
    section: &'static Section,
}

/// One method per type: the value of a key, taken out.
macro_rules! take {
    ($(#[$doc:meta] $method:ident: $variant:pat => $value:expr, $type:ty;)*) => {
        $(
            #[$doc]
            pub fn $method(&mut self, key: &'static str) -> Option<$type> {
                debug_assert!(self.section.key(key).is_some(), "invariant: {key} is in the table of keys");
                match self.values.remove(key)? {
                    $variant => Some($value),
                    other => unreachable!("invariant: the table of keys gives {key} another type than {other:?}"),
                }
            }
        )*
    };
}

impl Fields {
    take! {
        /// A text.
        text: Value::Text(text) => text, Text;
        /// A text or a list of texts.
        texts: Value::Texts { texts, list, span } => (texts, list, span), (Vec<Text>, bool, Span);
        /// One of the key's words.
        choice: Value::Choice(word, span) => (word, span), (&'static str, Span);
        /// A whole number.
        count: Value::Count(count, span) => (count, span), (NonZeroU32, Span);
        /// A duration.
        duration: Value::Duration(duration) => duration, Duration;
        /// A table.
        table: Value::Table(fields) => fields, Fields;
        /// A list of tables.
        tables: Value::Tables(tables) => tables, Vec<Fields>;
    }

    /// Asserts, in tests and debug builds, that every value was taken: a key of the table that nobody reads
    /// would be accepted and ignored.
    pub fn finish(self) {
        debug_assert!(self.values.is_empty(), "invariant: every known key is read, not so {:?}", self.values);
    }
}

/// What a reader needs besides the tree.
pub struct Reader<'a> {
    /// The source text.
    pub text: &'a str,
    /// The mistakes so far.
    pub mistakes: Vec<Diagnostic>,
    /// Whether a missing key is a mistake; after a syntax error it may be there, unread.
    pub complete: bool,
}

impl Reader<'_> {
    /// Reads a table.
    pub fn table(&mut self, table: &DeTable<'_>, span: Span, section: &'static Section) -> Fields {
        let mut values = BTreeMap::new();
        for (name, value) in table {
            let Some(key) = section.key(name.get_ref()) else {
                let place = match section.header {
                    "" => "at the top of the file".to_owned(),
                    header => format!("in {header}"),
                };
                let what = if value.get_ref().is_table() { "section" } else { "key" };
                let hint = hint_for_unknown(section, name.get_ref());
                self.mistakes.push(
                    Diagnostic::error(
                        name.span(),
                        format!("unknown {what} {} {place}", quote(name.get_ref())),
                    )
                    .hint(hint),
                );
                continue;
            };
            if let Some(value) = self.value(key, name.span(), value) {
                values.insert(key.name, value);
            }
        }
        for key in section.keys.iter().filter(|key| key.required && self.complete) {
            if !table.iter().any(|(name, _)| name.get_ref() == key.name) {
                self.mistakes.push(
                    Diagnostic::error(
                        span.clone(),
                        format!("`{}` is missing in this {}", key.name, section.header),
                    )
                    .hint(format!("for example {} = {}", key.name, key.example)),
                );
            }
        }
        Fields { span, values, section }
    }

    fn value(&mut self, key: &'static Key, name: Span, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let span = value.span();
        match (&key.kind, value.get_ref()) {
            (Kind::Text, DeValue::String(text)) => Some(Value::Text(self.located(text, span))),
            (Kind::Texts, DeValue::String(text)) => {
                let texts = vec![self.located(text, span.clone())];
                Some(Value::Texts { texts, list: false, span })
            }
            (Kind::Texts, DeValue::Array(entries)) => {
                let mut texts = Vec::with_capacity(entries.len());
                for entry in entries.iter() {
                    match entry.get_ref() {
                        DeValue::String(text) => texts.push(self.located(text, entry.span())),
                        other => self.wrong_type(key, entry.span(), other),
                    }
                }
                if entries.is_empty() {
                    self.mistakes.push(
                        Diagnostic::error(span.clone(), format!("`{}` is an empty list", key.name))
                            .hint(format!("for example {} = {}", key.name, key.example)),
                    );
                }
                (texts.len() == entries.len() && !texts.is_empty()).then_some(Value::Texts {
                    texts,
                    list: true,
                    span,
                })
            }
            (Kind::Text, DeValue::Array(_)) if key.name == "forward" => {
                self.mistakes.push(
                    Diagnostic::error(span, "one backend per rule in this version").hint(format!(
                        "write one rule for each backend, with {} = {}",
                        key.name, key.example
                    )),
                );
                None
            }
            (Kind::Choice(words), DeValue::String(text)) => {
                let located = self.located(text, span);
                match choose(key.name, words, &located) {
                    Ok(word) => Some(Value::Choice(word, located.span)),
                    Err(mistake) => {
                        self.mistakes.push(mistake);
                        None
                    }
                }
            }
            (Kind::Count(most), DeValue::Integer(number)) => {
                let text = number.as_str().replace('_', "");
                match i128::from_str_radix(&text, number.radix()) {
                    Ok(number) if (1..=i128::from(*most)).contains(&number) => {
                        let number = u32::try_from(number).ok().and_then(NonZeroU32::new);
                        number.map(|number| Value::Count(number, span))
                    }
                    _ => {
                        self.mistakes.push(
                            Diagnostic::error(span, format!("`{}` is from 1 to {most}", key.name))
                                .hint("leave the key out for the default"),
                        );
                        None
                    }
                }
            }
            (Kind::Duration(bounds), DeValue::String(text)) => match bounded_duration(key, bounds, text) {
                Ok(duration) => Some(Value::Duration(duration)),
                Err((message, hint)) => {
                    let place = self.located(text, span).inside();
                    self.mistakes.push(Diagnostic::error(place, message).hint(hint));
                    None
                }
            },
            (Kind::Table(section), DeValue::Table(table)) => {
                Some(Value::Table(self.table(table, span, section)))
            }
            (Kind::Tables(section), DeValue::Array(entries)) => {
                let mut tables = Vec::with_capacity(entries.len());
                for entry in entries.iter() {
                    match entry.get_ref() {
                        DeValue::Table(table) => tables.push(self.table(table, entry.span(), section)),
                        other => self.wrong_type(key, entry.span(), other),
                    }
                }
                Some(Value::Tables(tables))
            }
            (Kind::Tables(section), DeValue::Table(table)) => {
                self.mistakes.push(
                    Diagnostic::error(
                        name,
                        format!("`{}` is a list of tables, and this is one table", key.name),
                    )
                    .hint(format!("write {}, once for each {}", section.header, key.name)),
                );
                Some(Value::Tables(vec![self.table(table, span, section)]))
            }
            (_, other) => {
                self.wrong_type(key, span, other);
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &Key, span: Span, found: &DeValue<'_>) {
        let written = self.text.get(span.clone()).unwrap_or_default();
        let short = written.len() <= 40 && !written.contains('\n');
        let scalar = matches!(found, DeValue::Integer(_) | DeValue::Float(_));
        let hint = match (&key.kind, found) {
            (Kind::Text | Kind::Texts, DeValue::Integer(_) | DeValue::Float(_)) if short => {
                format!("write it as a text: {} = \"{written}\"", key.name)
            }
            (Kind::Duration(_), DeValue::Integer(_)) if short => {
                format!("add the unit: {0} = \"{written}s\" (ms, s, m, h, d)", key.name)
            }
            (Kind::Count(_), DeValue::String(text))
                if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() =>
            {
                format!("write the number without quotes: {} = {}", key.name, quote(text).trim_matches('`'))
            }
            (Kind::Table(section) | Kind::Tables(section), _) => {
                format!("write {} and its keys below it", section.header)
            }
            _ => format!("for example {} = {}", key.name, key.example),
        };
        let found = type_of(found);
        let message = format!("`{}` is {}, and this is {found}", key.name, key.kind.describe());
        let label = if scalar { "" } else { found };
        self.mistakes.push(Diagnostic::error(span, message).label(label).hint(hint));
    }

    /// A text and where its characters stand.
    fn located(&self, value: &str, span: Span) -> Text {
        // A basic or literal string without escapes stands in the source as it is, between two quotes.
        let inner = span.start + 1..span.end.saturating_sub(1).max(span.start + 1);
        let verbatim = self.text.get(inner.clone()) == Some(value);
        Text { value: value.to_owned(), span, inner: verbatim.then_some(inner.start) }
    }
}

fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The word that a text names.
///
/// # Errors
/// The words there are, the nearest first.
pub fn choose(key: &str, words: &'static [&'static str], text: &Text) -> Result<&'static str, Diagnostic> {
    if let Some(word) = words.iter().find(|word| **word == text.value) {
        return Ok(word);
    }
    let all = words.join(", ");
    let hint = match nearest(&text.value, words.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? There is {all}"),
        None => format!("there is {all}"),
    };
    Err(Diagnostic::error(text.inside(), format!("`{key}` cannot be {}", quote(&text.value))).hint(hint))
}

fn bounded_duration(key: &Key, bounds: &Bounds, text: &str) -> Result<Duration, (String, String)> {
    let units = "a whole number and a unit: 500ms, 2s, 5m, 1h, 1d".to_owned();
    let duration = parse_duration(text).map_err(|error| match error {
        DurationError::NoUnit => {
            (format!("`{}`: {error}", key.name), format!("for example {text}s; a duration is {units}"))
        }
        DurationError::Shape => {
            (format!("`{}`: {} is {error}", key.name, quote(text)), format!("a duration is {units}"))
        }
        DurationError::TooLong => {
            (format!("`{}`: {error}", key.name), format!("at most {}", format_duration(bounds.most)))
        }
    })?;
    let limits = format!("from {} to {}", format_duration(bounds.least), format_duration(bounds.most));
    if duration.is_zero() {
        return Err((
            format!("`{}` cannot be zero", key.name),
            format!("{limits}; leave the key out for the default"),
        ));
    }
    if duration < bounds.least || duration > bounds.most {
        let hint = if bounds.whole_seconds {
            "the kernel keeps it in seconds"
        } else {
            "leave the key out for the default"
        };
        return Err((format!("`{}` is {limits}", key.name), hint.to_owned()));
    }
    if bounds.whole_seconds && duration.subsec_nanos() != 0 {
        return Err((
            format!("`{}` counts whole seconds", key.name),
            "the kernel keeps it in seconds".to_owned(),
        ));
    }
    Ok(duration)
}
