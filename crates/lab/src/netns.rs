//! One network namespace: made, entered, removed.
//!
//! Names carry the process id, so that a namespace left by a killed run is recognised and removed by the
//! next one.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, Weak};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::wire::End;
use crate::{Cgroup, cgroup, pins, process};

/// How long anything may take to become ready, and how long a peer may stay silent.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long something may take that `usually` takes less: on an emulated machine, where having the kernel verify programs
/// is a minute's work, as many seconds as `PORTWAY_LAB_PATIENCE` says.
pub fn patience(usually: Duration) -> Duration {
    let said = std::env::var("PORTWAY_LAB_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    said.map_or(usually, Duration::from_secs)
}

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();
const PREFIX: &str = "pwlab";

/// A network namespace, removed when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Namespace(Arc<Name>);

#[derive(Debug)]
pub(crate) struct Name {
    name: String,
    wires: Mutex<Vec<End>>,
    cgroup: Mutex<Option<PathBuf>>,
}

impl Namespace {
    /// Makes a namespace with `lo` up and no other interface.
    ///
    /// # Panics
    /// Without root, or without iproute2.
    pub fn new(role: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "network namespaces need root: run the tests with sudo"
        );
        SWEEP.call_once(remove_orphans);
        let name = format!("{PREFIX}-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        process::run(process::program("ip").args(["netns", "add", &name]));
        let namespace = Self(Arc::new(Name { name, wires: Mutex::default(), cgroup: Mutex::default() }));
        namespace.ip("link set lo up");
        namespace
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The far ends of its wires.
    pub(crate) fn wires(&self) -> MutexGuard<'_, Vec<End>> {
        self.0.wires.lock().expect("no holder panics")
    }

    /// Has every program that is started in it from now on begin in this control group.
    ///
    /// # Panics
    /// Never: no holder of the lock panics.
    pub fn put_into(&self, cgroup: &Cgroup) {
        *self.0.cgroup.lock().expect("no holder panics") = Some(cgroup.path());
    }

    /// A reference that does not keep it.
    pub(crate) fn downgrade(&self) -> Weak<Name> {
        Arc::downgrade(&self.0)
    }

    /// What [`Self::downgrade`] gave, while it lives.
    pub(crate) fn upgrade(name: &Weak<Name>) -> Option<Self> {
        name.upgrade().map(Self)
    }

    /// The file that stands for the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }

    /// Runs `f` on a thread in this namespace. Sockets that it makes stay in the namespace wherever they
    /// are used later.
    ///
    /// # Panics
    /// When `f` does, or the namespace cannot be entered.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        enter(&self.path(), f).expect("the namespace lives as long as self, and root may enter it")
    }

    /// A command that will run in this namespace, under its own process id (nsenter and setpriv exec), and
    /// that dies with the thread that starts it.
    ///
    /// # Panics
    /// When the program is not installed.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let found = process::find(program.as_ref());
        let mut command = process::program("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.arg(process::find(Path::new("setpriv"))).args(["--pdeathsig", "KILL", "--"]);
        if let Some(cgroup) = &*self.0.cgroup.lock().expect("no holder panics") {
            command.args(cgroup::within(cgroup));
        }
        command.arg(found);
        command
    }

    /// Runs a command line (words split at white space) to its end and returns what it printed.
    ///
    /// # Panics
    /// When it fails; the message has all that it printed.
    pub fn run(&self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    /// The same, where failing is an outcome.
    ///
    /// # Errors
    /// The command, its status and all that it printed.
    pub fn try_run(&self, line: &str) -> Result<String, String> {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command line has a program");
        process::attempt(self.command(program).args(words))
    }

    /// Runs a shell script to its end and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, script: &str) -> String {
        process::run(self.command("sh").args(["-ec", script]))
    }

    /// Runs `ip` commands, one per line, in one go.
    ///
    /// # Panics
    /// When one fails.
    pub fn ip(&self, lines: &str) {
        process::feed(process::program("ip").args(["-n", self.name(), "-batch", "-"]), lines);
    }

    /// Loads an nft script.
    ///
    /// # Panics
    /// When nft refuses it.
    pub fn nft(&self, script: &str) {
        process::feed(self.command("nft").args(["-f", "-"]), script);
    }

    /// Sets a sysctl, with dots or slashes.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| fs::write(&path, value)).unwrap_or_else(|e| panic!("sysctl {key} = {value}: {e}"));
    }

    /// Connects over TCP. Reads and writes give up after [`PATIENCE`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(&self, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap_or_else(|_| panic!("{to} is no socket address"));
        let stream = self.enter(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Listens on TCP.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn listen(&self, on: &str) -> TcpListener {
        self.enter(|| TcpListener::bind(on))
            .unwrap_or_else(|e| panic!("listen on {on} in {}: {e}", self.name()))
    }

    /// A UDP socket bound to `on`; receiving gives up after two seconds.
    ///
    /// # Panics
    /// When the address cannot be bound.
    pub fn bind(&self, on: &str) -> UdpSocket {
        let socket = self
            .enter(|| UdpSocket::bind(on))
            .unwrap_or_else(|e| panic!("bind udp {on} in {}: {e}", self.name()));
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a positive time");
        socket
    }

    /// A UDP socket connected to `to`; receiving gives up after two seconds.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn dial(&self, to: &str) -> UdpSocket {
        let socket = self.bind(if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" });
        self.enter(|| socket.connect(to)).unwrap_or_else(|e| panic!("connect udp to {to}: {e}"));
        socket
    }

    /// Whether something listens on a TCP port, on any address.
    pub fn has_tcp(&self, port: u16) -> bool {
        self.has_socket("tcp", port, "0A")
    }

    /// Whether a UDP port is bound, on any address.
    pub fn has_udp(&self, port: u16) -> bool {
        self.has_socket("udp", port, "07")
    }

    /// Whether /proc/net/{tcp,udp}{,6} lists a socket with that local port and state (hexadecimal, proc(5)).
    fn has_socket(&self, protocol: &str, port: u16, state: &str) -> bool {
        let suffix = format!(":{port:04X}");
        self.enter(|| {
            [protocol.to_owned(), format!("{protocol}6")].iter().any(|file| {
                let table = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
                table.lines().skip(1).any(|line| {
                    let mut words = line.split_whitespace().skip(1);
                    let local = words.next().is_some_and(|local| local.ends_with(&suffix));
                    local && words.nth(1) == Some(state)
                })
            })
        })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // The lab kills its daemons, and what they have pinned outlives them and the namespace.
        let _ = pins::remove(&Path::new("/run/netns").join(&self.name));
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).stderr(Stdio::null()).status();
    }
}

/// Runs `f` on a thread in the namespace of that file.
///
/// # Errors
/// When there is no such namespace, or it may not be entered.
pub(crate) fn enter<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> io::Result<T> {
    use std::os::fd::AsFd;
    let file = fs::File::open(path)?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Polls until `ready`.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let (start, limit) = (Instant::now(), patience(PATIENCE));
    while !ready() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Removes namespaces whose process is gone.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = pins::remove(&Path::new("/run/netns").join(&name));
            let _ = Command::new("ip").args(["netns", "delete", &name]).status();
            let _ = writeln!(io::stderr(), "removed namespace {name}, left by a killed run");
        }
    }
}
