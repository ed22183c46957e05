//! What a run of figures was made on, in one line.

use crate::process;

/// Kernel, CPUs, and the versions of these programs, each with the flag that makes it say so.
///
/// # Panics
/// When a program is not installed.
pub fn describe(programs: &[(&str, &str)]) -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = process::run(process::program("uname").args(["-sr"]));
    let version = |(program, flag): &(&str, &str)| {
        let output = process::program(program).arg(flag).output();
        let text = output.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
    };
    let host = format!("{}, {cpus} CPUs", kernel.trim());
    let parts: Vec<String> = std::iter::once(host).chain(programs.iter().map(version)).collect();
    format!("{}.", parts.join("; "))
}
