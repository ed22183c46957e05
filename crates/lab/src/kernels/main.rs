//! Has kernels of Debian's that this machine does not run take the committed programs, and forward by them:
//! `cargo run -p portway-lab --bin kernels -- [RELEASE|DIR...] [-- COMMAND...]`, as root.
//!
//! RELEASE is one of Debian's, whose newest kernel is fetched. Each boots under qemu (without KVM) on this machine's files.
//! COMMAND runs there as root in the root of the repository; by default a few scenarios of the conformance suite
//! that have the kernel verify every program. Deliberately absent: the machine, which is `portway_lab::emulated`'s.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, thread};

use clap::Parser;
use portway_lab::emulated::kernel::{CACHE, USUAL};
use portway_lab::emulated::{Clock, Kernel, Machine, PORT, first};
use portway_lab::{Scratch, process};

/// Has kernels of Debian's take the committed programs, under qemu.
#[derive(Debug, Parser)]
struct Args {
    /// Releases of Debian's, or directories with an unpacked kernel
    #[arg(value_name = "RELEASE|DIR", default_value = USUAL)]
    kernels: Vec<String>,
    /// What is run there [default: scenarios with the programs at TC and at XDP]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The programs at TC and at XDP.
const SCENARIOS: [&str; 2] = ["tcp::echo::xdp", "udp::echo::ebpf"];
/// How long one kernel may take. It is emulated: a second of this machine is half a minute there.
const LIMIT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("kernels: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("the kernel reads this machine's files as root: run it with sudo".to_owned());
    }
    let command = if args.command.is_empty() { suite()? } else { args.command.clone() };
    for name in &args.kernels {
        let kernel = Kernel::named(name, Path::new(CACHE))?;
        println!("== {name}: {}", kernel.release);
        let start = Instant::now();
        boot(kernel, &command)?;
        println!("== {name}: passed in {} s", start.elapsed().as_secs());
    }
    Ok(())
}

/// The conformance suite, built, with the scenarios that are run.
fn suite() -> Result<Vec<String>, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    process::attempt(Command::new(&cargo).args(["build", "--quiet", "--locked", "-p", "portway"]))?;
    let mut build = Command::new(&cargo);
    build.args(["test", "--quiet", "--locked", "-p", "portway-lab", "--test", "conformance", "--no-run"]);
    let said = process::attempt(build.arg("--message-format=json"))?;
    let executable = said.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str()?;
        path.contains("/conformance-").then(|| path.to_owned())
    });
    let executable = executable.ok_or("the conformance suite was not built")?;
    let mut words: Vec<String> =
        ["env", "PORTWAY_LAB_PATIENCE=300", "RUST_BACKTRACE=0"].map(str::to_owned).into();
    words.push(executable);
    words.extend(["--test-threads", "1", "--exact"].map(str::to_owned));
    words.extend(SCENARIOS.map(str::to_owned));
    Ok(words)
}

/// What the machine does: it says how the command ended, and switches itself off.
const SCRIPT: &str = r#"
for port in /sys/class/virtio-ports/*; do
  [[ $(<"$port/name") == "$1" ]] && exec >"/dev/${port##*/}" 2>&1
done
export PATH=$2
cd "$3"
shift 3
"$@"
echo "status $?"
exec busybox poweroff -f
"#;

fn boot(kernel: Kernel, command: &[String]) -> Result<(), String> {
    let said = |error: std::io::Error| format!("start the machine: {error}");
    let files = Scratch::new();
    let here = env::current_dir().map_err(said)?.display().to_string();
    let path = env::var("PATH").unwrap_or_default();
    let mut words = vec!["/bin/bash", "-c", SCRIPT, "kernels", PORT, &path, &here];
    words.extend(command.iter().map(String::as_str));
    let first = files.write("first", first::archive(&kernel, &words, &[])?);
    let console = files.join("console");
    let machine = Machine { kernel, clock: Clock::Real, first, console: console.clone(), shared: None };
    let mut child = machine.command()?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(said)?;
    let port = child.stdout.take().expect("invariant: stdout is piped");
    let (tell, lines) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(port).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let (end, mut last) = (Instant::now() + LIMIT, String::new());
    while let Ok(line) = lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
        println!("{line}");
        last = line;
    }
    let _ = child.kill();
    let _ = child.wait();
    match last.trim() {
        "status 0" => Ok(()),
        _ => {
            let console = fs::read_to_string(&console).unwrap_or_default();
            Err(format!("the command failed, or took more than {} s\n{console}", LIMIT.as_secs()))
        }
    }
}
