//! Reads a TOML tree by the table of known keys, and notes every mistake on the way.
//!
//! What comes out is typed values with their places; a value that could not be read is missing, and the
//! mistake noted. Deliberately absent: serde. It stops at the first mistake and loses the places.

mod scalar;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Text;
use super::keys::{Key, Kind, Section, hint_for_type, hint_for_unknown};
use crate::diagnostic::{Diagnostic, Span, quote};
pub use scalar::choose;
use scalar::{bounded_duration, bounded_number};

/// A value that has the type its key asks for.
#[derive(Debug)]
pub enum Value {
    /// [`Kind::Text`].
    Text(Text),
    /// [`Kind::Texts`], and whether it was written as a list.
    Texts { texts: Vec<Text>, list: bool, span: Span },
    /// [`Kind::Choice`].
    Choice(&'static str, Span),
    /// [`Kind::Number`].
    Number(u32, Span),
    /// [`Kind::Flag`].
    Flag(bool),
    /// [`Kind::Duration`].
    Duration(Duration, Span),
    /// [`Kind::Table`], [`Kind::Short`].
    Table(Fields),
    /// [`Kind::Tables`], [`Kind::Entries`].
    Tables(Vec<Fields>),
}

/// The readable values of one table.
#[derive(Debug)]
pub struct Fields {
    /// The table's header, or the whole inline table.
    pub span: Span,
    /// The known keys that are there, readable or not, and where.
    written: BTreeMap<&'static str, Span>,
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
        number: Value::Number(number, span) => (number, span), (u32, Span);
        /// True or false.
        flag: Value::Flag(flag) => flag, bool;
        /// A duration.
        duration: Value::Duration(duration, span) => (duration, span), (Duration, Span);
        /// A table.
        table: Value::Table(fields) => fields, Fields;
        /// A list of tables.
        tables: Value::Tables(tables) => tables, Vec<Fields>;
    }

    /// A whole number from 1.
    pub fn count(&mut self, key: &'static str) -> Option<(NonZeroU32, Span)> {
        let (number, span) = self.number(key)?;
        Some((NonZeroU32::new(number).expect("invariant: such keys are bounded from 1"), span))
    }

    /// Where a key stands, whether its value could be read or not.
    pub fn written(&self, key: &'static str) -> Option<&Span> {
        self.written.get(key)
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
        let mut written = BTreeMap::new();
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
            written.insert(key.name, name.span());
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
        let fields = Fields { span, written, values, section };
        self.refuse_other_types(&fields);
        fields
    }

    /// Refuses the keys that do not go with the section's `type`, where it has one that could be read.
    fn refuse_other_types(&mut self, fields: &Fields) {
        let Some(key) = fields.section.key("type") else { return };
        let word = match (fields.values.get("type"), fields.written("type")) {
            (Some(Value::Choice(word, _)), _) => word,
            (_, None) => key.default.trim_matches('"'),
            _ => return,
        };
        for (name, span) in &fields.written {
            let Some(key) = fields.section.key(name) else { continue };
            if !key.types.is_empty() && !key.types.contains(&word) {
                self.mistakes.push(
                    Diagnostic::error(span.clone(), format!("`{name}` does not go with type = \"{word}\""))
                        .hint(hint_for_type(fields.section, key, word)),
                );
            }
        }
    }

    /// The table that a text stands for: nothing but this key.
    fn short(
        &mut self,
        name: &'static str,
        section: &'static Section,
        value: &Spanned<DeValue<'_>>,
    ) -> Fields {
        let span = value.span();
        let key = section.key(name).expect("invariant: the table of keys has the key of its short form");
        let read = self.value(key, span.clone(), value).map(|value| (name, value));
        Fields {
            written: BTreeMap::from([(name, span.clone())]),
            span,
            values: read.into_iter().collect(),
            section,
        }
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
                self.refuse_empty(key, entries.is_empty(), &span);
                (texts.len() == entries.len() && !texts.is_empty()).then_some(Value::Texts {
                    texts,
                    list: true,
                    span,
                })
            }
            (Kind::Choice(words), DeValue::String(text)) => {
                let located = self.located(text, span);
                match choose(key.name, words, key.words_elsewhere, &located) {
                    Ok(word) => Some(Value::Choice(word, located.span)),
                    Err(mistake) => {
                        self.mistakes.push(mistake);
                        None
                    }
                }
            }
            (Kind::Number(least, most), DeValue::Integer(number)) => {
                match bounded_number(key, *least..=*most, number, &span) {
                    Ok(number) => Some(Value::Number(number, span)),
                    Err(mistake) => {
                        self.mistakes.push(mistake);
                        None
                    }
                }
            }
            (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Kind::Duration(bounds), DeValue::String(text)) => match bounded_duration(key, bounds, text) {
                Ok(duration) => Some(Value::Duration(duration, span)),
                Err((message, hint)) => {
                    let place = self.located(text, span).inside();
                    self.mistakes.push(Diagnostic::error(place, message).hint(hint));
                    None
                }
            },
            (Kind::Table(section) | Kind::Short(_, section), DeValue::Table(table)) => {
                Some(Value::Table(self.table(table, span, section)))
            }
            (Kind::Short(name, section), DeValue::String(_)) => {
                Some(Value::Table(self.short(name, section, value)))
            }
            (Kind::Entries(name, section), DeValue::String(_)) => {
                Some(Value::Tables(vec![self.short(name, section, value)]))
            }
            (Kind::Entries(name, section), DeValue::Array(entries)) => {
                self.refuse_empty(key, entries.is_empty(), &span);
                let mut tables = Vec::with_capacity(entries.len());
                for entry in entries.iter() {
                    match entry.get_ref() {
                        DeValue::Table(table) => tables.push(self.table(table, entry.span(), section)),
                        DeValue::String(_) => tables.push(self.short(name, section, entry)),
                        other => self.wrong_type(key, entry.span(), other),
                    }
                }
                Some(Value::Tables(tables))
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

    fn refuse_empty(&mut self, key: &Key, empty: bool, span: &Span) {
        if empty {
            self.mistakes.push(
                Diagnostic::error(span.clone(), format!("`{}` is an empty list", key.name))
                    .hint(format!("for example {} = {}", key.name, key.example)),
            );
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
            (Kind::Number(..), DeValue::String(text))
                if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() =>
            {
                format!("write the number without quotes: {} = {}", key.name, quote(text).trim_matches('`'))
            }
            (Kind::Flag, DeValue::String(text)) if matches!(text.as_ref(), "true" | "false") => {
                format!("write it without quotes: {} = {text}", key.name)
            }
            (Kind::Texts, DeValue::Table(_)) if key.name == "forward" => {
                "backends with settings stand in [rule.pool]: backends = [{ address = \"10.0.0.1:80\", weight = 2 }]"
                    .to_owned()
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
