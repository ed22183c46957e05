//! Kernels of Debian's: found where they are kept, or fetched from Debian's archive by apt-get.
//!
//! apt-get gets a list of sources of its own, so that the machine's never sees the other release; what is fetched is kept in a
//! cache and is not installed. Deliberately absent: kernels built here. What Debian ships is what users run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::process;

/// Where what was fetched is kept.
pub const CACHE: &str = "/var/cache/portway/kernels";
/// The release whose kernel is taken if nothing else is said: the newest that runs on Debian 12, Linux 6.12.
pub const USUAL: &str = "bookworm-backports";

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel with its modules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// As `uname -r` says there.
    pub release: String,
    /// The kernel.
    pub image: PathBuf,
    /// The directory of modules, `/lib/modules/RELEASE` of a machine that runs it.
    pub modules: PathBuf,
}

impl Kernel {
    /// What lies in a directory as Debian's package has it: `boot/vmlinuz-*` and `lib/modules/*`.
    ///
    /// # Errors
    /// What is missing there.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let whole =
            fs::canonicalize(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let directory = whole.as_path();
        let missing = |what: &str| format!("{} has no {what}", directory.display());
        let only = |path: PathBuf, prefix: &str| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
            let named = |path: &PathBuf| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
            };
            let mut found: Vec<PathBuf> = entries.filter(named).collect();
            found.sort();
            found.pop()
        };
        // Where the kernel is among the modules it is as well (Debian 14), and /lib is /usr/lib.
        let modules =
            ["lib/modules", "usr/lib/modules"].into_iter().find_map(|at| only(directory.join(at), ""));
        let modules = modules.ok_or_else(|| missing("lib/modules/RELEASE"))?;
        let image = only(directory.join("boot"), "vmlinuz-").or_else(|| only(modules.clone(), "vmlinuz"));
        let release = modules.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        Ok(Self { release, image: image.ok_or_else(|| missing("boot/vmlinuz-RELEASE"))?, modules })
    }

    /// Where it lies, as Debian's package has it.
    pub fn directory(&self) -> &Path {
        // Above lib/modules/RELEASE.
        self.modules.ancestors().nth(3).unwrap_or(Path::new("/"))
    }

    /// The one that is meant: a directory, or the newest of a release of Debian's, which is fetched if it is not in `cache`.
    ///
    /// # Errors
    /// What apt-get says, or what is missing.
    pub fn named(name: &str, cache: &Path) -> Result<Self, String> {
        if Path::new(name).is_dir() {
            return Self::open(Path::new(name));
        }
        fs::create_dir_all(cache).map_err(|error| format!("make {}: {error}", cache.display()))?;
        // One at a time: apt-get has no patience, and what is being unpacked is not there yet.
        let lock = File::create(cache.join("lock")).and_then(|file| file.lock().map(|()| file));
        let _lock = lock.map_err(|error| format!("lock {}: {error}", cache.display()))?;
        let release = Release { name, state: cache.join(format!("apt-{name}")) };
        release.prepare()?;
        // Without an archive what was fetched before is as good.
        let package = release.update().and_then(|()| release.newest());
        let remembered = release.state.join("newest");
        let package = match package {
            Ok(package) => package,
            Err(why) => fs::read_to_string(&remembered).map_err(|_| why)?,
        };
        let directory = cache.join(&package);
        if !directory.join("ready").is_file() {
            release.unpack(&package, &directory)?;
        }
        fs::write(&remembered, &package).map_err(|e| format!("write {}: {e}", remembered.display()))?;
        Self::open(&directory)
    }
}

/// A release of Debian's, with apt's state for it.
struct Release<'a> {
    name: &'a str,
    state: PathBuf,
}

impl Release<'_> {
    fn prepare(&self) -> Result<(), String> {
        let written = ["lists/partial", "archives/partial"]
            .into_iter()
            .try_for_each(|part| fs::create_dir_all(self.state.join(part)))
            .and_then(|()| {
                let line = format!("deb [signed-by={KEYRING}] {MIRROR} {} main\n", self.name);
                fs::write(self.state.join("sources"), line)
            })
            .and_then(|()| fs::write(self.state.join("installed"), ""));
        written.map_err(|error| format!("write {}: {error}", self.state.display()))
    }

    fn apt(&self, program: &str) -> Result<Command, String> {
        let found = process::locate(Path::new(program)).ok_or_else(|| {
            format!(
                "no {program} is here to fetch a kernel of Debian's with: unpack its package linux-image-* \
                     somewhere and name the directory"
            )
        })?;
        let mut command = Command::new(found);
        let set = |name: &str, value: &str| format!("{name}={value}");
        let at = |part: &str| self.state.join(part).display().to_string();
        for option in [
            set("Dir::Etc::SourceList", &at("sources")),
            set("Dir::Etc::SourceParts", "/dev/null"),
            set("Dir::State::Lists", &at("lists")),
            // Neither what is installed nor what is preferred here counts there.
            set("Dir::State::status", &at("installed")),
            set("Dir::Etc::Preferences", "/dev/null"),
            set("Dir::Etc::PreferencesParts", "/dev/null"),
            set("Dir::Cache", &at("")),
            set("Acquire::Languages", "none"),
            set("APT::Sandbox::User", "root"),
        ] {
            command.args(["-o", &option]);
        }
        Ok(command)
    }

    fn update(&self) -> Result<(), String> {
        process::attempt(self.apt("apt-get")?.args(["update", "-qq"])).map(drop)
    }

    /// The package that `linux-image-amd64` stands for.
    fn newest(&self) -> Result<String, String> {
        self.depends("linux-image-amd64", |name| name.starts_with("linux-image-"))?
            .into_iter()
            .next()
            .ok_or_else(|| format!("{} has no linux-image-amd64", self.name))
    }

    fn depends(&self, package: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, String> {
        let said = process::attempt(self.apt("apt-cache")?.args(["depends", package]))?;
        let names = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.filter(|name| wanted(name)).map(str::to_owned).collect())
    }

    /// Unpacks a package, and those that its parts are in since Linux 7, into a directory.
    fn unpack(&self, package: &str, directory: &Path) -> Result<(), String> {
        let said = |error: std::io::Error| format!("write {}: {error}", directory.display());
        let is_part = |name: &str| {
            ["linux-base-", "linux-binary-", "linux-modules-"].iter().any(|start| {
                name.strip_prefix(start).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
        };
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).map_err(said)?;
        let mut download = self.apt("apt-get")?;
        download.args(["download", "-qq", package]).args(self.depends(package, is_part)?);
        process::attempt(download.current_dir(directory))?;
        for entry in fs::read_dir(directory).map_err(said)?.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                let unpack = process::installed("dpkg-deb")?;
                process::attempt(Command::new(unpack).arg("-x").arg(entry.path()).arg(directory))?;
                fs::remove_file(entry.path()).map_err(said)?;
            }
        }
        // depmod and modprobe look below lib.
        if !directory.join("lib").exists() {
            std::os::unix::fs::symlink("usr/lib", directory.join("lib")).map_err(said)?;
        }
        let kernel = Kernel::open(directory)?;
        let depmod = process::installed("depmod")?;
        process::attempt(Command::new(depmod).arg("-b").arg(directory).arg(&kernel.release))?;
        fs::write(directory.join("ready"), "").map_err(said)
    }
}
