//! The first files of a machine: what reaches this machine's files and goes on there.
//!
//! An archive as the kernel takes it (cpio, the "newc" form: Documentation/driver-api/early-userspace/buffer-format.rst): busybox,
//! the modules for 9p and overlayfs, and a script. The script makes the root: this machine's files below, read-only, and memory
//! above, where all that is written goes. Then it becomes the program that is wanted.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Kernel, SHARED};
use crate::process;

/// What must be loaded to reach the files. Kernels that have a part built in say so.
const MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay"];
/// Files that a process may have open there, as here.
const OPEN_FILES: u32 = 20_000;

/// The archive of a machine that runs `kernel`: it becomes the program of `words`, with `orders` in [`ORDERS`] for it to read.
///
/// # Errors
/// A program that is missing here, or what it said.
pub fn archive(kernel: &Kernel, words: &[&str], orders: &[u8]) -> Result<Vec<u8>, String> {
    let busybox = process::installed("busybox")?;
    let busybox = fs::read(&busybox).map_err(|e| format!("read {}: {e}", busybox.display()))?;
    if busybox.windows(DYNAMIC.len()).any(|bytes| bytes == DYNAMIC) {
        return Err(
            "busybox needs libraries, which are not there yet: apt-get install busybox-static".to_owned()
        );
    }
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "lower", "memory", "modules", "proc", "root"] {
        archive.directory(directory);
    }
    archive.file("bin/busybox", 0o755, &busybox);
    for (nth, module) in modules(kernel)?.iter().enumerate() {
        archive.file(&format!("modules/{nth:02}.ko"), 0o644, module);
    }
    archive.file("orders", 0o644, orders);
    archive.file("init", 0o755, script(kernel, words).as_bytes());
    Ok(archive.end())
}

/// Where the orders are in the machine.
pub const ORDERS: &str = "/dev/orders";
/// The path of the program that loads libraries; a static program has none.
const DYNAMIC: &[u8] = b"/lib64/ld-linux";

fn script(kernel: &Kernel, words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| process::quoted(word)).collect();
    let modules = process::quoted(&kernel.modules.display().to_string());
    format!(
        "#!/bin/busybox sh\n\
         b=/bin/busybox\n\
         $b mount -t proc proc /proc\n\
         for module in /modules/*.ko; do $b insmod $module; done\n\
         share=trans=virtio,version=9p2000.L,msize=262144\n\
         $b mount -t 9p -o ro,cache=loose,$share root /lower\n\
         $b mount -t tmpfs tmpfs /memory\n\
         $b mkdir /memory/upper /memory/work\n\
         $b mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work root /root\n\
         for directory in tmp run; do $b mount -t tmpfs tmpfs /root/$directory; done\n\
         $b mount -t devtmpfs dev /root/dev\n\
         $b mount -t sysfs sys /root/sys\n\
         $b mount -t 9p -o $share shared /root{SHARED} 2>/dev/null\n\
         $b mount -o move /proc /root/proc\n\
         $b mkdir -p /root/lib/modules/{release}\n\
         $b mount -o bind /lower{modules} /root/lib/modules/{release}\n\
         $b ln -s /proc/self/fd /root/dev/fd\n\
         $b cp /orders /root{ORDERS}\n\
         ulimit -n {OPEN_FILES}\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp\n\
         exec $b switch_root /root {words}\n",
        release = kernel.release,
        words = quoted.join(" "),
    )
}

/// The modules, uncompressed, each after those that it needs.
fn modules(kernel: &Kernel) -> Result<Vec<Vec<u8>>, String> {
    let modprobe = process::installed("modprobe")?;
    let mut paths: Vec<String> = Vec::new();
    for module in MODULES {
        let mut command = Command::new(&modprobe);
        command.arg("-d").arg(kernel.directory()).args(["-S", &kernel.release, "--show-depends", module]);
        let said = process::attempt(&mut command)?;
        for path in said.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = path.split_whitespace().next().unwrap_or_default().to_owned();
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths.iter().map(|path| uncompressed(path)).collect()
}

fn uncompressed(path: &str) -> Result<Vec<u8>, String> {
    let program = match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).map_err(|error| format!("read {path}: {error}")),
    };
    let found = process::installed(program)?;
    let output =
        Command::new(found).args(["-dc", path]).output().map_err(|e| format!("{program} {path}: {e}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{program} {path}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// A cpio archive that is being written.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | mode, content);
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (links, length, name_length) = (1, content.len(), name.len() + 1);
        // Magic; inode, mode, uid, gid, links, mtime; length; major and minor of device and special file; name; check.
        let header = format!(
            "070701{:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{length:08x}{:032x}{name_length:08x}{:08x}{name}\0",
            self.entries, 0, 0, 0, 0, 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_long_as_its_headers_say() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/a", 0o755, b"12345");
        let bytes = archive.end();
        // Read back by the form's own lengths: 110 bytes of header, the name, the content, each padded to 4.
        let (mut at, mut names) = (0, Vec::new());
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |nth: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + nth * 8..at + 14 + nth * 8]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (length, name) = (field(6), field(11));
            names.push(String::from_utf8(bytes[at + 110..at + 110 + name - 1].to_vec()).unwrap());
            at = (at + 110 + name).next_multiple_of(4) + length;
            at = at.next_multiple_of(4);
        }
        assert_eq!(names, ["bin", "bin/a", "TRAILER!!!"]);
    }
}
