//! The configurations of the forwarders, as text, which is also how the record shows them.
//!
//! Fairness is here: proxies have as many threads as the machine has CPUs, queues are long enough for the loads, no time limit
//! ends a connection during a run, and a pool is watched as closely by each forwarder that can watch one. Pure.

use std::fmt::Write;

use portway_lab::Engine;

use super::setup::{FORWARDS, Forward, GATEWAY, POOL, SERVER, SOURCE, STREAM_MODULE, Setting, backend};
use crate::load;

impl Setting {
    /// The backends of the pool, address and port; none without a pool.
    fn pool(self) -> Vec<String> {
        (0..self.backends).map(|nth| format!("{}:{}", backend(nth), POOL.target)).collect()
    }
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// iptables-restore.
pub fn iptables(setting: Setting) -> String {
    let mut script = String::from("*nat\n");
    for (address, port) in others(setting.rules) {
        let _ = writeln!(
            script,
            "-A PREROUTING -d {address} -p tcp --dport {port} -j DNAT --to-destination {SERVER}:80"
        );
    }
    for forward in FORWARDS {
        let (protocol, listen, target) = (forward.protocol(), forward.listen, forward.target);
        let _ = writeln!(
            script,
            "-A PREROUTING -d {GATEWAY} -p {protocol} --dport {listen} -j DNAT --to-destination {SERVER}:{target}"
        );
    }
    let pool = setting.pool();
    for (nth, target) in pool.iter().enumerate() {
        // Of what the rules before have let pass, one in as many as are left.
        let left = pool.len() - nth;
        let share = if left > 1 {
            format!("-m statistic --mode nth --every {left} --packet 0 ")
        } else {
            String::new()
        };
        let _ = writeln!(
            script,
            "-A PREROUTING -d {GATEWAY} -p tcp --dport {} {share}-j DNAT --to-destination {target}",
            POOL.listen
        );
    }
    for protocol in ["tcp", "udp"] {
        let to = if protocol == "udp" && setting.flows > 0 { range() } else { SOURCE.to_owned() };
        let _ = writeln!(script, "-A POSTROUTING -o wan -p {protocol} -j SNAT --to-source {to}");
    }
    script + "COMMIT\n"
}

/// nft. Many rules are one rule and a map, as one writes them by hand.
pub fn nft(setting: Setting) -> String {
    let mut script = String::from("table ip lab {\n");
    let each = |forward: Forward| (forward.protocol(), forward.listen, forward.target);
    if setting.rules > 0 {
        script += " map targets {\n  type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service\n  elements = {\n";
        for (address, port) in others(setting.rules) {
            let _ = writeln!(script, "   {address} . tcp . {port} : {SERVER} . 80,");
        }
        for (protocol, listen, target) in FORWARDS.map(each) {
            let _ = writeln!(script, "   {GATEWAY} . {protocol} . {listen} : {SERVER} . {target},");
        }
        script += "  }\n }\n";
    }
    script += " chain pre {\n  type nat hook prerouting priority -100;\n";
    if setting.rules > 0 {
        script += "  dnat ip to ip daddr . meta l4proto . th dport map @targets\n";
    } else {
        for (protocol, listen, target) in FORWARDS.map(each) {
            let _ =
                writeln!(script, "  ip daddr {GATEWAY} {protocol} dport {listen} dnat to {SERVER}:{target}");
        }
    }
    if setting.backends > 0 {
        let members: Vec<String> =
            (0..setting.backends).map(|nth| format!("{nth} : {}", backend(nth))).collect();
        let _ = writeln!(
            script,
            "  ip daddr {GATEWAY} tcp dport {} dnat to numgen inc mod {} map {{ {} }}:{}",
            POOL.listen,
            setting.backends,
            members.join(", "),
            POOL.target
        );
    }
    let udp = match setting.flows {
        0 => String::new(),
        _ => format!("  oifname \"wan\" meta l4proto udp snat to {}\n", range()),
    };
    script
        + " }\n chain post {\n  type nat hook postrouting priority 100;\n"
        + &udp
        + "  oifname \"wan\" masquerade\n }\n}\n"
}

/// A script. IPVS translates the destination (`-m`); the source is SNAT's, which sees packets of IPVS only if they are in
/// conntrack.
pub fn ipvs(setting: Setting) -> String {
    let mut script = String::from("sysctl -qw net.ipv4.vs.conntrack=1\n");
    for forward in FORWARDS {
        let flag = if forward.udp { 'u' } else { 't' };
        let _ = writeln!(script, "ipvsadm -A -{flag} {GATEWAY}:{} -s rr", forward.listen);
        let _ = writeln!(
            script,
            "ipvsadm -a -{flag} {GATEWAY}:{} -r {SERVER}:{} -m",
            forward.listen, forward.target
        );
    }
    if setting.rules > 0 {
        script += "ipvsadm -R <<END\n";
        for (address, port) in others(setting.rules) {
            let _ =
                writeln!(script, "-A -t {address}:{port} -s rr\n-a -t {address}:{port} -r {SERVER}:80 -m");
        }
        script += "END\n";
    }
    let pool = setting.pool();
    if !pool.is_empty() {
        let _ = writeln!(script, "ipvsadm -A -t {GATEWAY}:{} -s rr", POOL.listen);
    }
    for target in pool {
        let _ = writeln!(script, "ipvsadm -a -t {GATEWAY}:{} -r {target} -m", POOL.listen);
    }
    let snat = "iptables -t nat -A POSTROUTING -o wan -m ipvs --ipvs";
    if setting.flows > 0 {
        let _ = writeln!(script, "ipvsadm --set 0 0 3600\n{snat} -p udp -j SNAT --to-source {}", range());
    }
    script + &format!("{snat} -j SNAT --to-source {SOURCE}\n")
}

/// haproxy.cfg. Who splices has descriptors for pipes as well, which haproxy reckons with; streams are few.
pub fn haproxy(setting: Setting, options: &str) -> String {
    let mut text = format!(
        "global\n nbthread {}\n maxconn {}\ndefaults\n mode tcp\n{options} timeout connect 5s\n timeout client 1h\n \
         timeout server 1h\n",
        cpus(),
        if options.is_empty() { load::at_a_time() } else { load::at_a_time() / 2 }
    );
    let listen = |port: u16| format!("listen port{port}\n bind {GATEWAY}:{port} backlog 4096\n");
    for forward in FORWARDS.into_iter().filter(|forward| !forward.udp) {
        text += &format!("{} server s {SERVER}:{}\n", listen(forward.listen), forward.target);
    }
    for (address, port) in others(setting.rules) {
        let _ = writeln!(text, "listen {address}-{port}\n bind {address}:{port}\n server s {SERVER}:80");
    }
    let pool = setting.pool();
    if !pool.is_empty() {
        text += &listen(POOL.listen);
        text += " option redispatch 1\n";
    }
    let check =
        if setting.checked { " check inter 250ms fastinter 100ms downinter 100ms fall 2 rise 1" } else { "" };
    for (nth, target) in pool.iter().enumerate() {
        let _ = writeln!(text, " server s{nth} {target}{check}");
    }
    text
}

/// nginx.conf. Its checks are passive.
pub fn nginx_stream(setting: Setting) -> String {
    let mut text = format!(
        "load_module {STREAM_MODULE};\nworker_processes {};\nevents {{ worker_connections 19000; }}\nstream {{\n proxy_timeout 1h;\n",
        cpus()
    );
    for forward in FORWARDS {
        let kind = if forward.udp { "udp reuseport" } else { "backlog=4096 reuseport" };
        let (listen, target) = (forward.listen, forward.target);
        let _ =
            writeln!(text, " server {{ listen {GATEWAY}:{listen} {kind}; proxy_pass {SERVER}:{target}; }}");
    }
    for (address, port) in others(setting.rules) {
        let _ = writeln!(text, " server {{ listen {address}:{port}; proxy_pass {SERVER}:80; }}");
    }
    let pool = setting.pool();
    if !pool.is_empty() {
        text += " upstream pool {\n";
        for target in &pool {
            let _ = writeln!(text, "  server {target} max_fails=1 fail_timeout=1s;");
        }
        let _ = writeln!(
            text,
            " }}\n server {{ listen {GATEWAY}:{} backlog=4096 reuseport; proxy_pass pool; }}",
            POOL.listen
        );
    }
    text + "}\n"
}

/// Portway's file.
pub fn portway(engine: Engine, setting: Setting) -> String {
    // The client has all the ports there are, and each waits a minute at the server before it may come again: the engine gets
    // nearly as many for its one address, as conntrack has. Some are left to the host itself.
    let mut file =
        if engine.is_ebpf() { "[ebpf]\nsource-ports = '1024-64000'\n".to_owned() } else { String::new() };
    if engine.is_ebpf() && setting.flows > 0 {
        let most = setting.flows.saturating_add(MORE_FLOWS).next_power_of_two();
        let _ = writeln!(file, "max-flows = {most}\ntimeouts = {{ udp = '1h', udp-stream = '1h' }}");
    }
    for (address, port) in others(setting.rules) {
        file += &engine.forward(&format!("{address}:{port}"), &format!("{SERVER}:80"));
    }
    for forward in FORWARDS {
        let listen = format!("{}/{GATEWAY}:{}", forward.protocol(), forward.listen);
        let target = format!("{SERVER}:{}", forward.target);
        file += &match setting.flows {
            flows if flows > 0 && forward.udp => {
                let sources: Vec<String> = sources().map(|own| format!("'{own}'")).collect();
                let sources = sources.join(", ");
                engine.rule(&format!("listen = '{listen}'\nforward = '{target}'\nsource = [{sources}]"))
            }
            _ => engine.forward(&listen, &target),
        };
    }
    let members: Vec<String> =
        setting.pool().iter().map(|target| format!("{{ address = '{target}' }}")).collect();
    if !members.is_empty() {
        let check = "check = { type = 'tcp', interval = '250ms', interval-down = '100ms', timeout = '250ms', rise = 1, fall = 2 }";
        let check = if setting.checked { check } else { "" };
        file += &engine.pool(&format!("tcp/{GATEWAY}:{}", POOL.listen), &members, check);
    }
    file
}

/// Connections beside the flows that the ebpf engine has room for.
const MORE_FLOWS: u32 = 100_000;
/// The addresses that the gateway sends many flows from: half of their ports would do for a million.
const SOURCES: std::ops::RangeInclusive<u8> = 200..=231;

/// These addresses.
pub fn sources() -> impl Iterator<Item = String> {
    SOURCES.map(|nth| format!("10.2.0.{nth}"))
}

/// The same as iptables and nft write it.
fn range() -> String {
    format!("10.2.0.{}-10.2.0.{}", SOURCES.start(), SOURCES.end())
}

/// How many of the rules that no traffic uses are on one address of the gateway.
pub const RULES_EACH: u32 = 50_000;

/// The address that these are on.
pub fn other_address(nth: u32) -> String {
    format!("10.1.{}.1", 1 + nth)
}

/// Addresses and ports of rules that no traffic uses.
fn others(count: u32) -> impl Iterator<Item = (String, u16)> {
    (0..count).map(|nth| (other_address(nth / RULES_EACH), 10_000 + (nth % RULES_EACH) as u16))
}

/// A configuration for the reader: of very many lines the first and the last.
pub fn shortened(text: &str) -> String {
    const EACH: usize = 20;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 3 * EACH {
        return text.to_owned();
    }
    let left_out = format!("... {} lines more ...", lines.len() - 2 * EACH);
    [&lines[..EACH], &[left_out.as_str()], &lines[lines.len() - EACH..]].concat().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_configuration_keeps_its_ends() {
        let text = shortened(&iptables(Setting { rules: 1000, ..Setting::default() }));
        assert!(text.starts_with("*nat\n") && text.ends_with("COMMIT\n"), "{text}");
        assert!(text.lines().count() == 41, "{text}");
    }

    #[test]
    fn unused_rules_are_all_different() {
        let all: std::collections::BTreeSet<_> = others(100_000).collect();
        assert_eq!(all.len(), 100_000);
    }
}
