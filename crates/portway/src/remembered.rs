//! What outlives the daemon because the operator asked for it: orders given with `--keep`, and names as they were
//! last resolved (`init = "last-known"`). Two JSON files in the state directory; `portway clear` removes them.
//!
//! Deliberately absent: what they mean (`portway_core::facts`).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portway_core::facts::{Answer, Facts, Lookup, Order, Orders};
use portway_core::members;
use portway_core::ruleset::{BackendName, Init, RuleName, Ruleset};
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

    /// What an earlier run left, as far as these rules want it: names only where `init` says so.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood: an order that is silently forgotten would send traffic
    /// to a backend that someone took out.
    pub fn load(&self, ruleset: &Ruleset) -> io::Result<Facts> {
        let wanted = wanted(ruleset);
        let orders: Vec<KeptOrder> = read(&self.orders)?;
        let names: Vec<KeptAnswer> = read(&self.names)?;
        let key = |kept: &KeptOrder| Some((RuleName::new(&kept.rule)?, BackendName::new(&kept.backend)?));
        Ok(Facts {
            orders: orders.into_iter().filter_map(|kept| Some((key(&kept)?, kept.order))).collect(),
            names: names
                .into_iter()
                .filter(|kept| wanted.contains_key(&kept.lookup))
                .map(|kept| (kept.lookup, kept.answer))
                .collect(),
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

    /// Keeps the names as they are now, of the rules that will want them. Empty answers are not worth keeping.
    ///
    /// # Errors
    /// The file that cannot be written.
    pub fn keep_names(&self, ruleset: &Ruleset, names: &BTreeMap<Lookup, Answer>) -> io::Result<()> {
        let wanted = wanted(ruleset);
        let kept = names
            .iter()
            .filter(|(lookup, answer)| !answer.is_empty() && wanted.contains_key(lookup))
            .map(|(lookup, answer)| KeptAnswer { lookup: lookup.clone(), answer: answer.clone() });
        write(&self.names, &kept.collect::<Vec<_>>())
    }

    /// Whether there is anything.
    pub fn is_there(&self) -> bool {
        self.orders.exists() || self.names.exists()
    }

    /// Forgets all of it.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        remove(&self.orders).and(remove(&self.names))
    }
}

/// The names that begin with their last known answer. Where rules of both kinds ask for one name, it has it for both.
fn wanted(ruleset: &Ruleset) -> BTreeMap<Lookup, Vec<usize>> {
    members::lookups(ruleset.rules.iter().filter(|rule| rule.pool.init == Init::LastKnown))
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

#[cfg(test)]
mod tests {
    use portway_core::facts::{Admin, Resolved};

    use super::*;

    #[test]
    fn what_was_to_be_kept_is_read_back_and_forgotten() {
        let dir = std::env::temp_dir().join(format!("portway-remembered-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let files = Remembered::new(&dir);
        let file = |init: &str| {
            let rule = |name| {
                format!("[[rule]]\nname='{name}'\nlisten='80'\nforward='{name}'\npool.init='{init}'\n")
            };
            portway_core::config::load(&rule("app.example")).whole().0.expect("a valid file")
        };
        let ruleset = file("last-known");
        assert_eq!(files.load(&ruleset).unwrap(), Facts::default());
        let key = |backend| (RuleName::new("web").unwrap(), BackendName::new(backend).unwrap());
        let order =
            |keep| Order { admin: Some(Admin::Drain), by: "root".to_owned(), keep, ..Order::default() };
        let orders = Orders::from([(key("10.0.0.1:80"), order(true)), (key("10.0.0.2:80"), order(false))]);
        files.keep_orders(&orders).unwrap();
        let lookup = |name: &str| Lookup::Addresses(name.to_owned());
        let address = Resolved { address: "10.0.0.9".parse().unwrap(), port: None, weight: 0, priority: 0 };
        let names =
            BTreeMap::from([(lookup("app.example"), vec![address]), (lookup("gone.example"), Vec::new())]);
        files.keep_names(&ruleset, &names).unwrap();
        assert!(files.load(&file("none")).unwrap().names.is_empty());
        let facts = files.load(&ruleset).unwrap();
        assert_eq!(facts.orders.into_keys().collect::<Vec<_>>(), [key("10.0.0.1:80")]);
        assert_eq!(facts.names.into_keys().collect::<Vec<_>>(), [lookup("app.example")]);
        // Nothing to keep leaves no file.
        files.keep_orders(&Orders::new()).unwrap();
        assert!(files.is_there() && !files.orders.exists());
        fs::write(&files.orders, "[{]").unwrap();
        assert!(files.load(&ruleset).unwrap_err().to_string().contains("orders.json"));
        files.forget().unwrap();
        assert!(!files.is_there());
        fs::remove_dir(&dir).unwrap();
    }
}
