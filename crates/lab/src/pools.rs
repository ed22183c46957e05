//! What the operator sees and says of pools, by the command line: backends and their states, orders, live flows.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Portway;
use crate::netns::PATIENCE;

impl Portway {
    /// The backends of a rule in the status, in its order.
    ///
    /// # Panics
    /// When the status has none.
    pub fn backends(&self, rule: &str) -> Vec<Value> {
        let status = self.status();
        let rules = status["rules"].as_array().cloned().unwrap_or_default();
        let found = rules.iter().find(|found| found["name"] == rule);
        let backends = found.and_then(|rule| rule["backends"].as_array()).cloned();
        backends.unwrap_or_else(|| panic!("no backends of rule {rule} in {status:#}"))
    }

    /// One backend in the status, by its name or its target.
    ///
    /// # Panics
    /// When it is not there.
    pub fn backend(&self, rule: &str, backend: &str) -> Value {
        let backends = self.backends(rule);
        let found = backends.iter().find(|found| found["name"] == backend || found["target"] == backend);
        found.cloned().unwrap_or_else(|| panic!("no backend {backend} of rule {rule} in {backends:#?}"))
    }

    /// The state of a backend of the rule "pool".
    pub fn state(&self, backend: &str) -> String {
        self.backend("pool", backend)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a backend of the rule "pool" is in a state, and says how long that took.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn until(&self, backend: &str, state: &str) -> Duration {
        self.until_in("pool", backend, state)
    }

    /// The same of another rule.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn until_in(&self, rule: &str, backend: &str, state: &str) -> Duration {
        let start = Instant::now();
        loop {
            let found = self.backend(rule, backend);
            if found["state"] == state {
                return start.elapsed();
            }
            assert!(start.elapsed() < PATIENCE, "{rule}/{backend} is never {state}: {found:#}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Runs a command of the operator ("drain pool/a"), and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn order(&self, words: &str) -> String {
        self.command(words).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// The live flows that these filters mean, and how many there are in all.
    ///
    /// # Panics
    /// When the command fails or prints something else.
    pub fn conns(&self, filters: &str) -> (Vec<Value>, u64) {
        let text = self.order(&format!("conns --json {filters}"));
        let listing: Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("conns --json is not JSON: {e}\n{text}"));
        let flows = listing["flows"].as_array().cloned();
        let total = listing["total"].as_u64();
        flows.zip(total).unwrap_or_else(|| panic!("conns --json lacks flows or total: {listing:#}"))
    }

    /// Ends the flows that these filters mean, and says how many it printed.
    ///
    /// # Panics
    /// When the command fails or prints no number.
    pub fn kill_flows(&self, filters: &str) -> u64 {
        let text = self.order(&format!("kill {filters}"));
        let number = text.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse().ok());
        number.unwrap_or_else(|| panic!("kill says no number: {text}"))
    }

    /// A figure of the status's "facts".
    ///
    /// # Panics
    /// When it is not there.
    pub fn fact(&self, key: &str) -> u64 {
        let status = self.status();
        let found = status["facts"][key].as_u64();
        found.unwrap_or_else(|| panic!("no facts.{key} in {status:#}"))
    }
}
