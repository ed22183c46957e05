//! A machine in software (qemu, without KVM), which runs a kernel of Debian's on this machine's files.
//!
//! It reads them over 9p and keeps what it writes in memory of its own, so nothing here changes. It has no network. Where its
//! clock counts instructions, one of them takes a nanosecond, and what programs and the kernel need there can be
//! counted on a machine that is busy otherwise: instructions, not cycles, so caches and locks are not in it.
//!
//! Deliberately absent: what runs in the machine.

pub mod first;
pub mod kernel;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use kernel::Kernel;

use crate::process;

/// The emulator.
pub const EMULATOR: &str = "qemu-system-x86_64";

/// What a machine's time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// This machine's, on two CPUs.
    Real,
    /// A nanosecond for every instruction of the only CPU. While it has nothing to do, time jumps to what is due next.
    Instructions,
}

/// A machine that can be started.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its kernel.
    pub kernel: Kernel,
    /// Its time.
    pub clock: Clock,
    /// The archive of its first files ([`first::archive`]).
    pub first: PathBuf,
    /// Where what the kernel says goes, and what its last words are if it fails.
    pub console: PathBuf,
    /// A directory of this machine that it may write to, at [`SHARED`].
    pub shared: Option<PathBuf>,
}

/// Where a machine finds the directory that it may write to.
pub const SHARED: &str = "/mnt";
/// The name of the port by which a program there talks to the emulator's standard output.
pub const PORT: &str = "portway";

impl Machine {
    /// The command that is the machine. It ends when the machine switches itself off or its kernel gives up.
    ///
    /// # Errors
    /// The emulator is not installed.
    pub fn command(&self) -> Result<Command, String> {
        let mut command = Command::new(process::installed(EMULATOR)?);
        command.args(match self.clock {
            Clock::Real => ["-accel", "tcg,thread=multi", "-smp", "2"].as_slice(),
            // The same random numbers and the same date every time: hash tables fall out alike.
            Clock::Instructions => &[
                "-accel",
                "tcg,thread=single",
                "-smp",
                "1",
                "-icount",
                "shift=0,sleep=off",
                "-seed",
                "1",
                "-rtc",
                "base=2026-01-01,clock=vm",
            ],
        });
        command.args(["-cpu", "max", "-m", "3072", "-nodefaults", "-no-reboot", "-display", "none"]);
        command.arg("-serial").arg(format!("file:{}", escaped(&self.console)));
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&self.first);
        command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr norandmaps"]);
        command
            .args(["-virtfs", "local,path=/,mount_tag=root,security_model=none,multidevs=remap,readonly=on"]);
        if let Some(shared) = &self.shared {
            let path = escaped(shared);
            command.arg("-virtfs").arg(format!("local,path={path},mount_tag=shared,security_model=none"));
        }
        command.args(["-chardev", "stdio,id=port,signal=off", "-device", "virtio-serial-pci", "-device"]);
        command.arg(format!("virtserialport,chardev=port,name={PORT}"));
        Ok(command)
    }
}

/// A path as an option of the emulator has it: a comma would end the option.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// In the machine: the device of [`PORT`].
///
/// # Errors
/// There is none.
pub fn port() -> Result<PathBuf, String> {
    let ports =
        std::fs::read_dir("/sys/class/virtio-ports").map_err(|e| format!("list virtio ports: {e}"))?;
    let named =
        |path: &PathBuf| std::fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == PORT);
    let found = ports.flatten().map(|entry| entry.path()).find(named);
    let name =
        found.as_deref().and_then(Path::file_name).ok_or("this machine has no port to its emulator")?;
    Ok(Path::new("/dev").join(name))
}
