//! The typed values of one table, to be taken out by key.
//!
//! Deliberately absent: how they were read ([`super`]) and what they mean together.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::Text;
use crate::config::keys::Section;
use crate::diagnostic::Span;

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
    pub(super) written: BTreeMap<&'static str, Span>,
    pub(super) values: BTreeMap<&'static str, Value>,
    pub(super) section: &'static Section,
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

    /// The keys that are there and could not be read; what they say is not known.
    pub fn unread(&self) -> Vec<&'static str> {
        self.written.keys().copied().filter(|key| !self.values.contains_key(key)).collect()
    }

    /// Asserts, in tests and debug builds, that every value was taken: a key of the table that nobody reads
    /// would be accepted and ignored.
    pub fn finish(self) {
        debug_assert!(self.values.is_empty(), "invariant: every known key is read, not so {:?}", self.values);
    }
}
