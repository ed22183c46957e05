//! The engines under test by their words, and the rules of the file that are pinned to them.
//!
//! The `ebpf` engine counts several times, once for each place where its programs hang, because each is a data path of its own.
//! Deliberately absent: what an engine can and cannot do. That is what the scenarios find out.

use std::borrow::Cow;
use std::fmt;

/// An engine under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// NAT in the kernel.
    Nftables,
    /// eBPF programs at the TC hook.
    Ebpf,
    /// The same engine with its programs at the XDP hook as well.
    Xdp,
    /// The same engine at TC by the clsact queueing discipline, as on kernels without tcx.
    Clsact,
    /// The user-space relay.
    Proxy,
}

/// Stands behind the engine of a rule, as a comment of the file, until [`attached`] reads it.
const ATTACH: &str = "# attach = ";

impl Engine {
    /// The engine of that word.
    ///
    /// # Panics
    /// When there is no such engine.
    pub fn named(word: &str) -> Self {
        match word {
            "nftables" => Self::Nftables,
            "ebpf" => Self::Ebpf,
            "xdp" => Self::Xdp,
            "clsact" => Self::Clsact,
            "proxy" => Self::Proxy,
            _ => panic!("no engine is called {word:?}"),
        }
    }

    /// The engines that a rule of this one may move to and come back from. Over all engines: every pair.
    pub fn others(self) -> &'static [Self] {
        match self {
            Self::Nftables => &[Self::Proxy],
            Self::Proxy => &[Self::Nftables],
            Self::Ebpf | Self::Xdp | Self::Clsact => &[Self::Nftables, Self::Proxy],
        }
    }

    /// Whether it is the `ebpf` engine, wherever its programs hang.
    pub fn is_ebpf(self) -> bool {
        matches!(self, Self::Ebpf | Self::Xdp | Self::Clsact)
    }

    /// An engine for the rules of a file that reach the loopback: this one, or nftables beside `ebpf`, which sees what
    /// arrives on interfaces only.
    pub fn for_loopback(self) -> Self {
        if self.is_ebpf() { Self::Nftables } else { self }
    }

    /// A `[[rule]]` of the file with these keys, pinned to this engine.
    pub fn rule(self, keys: &str) -> String {
        let attach = match self {
            Self::Ebpf => format!(" {ATTACH}'tc'"),
            Self::Xdp => format!(" {ATTACH}'xdp'"),
            Self::Clsact => format!(" {ATTACH}'clsact'"),
            Self::Nftables | Self::Proxy => String::new(),
        };
        format!("[[rule]]\nengine = '{self}'{attach}\n{keys}\n")
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

/// The file as Portway is to read it: where its rules are pinned to [`Engine::Ebpf`] or another place of that engine, its
/// `[ebpf]` table says where the programs hang. Scenarios join rules like strings, and a file has this table once, so this is done last.
pub fn attached(file: &str) -> Cow<'_, str> {
    let Some(attach) = attach(file) else { return file.into() };
    let key = format!("[ebpf]\nattach = {attach}\n");
    if file.lines().any(|line| line == "[ebpf]") {
        return file.replacen("[ebpf]\n", &key, 1).into();
    }
    format!("{file}\n{key}").into()
}

/// Whether a rule of the file is pinned to [`Engine::Xdp`].
pub fn wants_xdp(file: &str) -> bool {
    attach(file) == Some("'xdp'")
}

fn attach(file: &str) -> Option<&str> {
    file.lines().find_map(|line| line.split_once(ATTACH)).map(|(_, attach)| attach)
}

/// The word of the configuration file.
impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Ebpf | Self::Xdp | Self::Clsact => "ebpf",
            Self::Proxy => "proxy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ebpf_table_is_written_once() {
        let rules =
            Engine::Xdp.forward("0.0.0.0:1", "192.0.2.1:1") + &Engine::Xdp.forward("[::]:1", "[::2]:1");
        let file = attached(&rules).into_owned();
        assert_eq!(file.matches("\n[ebpf]\nattach = 'xdp'\n").count(), 1, "{file}");
        assert!(wants_xdp(&file));
    }

    #[test]
    fn a_table_that_is_there_gets_the_key() {
        let file =
            "[ebpf]\nmax-flows = 1024\n".to_owned() + &Engine::Ebpf.forward("0.0.0.0:1", "192.0.2.1:1");
        assert!(attached(&file).starts_with("[ebpf]\nattach = 'tc'\nmax-flows = 1024\n"));
        assert!(!wants_xdp(&file));
    }

    #[test]
    fn other_files_stay_as_they_are() {
        let file = Engine::Nftables.forward("0.0.0.0:1", "192.0.2.1:1") + "[ebpf]\nmax-flows = 1024\n";
        assert_eq!(attached(&file), file);
    }
}
