//! Plans and changes as batches of nf_tables messages. Every message remembers what it is about, so that a
//! refusal can name the rule.

use portway_core::address::Protocol;
use portway_core::plan::nftables::statement::Statement;
use portway_core::plan::nftables::table::{Chain, TABLE};
use portway_core::plan::nftables::{Change, Entry, HelperObject, Key, RuleId, Set, layout_comment};
use portway_netlink::wire::{Writer, flag};

use crate::expression;
use crate::primitive::CT_HELPER;
use crate::set;

/// `NFNL_SUBSYS_NFTABLES`
pub const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFPROTO_INET`
pub const INET: u8 = 1;

/// Message types (`enum nf_tables_msg_types`).
pub mod kind {
    use super::SUBSYSTEM;
    pub const NEW_TABLE: u16 = SUBSYSTEM;
    pub const GET_TABLE: u16 = SUBSYSTEM | 1;
    pub const DEL_TABLE: u16 = SUBSYSTEM | 2;
    pub const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    pub const GET_CHAIN: u16 = SUBSYSTEM | 4;
    pub const DEL_CHAIN: u16 = SUBSYSTEM | 5;
    pub const NEW_RULE: u16 = SUBSYSTEM | 6;
    pub const GET_RULE: u16 = SUBSYSTEM | 7;
    pub const DEL_RULE: u16 = SUBSYSTEM | 8;
    pub const NEW_SET: u16 = SUBSYSTEM | 9;
    pub const NEW_ELEMENT: u16 = SUBSYSTEM | 12;
    pub const GET_ELEMENT: u16 = SUBSYSTEM | 13;
    pub const DEL_ELEMENT: u16 = SUBSYSTEM | 14;
    pub const GET_GENERATION: u16 = SUBSYSTEM | 16;
    pub const NEW_OBJECT: u16 = SUBSYSTEM | 18;
    pub const GET_OBJECT: u16 = SUBSYSTEM | 19;
    pub const DEL_OBJECT: u16 = SUBSYSTEM | 20;
}

/// An element list is an attribute, so at most 65,535 bytes; the largest element of ours has about 300.
const LIST: usize = 60_000;

/// What a message of a batch is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The table, a chain, a rule or a set.
    Structure(String),
    /// A chain of a rule's own, or what stands in it.
    Own(RuleId, String),
    /// A conntrack helper object.
    Helper(HelperObject),
    /// Elements of a set, by their keys.
    Elements(Set, Vec<Key>),
}

/// A batch in the making.
pub struct Batch {
    writer: Writer,
    first: u32,
    subjects: Vec<Subject>,
    last: usize,
    table: &'static str,
    /// The most elements in one message.
    limit: usize,
    /// The number of the last set in the batch.
    sets: u32,
}

impl Batch {
    /// A batch whose messages count from sequence number `first`, valid only while the kernel's ruleset is of
    /// this generation.
    pub fn new(first: u32, generation: Option<u32>) -> Self {
        let mut writer = Writer::default();
        writer.message(BATCH_BEGIN, flag::REQUEST, first, |w| {
            w.nfgen(0, SUBSYSTEM >> 8);
            if let Some(generation) = generation {
                w.be32(1, generation);
            }
        });
        Self { writer, first, subjects: Vec::new(), last: 0, table: TABLE, limit: usize::MAX, sets: 0 }
    }

    /// The same for a table of another name, for trying things out.
    pub fn for_table(mut self, table: &'static str) -> Self {
        self.table = table;
        self
    }

    /// Sends every element in a message of its own, so that a refusal names it.
    pub fn one_by_one(mut self) -> Self {
        self.limit = 1;
        self
    }

    /// Whether nothing has been put into the batch.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// The sequence number of the batch's first message.
    pub fn first_sequence(&self) -> u32 {
        self.first
    }

    /// The bytes without the end: the kernel checks all of it, reports every error, and undoes it.
    pub fn rehearsal(&self) -> &[u8] {
        self.writer.bytes()
    }

    /// The bytes that the kernel carries out.
    pub fn finish(&mut self) -> &[u8] {
        self.writer.add_flags(self.last, flag::ACK);
        let sequence = self.next_sequence();
        self.writer.message(BATCH_END, flag::REQUEST, sequence, |w| w.nfgen(0, SUBSYSTEM >> 8));
        self.writer.bytes()
    }

    /// What the message with this sequence number is about; `None` for the batch as a whole.
    pub fn subject(&self, sequence: u32) -> Option<&Subject> {
        let index = sequence.checked_sub(self.first)?.checked_sub(1)?;
        self.subjects.get(usize::try_from(index).ok()?)
    }

    /// The sequence number after the last one used.
    pub fn next_sequence(&self) -> u32 {
        let count = u32::try_from(self.subjects.len()).unwrap_or(u32::MAX);
        self.first.wrapping_add(count).wrapping_add(1)
    }

    fn message(&mut self, kind: u16, flags: u16, subject: Subject, body: impl FnOnce(&mut Writer)) {
        self.last = self.writer.len();
        let sequence = self.next_sequence();
        self.subjects.push(subject);
        self.writer.message(kind, flag::REQUEST | flags, sequence, |w| {
            w.nfgen(INET, 0);
            body(w);
        });
    }

    /// Deletes the table with all that is in it.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.message(kind::DEL_TABLE, 0, structure("the table"), |w| w.text(1, table));
    }

    /// Makes the table with everything but elements and helper objects; the guard chain only with `guard`.
    pub fn create_table(&mut self, guard: bool) {
        let table = self.table;
        self.message(kind::NEW_TABLE, flag::CREATE | flag::EXCL, structure("the table"), |w| {
            w.text(1, table);
            w.be32(2, 0);
            w.put(6, &set::comment(&layout_comment()));
        });
        Set::ALL.into_iter().for_each(|set| self.create_set(set));
        let chains = || Chain::ALL.into_iter().filter(move |chain| *chain != Chain::Guard || guard);
        chains().for_each(|chain| self.create_chain(chain));
        chains().for_each(|chain| self.create_rules(chain, &chain.rules()));
    }

    /// Turns the table's content from one plan to another, as the change says.
    pub fn change(&mut self, change: &Change) {
        change.add_helpers.iter().for_each(|object| self.create_helper(*object));
        for (set, keys) in &change.remove {
            self.remove_elements(*set, keys.iter());
        }
        for chain in change.add_chains.keys() {
            if change.remove_chains.contains(chain) {
                self.remove(kind::DEL_RULE, *chain, 2);
            } else {
                self.create_chain(*chain);
            }
        }
        // Rules before elements: the kernel looks at every element of a map that a new rule asks.
        for (chain, own) in &change.add_chains {
            self.create_rules(*chain, &chain.own_rules(own));
        }
        for (set, elements) in &change.add {
            let elements = elements.iter().map(|(key, entry)| (key, Some(entry)));
            self.elements(kind::NEW_ELEMENT, flag::CREATE | flag::EXCL, *set, elements);
        }
        for object in &change.remove_helpers {
            self.remove(kind::DEL_CHAIN, Chain::Attach(*object), 3);
            let table = self.table;
            self.message(kind::DEL_OBJECT, 0, Subject::Helper(*object), |w| {
                w.text(1, table);
                w.text(2, object.name());
                w.be32(3, CT_HELPER);
            });
        }
        match change.guard {
            Some(true) => {
                self.create_chain(Chain::Guard);
                self.create_rules(Chain::Guard, &Chain::Guard.rules());
            }
            Some(false) => self.remove(kind::DEL_CHAIN, Chain::Guard, 3),
            None => {}
        }
        for chain in change.remove_chains.iter().filter(|chain| !change.add_chains.contains_key(chain)) {
            self.remove(kind::DEL_CHAIN, *chain, 3);
        }
    }

    /// Removes a chain, or all of its rules; `name` is the attribute that names the chain.
    fn remove(&mut self, kind: u16, chain: Chain, name: u16) {
        let table = self.table;
        self.message(kind, 0, of_chain(chain, &format!("chain {}", chain.name())), |w| {
            w.text(1, table);
            w.text(name, &chain.name());
        });
    }

    /// Declares a conntrack helper object, and the chain that attaches it.
    pub fn create_helper(&mut self, object: HelperObject) {
        let table = self.table;
        self.message(kind::NEW_OBJECT, flag::CREATE | flag::EXCL, Subject::Helper(object), |w| {
            w.text(1, table);
            w.text(2, object.name());
            w.be32(3, CT_HELPER);
            w.nest(4, |w| {
                w.text(1, object.helper.name());
                w.put(2, &u16::from(INET).to_be_bytes());
                w.put(3, &[object.protocol.number()]);
            });
        });
        let chain = Chain::Attach(object);
        self.create_chain(chain);
        self.create_rules(chain, &chain.rules());
    }

    /// Makes a chain without rules.
    pub fn create_chain(&mut self, chain: Chain) {
        let table = self.table;
        let subject = of_chain(chain, &format!("chain {}", chain.name()));
        self.message(kind::NEW_CHAIN, flag::CREATE | flag::EXCL, subject, |w| {
            w.text(1, table);
            w.text(3, &chain.name());
            if let Some(hook) = chain.hook() {
                w.nest(4, |w| {
                    w.be32(1, hook.number);
                    w.put(2, &hook.priority.to_be_bytes());
                });
                // NF_ACCEPT
                w.be32(5, 1);
                w.text(7, hook.kind);
            }
        });
    }

    /// Puts rules into a chain.
    pub fn create_rules(&mut self, chain: Chain, rules: &[Vec<Statement>]) {
        let table = self.table;
        for statements in rules {
            if statements.contains(&Statement::TcpOrUdp) {
                self.create_anonymous();
            }
            let anonymous = self.sets;
            let words: Vec<String> = statements.iter().map(ToString::to_string).collect();
            let what = format!("rule \"{}\" in chain {}", words.join(" "), chain.name());
            self.message(kind::NEW_RULE, flag::CREATE | flag::APPEND, of_chain(chain, &what), |w| {
                w.text(1, table);
                w.text(2, &chain.name());
                w.nest(4, |w| expression::rule(w, statements, anonymous));
            });
        }
    }

    fn create_set(&mut self, set: Set) {
        let (table, shape) = (self.table, set.shape());
        let subject = structure(&format!("set {}", shape.name));
        self.sets += 1;
        let id = self.sets;
        self.message(kind::NEW_SET, flag::CREATE | flag::EXCL, subject, |w| {
            w.text(1, table);
            w.text(2, shape.name);
            set::declaration(w, &shape, id);
        });
    }

    /// Makes the set of protocols that the next rule refers to.
    fn create_anonymous(&mut self) {
        let table = self.table;
        self.sets += 1;
        let id = self.sets;
        self.message(kind::NEW_SET, flag::CREATE, structure("set { tcp, udp }"), |w| {
            w.text(1, table);
            set::tcp_and_udp(w, id);
        });
        self.message(kind::NEW_ELEMENT, flag::CREATE, structure("set { tcp, udp }"), |w| {
            w.text(1, table);
            w.text(2, set::ANONYMOUS);
            w.be32(4, id);
            w.nest(3, |w| {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    w.nest(1, |w| w.nest(1, |w| w.put(1, &[protocol.number()])));
                }
            });
        });
    }

    /// Removes elements.
    pub fn remove_elements<'a>(&mut self, set: Set, keys: impl Iterator<Item = &'a Key>) {
        self.elements(kind::DEL_ELEMENT, 0, set, keys.map(|key| (key, None)));
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: u16,
        set: Set,
        elements: impl Iterator<Item = (&'a Key, Option<&'a Entry>)>,
    ) {
        let (table, shape) = (self.table, set.shape());
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            let mut list = Writer::default();
            let mut keys = Vec::new();
            while list.len() < LIST && keys.len() < self.limit {
                let Some((key, entry)) = elements.next() else { break };
                set::element(&mut list, &shape, key, entry);
                keys.push(key.clone());
            }
            self.message(kind, flags, Subject::Elements(set, keys), |w| {
                w.text(1, table);
                w.text(2, shape.name);
                w.nest(3, |w| w.raw(list.bytes()));
            });
        }
    }
}

/// What a message about a chain is about.
fn of_chain(chain: Chain, what: &str) -> Subject {
    match chain {
        Chain::Pool(id) | Chain::Remember(id) => Subject::Own(id, what.to_owned()),
        Chain::Attach(object) => Subject::Helper(object),
        _ => structure(what),
    }
}

fn structure(what: &str) -> Subject {
    Subject::Structure(what.to_owned())
}
