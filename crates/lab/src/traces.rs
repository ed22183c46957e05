//! What a program that lives in a PID namespace of its own has of the kernel, and whether any of it is still there: processes,
//! and the BPF programs, maps and links that they have open. And what the host looks like meanwhile: rules, mounts, named network
//! namespaces, interfaces, settings.
//!
//! The first is by identities that are not used again, so that it holds on a machine where others come and go as well: a
//! process is its number and the moment of its start. The second is a comparison. Namespaces are counted and not looked for
//! afterwards: their numbers go at once to the next that are made. Without a process that is in one or has it mounted there is
//! none, unless its name is on the host, which the comparison sees. Deliberately absent: removing anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::{self, Object};
use crate::{netns, process};

/// Kinds of namespaces, by their files in /proc/PID/ns.
const KINDS: [&str; 4] = ["pid", "net", "mnt", "ipc"];

/// What a program and all that lives in PID namespaces below it had at some moment.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// All that it has started: the number, when it began (in ticks since the machine did), the name.
    processes: BTreeSet<(u32, String, String)>,
    /// `net:[4026532741]`
    namespaces: BTreeSet<String>,
    bpf: BTreeSet<(Object, u32)>,
}

impl Traces {
    /// Of what a process has started.
    pub fn of(program: u32) -> Self {
        let own: BTreeSet<String> = KINDS.iter().filter_map(|kind| namespace("self", kind)).collect();
        let mut traces = Self::default();
        let (mut next, mut inside) = (children(program), None);
        while let Some(pid) = next.pop() {
            match namespace(&pid.to_string(), "pid") {
                Some(pids) if !own.contains(&pids) => inside = Some(pids),
                _ => {
                    traces.processes.extend(begun(pid).map(|begun| (pid, begun, name(pid))));
                    next.extend(children(pid));
                }
            }
        }
        for pid in numbers("/proc").filter(|pid| inside.is_some() && namespace(pid, "pid") == inside) {
            // Its copy of the host's mounts holds namespaces of others as well: of those that are mounted only its own count.
            let held = held_by(&pid).into_iter().filter(|found| !own.contains(found));
            traces.namespaces.extend(held);
            let number = pid.parse().unwrap_or_default();
            traces.processes.extend(begun(number).map(|begun| (number, begun, name(number))));
            for file in numbers(&format!("/proc/{pid}/fdinfo")) {
                let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{file}")).unwrap_or_default();
                let id =
                    |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
                let ids =
                    [(Object::Program, "prog_id:"), (Object::Map, "map_id:"), (Object::Link, "link_id:")];
                // A link's file names the program as well.
                traces.bpf.extend(ids.into_iter().filter_map(|(object, key)| Some((object, id(key)?))));
            }
        }
        traces
    }

    /// How much there is: namespaces, BPF objects.
    pub fn count(&self) -> (usize, usize) {
        (self.namespaces.len(), self.bpf.len())
    }

    /// The names of its processes.
    pub fn programs(&self) -> impl Iterator<Item = &str> {
        self.processes.iter().map(|(_, _, name)| name.as_str())
    }

    /// The command lines of those of its processes that are still there.
    pub fn command_lines(&self) -> impl Iterator<Item = String> {
        let line = |(pid, _, _): &(u32, String, String)| fs::read(format!("/proc/{pid}/cmdline")).ok();
        let words = |line: Vec<u8>| String::from_utf8_lossy(&line).replace('\0', " ");
        self.processes.iter().filter_map(line).map(words)
    }

    /// Runs something in each network namespace to which it has given a name, on a thread there: what came of it, by name.
    /// Namespaces that are gone meanwhile are left out.
    ///
    /// # Panics
    /// When `f` does.
    pub fn in_networks<T: Send>(&self, f: impl Fn() -> T + Sync) -> BTreeMap<String, T> {
        // All of its processes see the same files, which are not the host's.
        let seen = |(pid, _, _): &(u32, String, String)| {
            let named = fs::read_dir(format!("/proc/{pid}/root{NAMED}")).into_iter().flatten().flatten();
            let named = named.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
            Some(named.filter(|(name, _)| name.starts_with(OF_FIRST)).collect::<Vec<_>>())
                .filter(|named| !named.is_empty())
        };
        let named = self.processes.iter().find_map(seen).unwrap_or_default();
        named.into_iter().filter_map(|(name, path)| Some((name, netns::enter(&path, &f).ok()?))).collect()
    }

    /// What of it is still there, in words.
    pub fn left(&self) -> Vec<String> {
        let lives = |(pid, start, _): &&(u32, String, String)| begun(*pid).as_ref() == Some(start);
        let living = self.processes.iter().filter(lives);
        let mut left: Vec<String> = living.map(|(pid, _, name)| format!("process {pid} ({name})")).collect();
        let there = self.bpf.iter().filter(|(object, id)| sys::open_by_id(*object, *id).is_ok());
        left.extend(there.map(|(object, id)| format!("BPF {object:?} {id}")));
        left
    }
}

/// Where named network namespaces are.
const NAMED: &str = "/run/netns";
/// How those are called that a lab has made which is the first process of its PID namespace.
const OF_FIRST: &str = "pwlab-1-";

/// The namespaces that a process is in, and those of a lab that it has mounted.
fn held_by(pid: &str) -> Vec<String> {
    let mut held: Vec<String> = KINDS.iter().filter_map(|kind| namespace(pid, kind)).collect();
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    let of_first = format!("{NAMED}/{OF_FIRST}");
    let words = mounts
        .lines()
        .filter(|line| line.contains(" nsfs ") && line.contains(&of_first))
        .filter_map(|line| line.split(' ').nth(3));
    held.extend(words.map(str::to_owned));
    held
}

fn namespace(pid: &str, kind: &str) -> Option<String> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?.into_os_string().into_string().ok()
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// When a process began, in ticks since the machine did (proc(5): field 22 of its stat); none of one that has ended.
fn begun(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19).map(|field| (*field).to_owned()))?
}

/// The entries of a directory whose names are numbers.
fn numbers(directory: &str) -> impl Iterator<Item = String> {
    let names = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What can be seen of a host, as text by topic. Namespaces of others come and go and are left out; those that a lab in a PID
/// namespace would have left have the number 1 in their names. What is pinned is not here either, because it exists, which
/// [`Traces`] sees.
///
/// # Panics
/// Without nft.
pub fn of_host() -> BTreeMap<&'static str, String> {
    let list = |directory: &str| {
        let mut names: Vec<String> =
            below(Path::new(directory)).iter().map(|path| path.display().to_string()).collect();
        names.sort_unstable();
        names.join("\n")
    };
    BTreeMap::from([
        ("rules", process::run(process::program("nft").args(["list", "ruleset"]))),
        ("mounts", without_others(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())),
        ("named network namespaces", without_others(&list(NAMED))),
        ("interfaces", list("/sys/class/net")),
    ])
}

fn without_others(text: &str) -> String {
    let ours = |line: &&str| !line.contains(NAMED) || line.contains(&format!("/{OF_FIRST}"));
    text.lines().filter(ours).collect::<Vec<_>>().join("\n")
}

/// Settings of the kernel that can be read, by file: of the network, and those that are set rather than counted elsewhere.
pub fn settings() -> BTreeMap<PathBuf, String> {
    let files = below(Path::new("/proc/sys"));
    // Where the bit for writing is missing it is a figure, not a setting.
    let set =
        files.into_iter().filter(|file| fs::metadata(file).is_ok_and(|about| about.mode() & 0o200 != 0));
    // The number of the last process can be set as well, and counts.
    let set = set.filter(|file| !file.ends_with("ns_last_pid"));
    set.filter_map(|file| Some((file.clone(), fs::read_to_string(&file).ok()?))).collect()
}

/// The directories and files below a directory; links are not followed.
fn below(directory: &Path) -> Vec<PathBuf> {
    let (mut found, mut next) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    found.push(entry.path());
                    next.push(entry.path());
                }
                Ok(kind) if kind.is_file() || kind.is_symlink() => found.push(entry.path()),
                _ => (),
            }
        }
    }
    found
}
