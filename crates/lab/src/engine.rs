//! The engines by the words of the configuration file.

use std::fmt;

/// An engine under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// NAT in the kernel.
    Nftables,
    /// The user-space relay.
    Proxy,
}

impl Engine {
    /// The engine of that word.
    ///
    /// # Panics
    /// When there is no such engine.
    pub fn named(word: &str) -> Self {
        match word {
            "nftables" => Self::Nftables,
            "proxy" => Self::Proxy,
            _ => panic!("no engine is called {word:?}"),
        }
    }

    /// A `[[rule]]` of the file with these keys, pinned to this engine.
    pub fn rule(self, keys: &str) -> String {
        format!("[[rule]]\nengine = '{self}'\n{keys}\n")
    }

    /// A rule named "pool" with these backends (inline tables, see [`crate::farm::Farm::backend`]) and the settings of
    /// its `[rule.pool]`, pinned to this engine.
    pub fn pool(self, listen: &str, backends: &[String], settings: &str) -> String {
        self.rule(&format!("name = 'pool'\nlisten = '{listen}'\n{}", pool_table(backends, settings)))
    }

    /// A rule with nothing but a listener and a backend, pinned to this engine.
    pub fn forward(self, listen: &str, backend: &str) -> String {
        self.rule(&format!("listen = '{listen}'\nforward = '{backend}'"))
    }
}

/// The `[rule.pool]` of a rule.
pub fn pool_table(backends: &[String], settings: &str) -> String {
    format!("[rule.pool]\nbackends = [{}]\n{settings}\n", backends.join(", "))
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Proxy => "proxy",
        })
    }
}
