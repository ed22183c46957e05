//! What is asked for: which lanes and loads, how long, and where the result goes.
//!
//! Deliberately absent: what the lanes and loads are ([`crate::lane`], [`crate::load`]), and the words of the command line.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exact::Exact;
use crate::lane::Scheme;
use crate::load::{self, Load};
use crate::record::Mode;

/// The orders of the stage.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Options {
    /// Names of lanes and loads. Lanes: only these, and what they are compared with; loads: only these. None: the usual ones.
    pub only: Vec<String>,
    /// How much time there is.
    pub scale: Scale,
    /// How many rounds, if not as many as usual.
    pub rounds: Option<u32>,
    /// Forwarders of the user's.
    pub peers: Vec<Peer>,
    /// What is to grow, besides what `scale` has.
    pub series: Vec<Series>,
    /// Where packet captures go, if they are wanted: a directory, by its whole path.
    #[serde(default)]
    pub captures: Option<PathBuf>,
    /// Whether it is to be seen where the work goes.
    #[serde(default)]
    pub profile: bool,
    /// The machine that counts instructions, if they are to be counted.
    pub exact: Option<Exact>,
}

/// Something that grows, to see what costs grow with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Series {
    /// Rules, one of which is used.
    Rules,
    /// Flows that are there and do nothing.
    Flows,
    /// Connections at a time.
    Concurrency,
    /// Backends of the pool.
    Backends,
}

impl Series {
    /// All.
    pub const ALL: [Self; 4] = [Self::Rules, Self::Flows, Self::Concurrency, Self::Backends];

    /// The name by which it is known.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Flows => "flows",
            Self::Concurrency => "concurrency",
            Self::Backends => "backends",
        }
    }

    /// The one that is known by a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|series| series.name() == name)
    }

    /// Its points. Concurrency ends where the descriptors of the client's process do; what ends earlier for a lane is said of it
    /// ([`crate::schedule::Trial::possible`]).
    pub fn counts(self) -> Vec<u64> {
        match self {
            Self::Rules => vec![1, 100, 10_000, 100_000],
            Self::Flows => vec![1, 1000, 10_000, 100_000, 1_000_000],
            Self::Concurrency => {
                let most = load::one_sided().clamp(1, 10_000);
                [1, 10, 100, 1000].into_iter().filter(|count| *count < most).chain([most]).collect()
            }
            Self::Backends => vec![1, 2, 10, 100],
        }
    }

    /// Whether plain routing can be asked as well.
    pub const fn has_zero_line(self) -> bool {
        matches!(self, Self::Concurrency)
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::named(word).ok_or_else(|| format!("there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// How much time there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scale {
    /// Half a minute: everything works, the figures are rough.
    Quick,
    /// Under five minutes.
    #[default]
    Usual,
    /// As long as good figures take, series included.
    Long,
}

/// A forwarder of the user's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The name of its lane.
    pub name: String,
    /// Its command line, split at white space, with [`PLACES`] in it.
    pub command: String,
}

/// What stands in a peer's command for where it is to listen and where to forward to.
pub const PLACES: [&str; 6] =
    ["{listen}", "{target}", "{listen_host}", "{listen_port}", "{target_host}", "{target_port}"];

impl Peer {
    /// The command line that forwards from one address and port to another.
    pub fn words(&self, listen: (&str, u16), target: (&str, u16)) -> Vec<String> {
        let values = [
            format!("{}:{}", listen.0, listen.1),
            format!("{}:{}", target.0, target.1),
            listen.0.to_owned(),
            listen.1.to_string(),
            target.0.to_owned(),
            target.1.to_string(),
        ];
        let fill = |word: &str| {
            PLACES
                .iter()
                .zip(&values)
                .fold(word.to_owned(), |word, (place, value)| word.replace(place, value))
        };
        self.command.split_whitespace().map(fill).collect()
    }
}

/// `name=command {listen} {target}`.
impl FromStr for Peer {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let form = "write NAME=COMMAND with {listen} and {target} in it";
        let (name, command) = word.split_once('=').ok_or(form)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("{name:?} is no name of letters, digits, - and _; {form}"));
        }
        if Scheme::ALL.iter().any(|scheme| scheme.name() == name)
            || Load::ALL.iter().any(|load| load.name() == name)
        {
            return Err(format!("{name:?} is taken: choose another name"));
        }
        let has = |whole: &str, port: &str| command.contains(whole) || command.contains(port);
        if !has("{listen}", "{listen_port}") || !has("{target}", "{target_port}") {
            return Err(format!("the command does not say where to listen and what to forward to; {form}"));
        }
        Ok(Self { name: name.to_owned(), command: command.to_owned() })
    }
}

impl Options {
    /// Whether every name in `only` is known.
    ///
    /// # Errors
    /// The first that is not, and which there are.
    pub fn check(&self) -> Result<(), String> {
        let mut known: Vec<String> = Scheme::ALL.iter().map(Scheme::name).collect();
        known.extend(self.peers.iter().map(|peer| peer.name.clone()));
        known.extend(Load::ALL.iter().map(|load| load.name().to_owned()));
        match self.only.iter().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => Err(format!("no lane or load is called {name:?}; there are {}", known.join(", "))),
        }
    }

    /// The lanes that are wanted, and those that they are compared with, in the order of the report.
    pub fn lanes(&self) -> Vec<Scheme> {
        let all = || Scheme::ALL.into_iter().chain(self.peers.iter().cloned().map(Scheme::Peer));
        let named = all().any(|scheme| self.only.contains(&scheme.name()));
        // Who says what a forwarder of his is wants to see it.
        let wanted = |scheme: &Scheme| match scheme {
            Scheme::Peer(_) => true,
            _ if named => self.only.contains(&scheme.name()),
            _ => self.scale != Scale::Quick || scheme.is_usual(),
        };
        let is_base = |scheme: &Scheme| all().any(|other| wanted(&other) && other.base() == *scheme);
        all().filter(|scheme| wanted(scheme) || is_base(scheme)).collect()
    }

    /// The loads that are wanted.
    pub fn loads(&self) -> Vec<Load> {
        let named: Vec<Load> =
            Load::ALL.into_iter().filter(|load| self.only.iter().any(|name| name == load.name())).collect();
        if !named.is_empty() {
            return named;
        }
        Load::ALL.into_iter().filter(|load| load.is_in(self.scale, self.mode())).collect()
    }

    /// The loads that would run if times were measured, and do not where instructions are counted unless they are named.
    pub fn loads_without_times(&self) -> Vec<Load> {
        let (loads, mode) = (self.loads(), self.mode());
        let is_named = loads.iter().any(|load| self.only.iter().any(|name| name == load.name()));
        let goes = |load: &Load| load.is_in(self.scale, Mode::Time) && !load.is_in(self.scale, mode);
        Load::ALL.into_iter().filter(|load| !is_named && goes(load)).collect()
    }

    /// The series that are wanted. Who names lanes or loads wants only those that are named as well.
    pub fn series(&self) -> Vec<Series> {
        let all = self.scale == Scale::Long && self.only.is_empty();
        if all && self.series.is_empty() { Series::ALL.to_vec() } else { self.series.clone() }
    }

    /// What is measured.
    pub fn mode(&self) -> Mode {
        if self.exact.is_some() { Mode::Exact } else { Mode::Time }
    }

    /// How many rounds.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(match self.scale {
            Scale::Quick => 1,
            Scale::Usual => 3,
            Scale::Long => 5,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_and_a_command_with_both_places() {
        let peer: Peer = "mine=/opt/relay -l {listen} --to={target_host},{target_port}".parse().unwrap();
        let words = peer.words(("10.1.0.1", 8888), ("10.2.0.10", 80));
        assert_eq!(words, ["/opt/relay", "-l", "10.1.0.1:8888", "--to=10.2.0.10,80"]);
        for wrong in [
            "relay {listen} {target}",
            "a b=x {listen} {target}",
            "x=relay {listen}",
            "nft=x {listen} {target}",
        ] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_lane_brings_the_one_it_is_compared_with() {
        let options = Options { only: vec!["portway-xdp".to_owned()], ..Options::default() };
        let names: Vec<String> = options.lanes().iter().map(Scheme::name).collect();
        assert_eq!(names, ["routing-xdp-wires", "portway-xdp"]);
        assert!(options.loads().len() > 1);
    }

    #[test]
    fn a_peer_is_there_whatever_else_is() {
        let peers = vec![Peer { name: "mine".to_owned(), command: "relay {listen} {target}".to_owned() }];
        for only in [Vec::new(), vec!["nft".to_owned()]] {
            let options = Options { only, scale: Scale::Quick, peers: peers.clone(), ..Options::default() };
            let names: Vec<String> = options.lanes().iter().map(Scheme::name).collect();
            assert!(names.contains(&"mine".to_owned()) && names.contains(&"routing".to_owned()), "{names:?}");
        }
    }

    #[test]
    fn instructions_are_counted_without_a_load_that_is_there_for_its_times() {
        let loads = |only: &[&str], exact: Option<Exact>| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            Options { only, exact, ..Options::default() }.loads()
        };
        let machine = r#"{"kernel":{"release":"","image":"","modules":""},"program":""}"#;
        let exact = || serde_json::from_str(machine).expect("a machine");
        assert!(loads(&[], None).contains(&Load::Paced));
        assert!(!loads(&[], Some(exact())).contains(&Load::Paced));
        assert_eq!(loads(&["paced"], Some(exact())), [Load::Paced]);
        let missing = |only: &[&str], exact: Option<Exact>| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            Options { only, exact, ..Options::default() }.loads_without_times()
        };
        assert_eq!(missing(&["nft"], Some(exact())), [Load::Paced]);
        assert_eq!(missing(&["connections"], Some(exact())), []);
        assert_eq!(missing(&[], None), []);
    }

    #[test]
    fn an_unknown_name_is_told_with_those_there_are() {
        let options = Options { only: vec!["nfs".to_owned()], ..Options::default() };
        let complaint = options.check().unwrap_err();
        assert!(
            complaint.contains("\"nfs\"") && complaint.contains("nft") && complaint.contains("bulk-up"),
            "{complaint}"
        );
    }
}
