//! What outlives the daemon because the operator asked for it: orders given with `--keep`, and names as they were
//! last resolved (`init = "last-known"`). Two JSON files in the state directory; `portway clear` removes them.
//!
//! Deliberately absent: what they mean (`portway_core::facts`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portway_core::facts::{Answer, Facts, Lookup, Order, Orders};
use portway_core::ruleset::{BackendName, RuleName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// An order as the file has it.
#[derive(Serialize, Deserialize)]
struct KeptOrder {
    rule: String,
    backend: String,
    order: Order,
}

/// A name and its answer as the file has them.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    lookup: Lookup,
    answer: Answer,
}

/// The two files of a state directory.
#[derive(Debug)]
pub struct Remembered {
    orders: PathBuf,
    names: PathBuf,
}

impl Remembered {
    /// The files in `state_dir`, there or not.
    pub fn new(state_dir: &Path) -> Self {
        Self { orders: state_dir.join("orders.json"), names: state_dir.join("names.json") }
    }

    /// What an earlier run left.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood: an order that is silently forgotten would send traffic
    /// to a backend that someone took out.
    pub fn load(&self) -> io::Result<Facts> {
        let orders: Vec<KeptOrder> = read(&self.orders)?;
        let names: Vec<KeptAnswer> = read(&self.names)?;
        let key = |kept: &KeptOrder| Some((RuleName::new(&kept.rule)?, BackendName::new(&kept.backend)?));
        Ok(Facts {
            orders: orders.into_iter().filter_map(|kept| Some((key(&kept)?, kept.order))).collect(),
            names: names.into_iter().map(|kept| (kept.lookup, kept.answer)).collect(),
            ..Facts::default()
        })
    }

    /// Keeps the orders that were given to be kept.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn keep_orders(&self, orders: &Orders) -> io::Result<()> {
        let kept = orders.iter().filter(|(_, order)| order.keep).map(|((rule, backend), order)| KeptOrder {
            rule: rule.to_string(),
            backend: backend.to_string(),
            order: order.clone(),
        });
        write(&self.orders, &kept.collect::<Vec<_>>())
    }

    /// Keeps the names as they are now. Empty answers are not worth keeping.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn keep_names(&self, names: &BTreeMap<Lookup, Answer>) -> io::Result<()> {
        let kept = names
            .iter()
            .filter(|(_, answer)| !answer.is_empty())
            .map(|(lookup, answer)| KeptAnswer { lookup: lookup.clone(), answer: answer.clone() });
        write(&self.names, &kept.collect::<Vec<_>>())
    }

    /// Forgets all of it.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        remove(&self.orders).and(remove(&self.names))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// Writes the entries, or removes the file where there are none.
fn write<T: Serialize>(path: &Path, entries: &[T]) -> io::Result<()> {
    if entries.is_empty() {
        return remove(path);
    }
    let text = serde_json::to_vec_pretty(entries).map_err(io::Error::other)?;
    crate::state_dir::replace(path, &text)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
