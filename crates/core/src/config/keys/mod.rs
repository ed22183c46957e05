//! The known keys, in one table: the reader, the hints for unknown keys and `docs/configuration.md` come
//! from it.
//!
//! Deliberately absent: what a value means beyond its type and bounds, which is [`crate::build`]'s business.

mod backend;
mod check;
mod ebpf;
mod pool;
mod rule;
mod settings;

use std::time::Duration;

use super::nearest::nearest;

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// How its header is written: `[host]`, `[[rule]]`; empty for the top of the file.
    pub header: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// What may stand in it.
    pub keys: &'static [Key],
}

/// A key that may stand in a section.
#[derive(Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What holds when it is not there.
    pub default: &'static str,
    /// A value, as written.
    pub example: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// The words of the section's `type` that it belongs to; empty for all of them.
    pub types: &'static [&'static str],
    /// Words that people use for it elsewhere, for hints only.
    pub elsewhere: &'static [&'static str],
    /// Words that people use elsewhere for one of its words, and that word, for hints only.
    pub words_elsewhere: &'static [(&'static str, &'static str)],
    /// What to do about a number above its bounds.
    pub too_large: &'static str,
}

/// The type of a value.
#[derive(Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// A text or a list of texts.
    Texts,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// A whole number, both bounds included.
    Number(u32, u32),
    /// True or false.
    Flag,
    /// A duration.
    Duration(Bounds),
    /// A table.
    Table(&'static Section),
    /// A table, or a text that stands for a table with nothing but this key.
    Short(&'static str, &'static Section),
    /// A list of tables.
    Tables(&'static Section),
    /// A list of tables and of texts that stand for a table with nothing but this key; a text alone is a list of one.
    Entries(&'static str, &'static Section),
}

/// The durations that a key takes.
#[derive(Debug)]
pub struct Bounds {
    /// The shortest.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
    /// Whether only whole seconds are meant.
    pub whole_seconds: bool,
}

impl Kind {
    /// The type in words, for messages and the reference.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a text or a list of texts",
            Self::Choice(_) => "a word",
            Self::Number(..) => "a whole number",
            Self::Flag => "true or false",
            Self::Duration(_) => "a duration",
            Self::Table(_) => "a table",
            Self::Short(..) => "a word or a table",
            Self::Tables(_) => "a list of tables",
            Self::Entries(..) => "a list of texts and tables",
        }
    }

    /// The section of a value that is a table, or several.
    pub fn section(&self) -> Option<&'static Section> {
        match self {
            Self::Table(section)
            | Self::Short(_, section)
            | Self::Tables(section)
            | Self::Entries(_, section) => Some(section),
            _ => None,
        }
    }
}

/// The longest duration: 2^31 ms, which is what a kernel built with HZ=1000 takes for a conntrack timeout, and
/// what `epoll_wait` takes.
const MOST: Duration = Duration::from_secs(24 * 86_400);
const CLOCK: Kind =
    Kind::Duration(Bounds { least: Duration::from_millis(1), most: MOST, whole_seconds: false });
const KERNEL_CLOCK: Kind =
    Kind::Duration(Bounds { least: Duration::from_secs(1), most: MOST, whole_seconds: true });

/// A key that may be left out.
const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    example: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        required: false,
        default,
        example,
        doc,
        types: &[],
        elsewhere: &[],
        words_elsewhere: &[],
        too_large: "leave the key out for the default",
    }
}

const fn also_called(key: Key, elsewhere: &'static [&'static str]) -> Key {
    Key { elsewhere, ..key }
}

const fn words_also_called(key: Key, words_elsewhere: &'static [(&'static str, &'static str)]) -> Key {
    Key { words_elsewhere, ..key }
}

const fn too_large(key: Key, too_large: &'static str) -> Key {
    Key { too_large, ..key }
}

const fn required(key: Key) -> Key {
    Key { required: true, ..key }
}

/// The words of a list that gives each a meaning.
const fn words<T: Copy, const N: usize>(pairs: &[(&'static str, T); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut nth = 0;
    while nth < N {
        words[nth] = pairs[nth].0;
        nth += 1;
    }
    words
}

/// The top of the file.
pub static FILE: Section = Section {
    header: "",
    doc: "A file is a list of rules, and settings of the host and of the engines, all of which may be left out.",
    keys: &[
        key("host", Kind::Table(&settings::HOST), "", "", ""),
        key("control", Kind::Table(&settings::CONTROL), "", "", ""),
        key("proxy", Kind::Table(&settings::PROXY), "", "", ""),
        also_called(key("ebpf", Kind::Table(&ebpf::EBPF), "", "", ""), &["bpf", "xdp", "tc"]),
        also_called(
            key("dns", Kind::Table(&settings::DNS), "", "", ""),
            &["resolvers", "resolver", "nameservers"],
        ),
        also_called(
            key("rule", Kind::Tables(&rule::RULE), "", "", ""),
            &["rules", "forward", "forwards", "service", "services", "upstream", "virtual_server"],
        ),
    ],
};

impl Section {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// This section and all below it, in the order of the reference.
    pub fn walk(&'static self) -> Vec<&'static Section> {
        let below = self.keys.iter().filter_map(|key| key.kind.section());
        std::iter::once(self).chain(below.flat_map(Section::walk)).collect()
    }
}

/// The hint for a key that `section` does not have.
pub fn hint_for_unknown(section: &'static Section, unknown: &str) -> String {
    let names = || section.keys.iter().map(|key| key.name);
    if let Some(near) = nearest(unknown, names()) {
        return format!("did you mean `{near}`?");
    }
    let lower = unknown.to_ascii_lowercase();
    let called =
        |section: &'static Section| section.keys.iter().find(|key| key.elsewhere.contains(&lower.as_str()));
    if let Some(key) = called(section) {
        let example = match key.example {
            "" => String::new(),
            example => format!(": {} = {example}", key.name),
        };
        return format!("Portway calls it `{}`{example}", key.name);
    }
    if std::ptr::eq(section, &rule::RULE) && PROTOCOL.contains(&lower.as_str()) {
        return "the protocol stands in `listen`: listen = \"udp/0.0.0.0:53\"; without one it is tcp"
            .to_owned();
    }
    let dashed = lower.replace('_', "-");
    let has = |other: &&Section| other.key(&dashed).is_some_and(|key| !key.doc.is_empty());
    // What stands below this section is nearer than what stands elsewhere.
    let home = section.walk().into_iter().find(has).or_else(|| FILE.walk().into_iter().find(has));
    match home {
        Some(home) if std::ptr::eq(home, &backend::BACKEND) => return belongs_to_a_backend(&dashed),
        Some(home) => return format!("`{dashed}` belongs in {}", home.header),
        None => {}
    }
    if std::ptr::eq(section, &pool::POOL)
        && let Some(near) = nearest(unknown, backend::BACKEND.keys.iter().map(|key| key.name))
    {
        return belongs_to_a_backend(near);
    }
    if let Some((below, key)) = section.walk().into_iter().find_map(|below| Some((below, called(below)?))) {
        return format!("Portway calls it `{}`, in {}", key.name, below.header);
    }
    format!("known here: {}", names().collect::<Vec<_>>().join(", "))
}

/// What says the protocol elsewhere (HAProxy's `mode`), where Portway has no key for it.
const PROTOCOL: [&str; 2] = ["mode", "proto"];

/// The hint for a key of [`backend::BACKEND`] that stands somewhere else.
fn belongs_to_a_backend(name: &str) -> String {
    let setting = match backend::BACKEND.key(name) {
        Some(key) if !key.required => format!(", {} = {}", key.name, key.example),
        _ => String::new(),
    };
    format!(
        "`{name}` belongs to a backend, in [rule.pool]: backends = [{{ address = \"10.0.0.1:80\"{setting} }}]"
    )
}

/// Which types of a section a key belongs to, told by the fewer words.
pub enum Types {
    /// All of them.
    All,
    /// These.
    Only(Vec<&'static str>),
    /// All but these.
    Not(Vec<&'static str>),
}

impl Section {
    /// Which of the section's types `key` belongs to.
    pub fn types(&self, key: &Key) -> Types {
        let Some(Kind::Choice(words)) = self.key("type").map(|key| &key.kind) else { return Types::All };
        let others: Vec<&str> = words.iter().copied().filter(|word| !key.types.contains(word)).collect();
        match key.types.len() {
            0 => Types::All,
            few if few <= others.len() => Types::Only(key.types.to_vec()),
            _ => Types::Not(others),
        }
    }
}

/// The hint for a key that does not go with the section's `type`.
pub fn hint_for_type(section: &'static Section, key: &Key, word: &str) -> String {
    let whose = match section.types(key) {
        Types::Not(words) => format!("every type but {}", words.join(", ")),
        Types::All | Types::Only(_) => key.types.join(", "),
    };
    let own = section.keys.iter().filter(|key| key.types.contains(&word));
    let own = own.filter(|key| matches!(section.types(key), Types::Only(_))).map(|key| key.name);
    format!("`{}` is for {whose}; {word} has {}", key.name, own.collect::<Vec<_>>().join(", "))
}
