//! Real servers: found, run in a directory of their own, killed on drop.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process_group};

use super::eventually;

/// The Debian package of a program, where it has another name.
const PACKAGES: [(&str, &str); 6] = [
    ("aiosmtpd", "python3-aiosmtpd"),
    ("dnsmasq", "dnsmasq-base"),
    ("mariadbd", "mariadb-server-core"),
    ("initdb", "postgresql"),
    ("postgres", "postgresql"),
    ("setpriv", "util-linux"),
];

/// The full path of an installed program.
///
/// # Panics
/// When it is not installed, naming the Debian package.
pub fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let postgresql = versions.map(|version| version.path().join("bin"));
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from).into_iter().chain(postgresql);
    // The system's own come first: a version manager may stand before them in PATH.
    let system = ["/usr/bin", "/bin"].map(PathBuf::from);
    let places = system.into_iter().chain(more).chain(std::env::split_paths(&path));
    places.map(|place| place.join(program)).find(|path| path.is_file()).unwrap_or_else(|| {
        let package = PACKAGES.iter().find(|(name, _)| *name == program).map_or(program, |(_, p)| p);
        panic!("{program} is not installed: apt-get install {package}")
    })
}

/// Runs to the end.
///
/// # Panics
/// When it fails; with all that it printed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory that goes with its owner.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("portway-watch-{}-{nth}", std::process::id()));
        fs::create_dir(&path).unwrap();
        // Servers that give up root read it too.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A directory in it that belongs to an unprivileged user.
    pub fn owned(&self, name: &str, user: u32) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(user), Some(user)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// The user `nobody` of Debian.
pub const NOBODY: u32 = 65_534;

/// `program` as the user `nobody`.
pub fn as_nobody(program: &str) -> Command {
    let mut command = Command::new(find("setpriv"));
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(find(program));
    command
}

/// A server that runs, in a process group of its own.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub fn start(command: &mut Command, directory: &Directory) -> Self {
        let log = directory.join("log");
        let file = File::create(&log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    /// Starts it and waits until it accepts connections.
    pub fn listening(command: &mut Command, directory: &Directory, address: SocketAddr) -> Self {
        let mut server = Self::start(command, directory);
        eventually(&format!("{command:?} listens on {address}"), || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{command:?}: {ended:?}\n{}", server.log());
            TcpStream::connect(address).is_ok()
        });
        server
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal to the server and its children.
    pub fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process_group(group, signal).unwrap();
    }

    pub fn stop(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        _ = kill_process_group(group, Signal::KILL);
        _ = self.child.wait();
    }
}
