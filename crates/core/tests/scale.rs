//! 10,000 rules: read, checked and assigned in time that suits a reload.

use std::fmt::Write as _;
use std::time::Duration;

use portway_core::assign::assign;
use portway_core::build::conflict::{Claim, conflicts};
use portway_core::caps::Caps;
use portway_core::config;
use rustix::time::{ClockId, clock_gettime};

const RULES: usize = 10_000;

/// Of a processor's time, in debug builds; a release build takes a tenth. Quadratic work over 10,000 rules would take far
/// longer than either bound.
const ALLOWED: Duration = Duration::from_secs(5);

/// Does something, and says how much of a processor's time that took, whoever else had the processors.
fn timed<T>(action: impl FnOnce() -> T) -> (T, Duration) {
    let cpu = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
    };
    let before = cpu();
    let value = action();
    (value, cpu() - before)
}

fn file() -> String {
    let mut text = String::new();
    for rule in 0..RULES {
        let (net, port) = (rule / 5000, 10_000 + rule % 5000);
        let _ = write!(
            text,
            "[[rule]]\nname = \"r{rule}\"\nlisten = \"tcp+udp/192.0.2.{net}:{port}\"\nforward = \"10.0.0.1:80\"\n"
        );
    }
    text
}

#[test]
fn ten_thousand_rules() {
    let text = file();
    let ((ruleset, found), loaded) = timed(|| config::load(&text).whole());
    assert_eq!(found, []);
    let ruleset = ruleset.expect("no mistakes");
    let (assignment, assigned) = timed(|| assign(&ruleset, &Caps::all()).expect("all can be served"));
    assert_eq!(assignment.rules.len(), RULES);
    println!("{RULES} rules: loaded in {loaded:?}, assigned in {assigned:?}");
    assert!(loaded < ALLOWED && assigned < ALLOWED, "{loaded:?} {assigned:?}");

    let claims: Vec<Claim> = ruleset
        .rules
        .iter()
        .enumerate()
        .flat_map(|(rule, built)| built.listeners.iter().map(move |listener| (rule, listener.clone())))
        .map(|(rule, listener)| Claim { rule, span: 0..0, listener })
        .collect();
    let (found, took) = timed(|| conflicts(&claims));
    assert_eq!(found, []);
    println!("{} listeners compared in {took:?}", claims.len());
    assert!(took < Duration::from_millis(500), "{took:?}");
}

/// Pools with names, settings and checks cost a few times as much as plain backends, not more.
#[test]
fn ten_thousand_pools() {
    let mut text = String::new();
    for rule in 0..RULES {
        let (net, port) = (rule / 5000, 10_000 + rule % 5000);
        let _ = write!(
            text,
            "[[rule]]\nname = \"r{rule}\"\nlisten = \"192.0.2.{net}:{port}\"\n[rule.pool]\nbackends = [\"10.0.0.1:80\", \
             {{ address = \"app.example:80\", weight = 2 }}, {{ address = \"10.0.0.2:80\", backup = true }}]\n\
             balance = \"consistent-hash\"\ncheck = {{ type = \"http\", path = \"/{rule}\", expect = \"ok\" }}\n"
        );
    }
    let (found, took) = timed(|| {
        let (ruleset, found) = config::load(&text).whole();
        assign(&ruleset.expect("no mistakes"), &Caps::all()).expect("all can be served");
        found
    });
    assert_eq!(found, []);
    println!("{RULES} pools: {took:?}");
    assert!(took < 4 * ALLOWED, "{took:?}");
}

/// The largest pool in which every backend is there twice is no slower, and each is told once.
#[test]
fn many_doubles() {
    let one = "\"10.0.0.1:80\",".repeat(256);
    let (_, found) = config::load(&format!("[[rule]]\nlisten = \"80\"\nforward = [{one}]\n")).whole();
    assert_eq!(found.len(), 255);
}

/// All of them in conflict is no slower, and each is told once.
#[test]
fn ten_thousand_conflicts() {
    let mut text = String::new();
    for rule in 0..RULES {
        let _ = write!(text, "[[rule]]\nname = \"r{rule}\"\nlisten = \"80\"\nforward = \"10.0.0.1\"\n");
    }
    let ((ruleset, found), took) = timed(|| config::load(&text).whole());
    assert!(ruleset.is_none());
    assert_eq!(found.len(), RULES - 1);
    assert!(took < ALLOWED, "{took:?}");
}
