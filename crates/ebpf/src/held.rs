//! What the engine holds of one network namespace while there are rules: maps, programs, and who has what in them.
//!
//! The maps outlive this: what is in them is read back when a daemon starts ([`Held::open`]), and the ids in them stay, so
//! that flows and counters live on. Deliberately absent: changing it ([`crate::apply`]), and
//! interfaces ([`crate::serve`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use portway_core::engine::EngineError;
use portway_core::plan::ebpf::Plan;
use portway_core::ruleset::RuleName;
use portway_datapath::abi;

use crate::adopt::read;
use crate::attach::Attachments;
use crate::config;
use crate::host::Host;
use crate::maps::{Maps, Room};
use crate::object::Programs;
use crate::observe::{Figures, Known};
use crate::pins::Pins;
use crate::refusal::{failure, refused};
use crate::route::Route;
use crate::serve::Serving;
use crate::state::{Allocations, RuleState};
use crate::value::Key;

/// Gets one line per message.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// See the head of the file.
pub struct Held {
    pub(crate) pins: Pins,
    pub(crate) maps: Arc<Maps>,
    pub(crate) programs: Programs,
    pub(crate) attachments: Attachments,
    pub(crate) route: Route,
    pub(crate) host: Host,
    pub(crate) serving: Serving,
    pub(crate) allocations: Allocations,
    /// The rules of the plan, and those that are gone and have flows still.
    pub(crate) rules: BTreeMap<RuleName, RuleState>,
    /// What `listeners` and `ranges` hold.
    pub(crate) listening: BTreeMap<Key, abi::Listener>,
    /// Those of them that no rule has any more.
    pub(crate) leaving: BTreeSet<Key>,
    pub(crate) plan: Plan,
    pub(crate) log: Log,
    /// Whether state of an earlier daemon was found and not yet reported.
    pub(crate) adopted: bool,
    /// Whether nothing was pinned before and nothing has been committed since.
    pub(crate) is_new: bool,
    /// Counts what changes who has what in the maps: what was prepared before is then prepared again.
    pub(crate) epoch: u64,
    /// Who has which id; nothing after it has changed.
    pub(crate) known: Option<Arc<Known>>,
    /// Counts how often the host was looked at for a plan: what somebody else saw before is old.
    pub(crate) looks: u64,
}

impl Held {
    /// Takes over the maps that are pinned, or makes them, as large as `plan` needs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(pins: &Pins, plan: &Plan, log: Log) -> Result<Self, EngineError> {
        pins.make().map_err(|error| failure("prepare /sys/fs/bpf/portway", &error))?;
        let wanted = Room::needed(plan).with_reserve().entries();
        let found = Maps::open(&pins.maps()).ok().filter(|maps| config::is_ours(&maps.flows));
        let adopted = found.is_some();
        let is_new = Pins::names(&pins.maps()).is_empty();
        if !adopted {
            if !is_new {
                log("ebpf: the maps found are of another version: flows begin anew");
            }
            crate::pins::remove(&pins.maps())
                .map_err(|error| failure("remove maps of another version", &error))?;
            pins.make().map_err(|error| failure("prepare /sys/fs/bpf/portway", &error))?;
        }
        drop(found);
        let programs =
            Programs::new(&pins.maps(), &wanted).map_err(|error| refused("load the programs", error))?;
        let open = |error: io::Error| failure("open the maps", &error);
        let maps = Maps::open(&pins.maps()).map_err(open)?;
        if !adopted {
            config::initialise(&maps.flows).map_err(|error| failure("begin a flow table", &error))?;
        }
        let mut route = Route::open().map_err(|error| failure("open a netlink socket", &error))?;
        let host = Host::look(&mut route).map_err(|error| failure("list the interfaces", &error))?;
        let (mut rules, listening, allocations) =
            read(&maps).map_err(|error| failure("read the maps back", &error))?;
        // What listens for a rule that is gone, or half removed, goes with the next plan.
        rules.values_mut().filter(|rule| rule.value.is_none()).for_each(|rule| rule.keys.clear());
        let kept: BTreeSet<Key> = rules.values().flat_map(|rule| rule.keys.keys().copied()).collect();
        let leaving = listening.keys().filter(|key| !kept.contains(key)).copied().collect();
        let attachments =
            Attachments::open(pins).map_err(|error| failure("open a netlink socket", &error))?;
        Ok(Self {
            pins: pins.clone(),
            serving: Serving::read(&maps).map_err(|error| failure("read the maps back", &error))?,
            maps: Arc::new(maps),
            programs,
            attachments,
            route,
            host,
            allocations,
            rules,
            leaving,
            epoch: 0,
            known: None,
            looks: 0,
            listening,
            plan: Plan::default(),
            log,
            adopted,
            is_new,
        })
    }

    /// Who has which id.
    pub fn known(&mut self) -> Arc<Known> {
        let known = self.known.get_or_insert_with(|| Arc::new(Known::new(&self.rules, &self.plan)));
        Arc::clone(known)
    }

    /// Figures that are not in the maps.
    pub fn figures(&self) -> Figures {
        Figures {
            ports: self.plan.settings.source_ports,
            unreachable: self.serving.unreached.len() as u64,
            interfaces: self.served() as u64,
        }
    }

    /// What the operator should know of what is in force.
    pub fn notes(&self) -> Vec<String> {
        self.size_kept().into_iter().chain(self.unreached()).map(|note| format!("ebpf: {note}")).collect()
    }

    /// In what the maps differ from a plan, read afresh; nothing when they do not.
    ///
    /// # Errors
    /// The kernel's.
    pub fn verify(&mut self, plan: &Plan) -> Result<Vec<String>, EngineError> {
        crate::verify::verify(self, plan)
    }
}
