//! Golden tests: what is said of texts full of mistakes, byte for byte. `UPDATE=1 cargo test -p portway-core
//! --test diagnostics` rewrites the texts in `mistakes/`, to be read before they are committed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use portway_core::assign::assign;
use portway_core::caps::{Caps, Nftables};
use portway_core::config;
use portway_core::diagnostic::{Diagnostic, Severity, Source, render};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes")
}

fn compare(name: &str, shown: &str) {
    let path = folder().join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, shown).expect("the golden text can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == shown, "{name} differs; now it is:\n{shown}");
}

fn file(name: &str) -> Source {
    Source::new(name, std::fs::read_to_string(folder().join(name)).expect("the file is there"))
}

/// What is said of a file that cannot be loaded.
fn compare_file(name: &str) {
    let source = file(&format!("{name}.toml"));
    let (ruleset, found) = config::load(source.text()).whole();
    assert!(ruleset.is_none());
    compare(&format!("{name}.txt"), &render(&source, &found, false));
}

#[test]
fn a_file_with_a_mistake_on_nearly_every_line() {
    compare_file("many");
}

#[test]
fn classic_mistakes_in_endpoints() {
    compare_file("endpoints");
}

#[test]
fn mistakes_in_pools() {
    compare_file("pools");
}

#[test]
fn mistakes_about_the_ebpf_engine() {
    compare_file("ebpf");
}

#[test]
fn mistakes_in_checks() {
    compare_file("checks");
}

#[test]
fn what_no_engine_can_do() {
    let source = file("engines.toml");
    let (ruleset, found) = config::load(source.text()).whole();
    assert_eq!(found, []);
    let caps = Caps {
        nftables: Ok(Nftables::default()),
        addresses: ["192.0.2.80".parse().expect("an address")].into(),
        first_port: 1024,
        ..Caps::all()
    };
    let found = assign(&ruleset.expect("the file is valid"), &caps).expect_err("nothing can serve it");
    compare("engines.txt", &render(&source, &found, false));
}

/// Short texts that are not TOML, or hardly.
#[test]
fn syntax_errors() {
    let texts = [
        "listen = \"80",
        "[[rule]]\nlisten = 0.0.0.0:80\nforward = \"10.0.0.1\"\n",
        "[rule]\nlisten = \"80\"\nforward = \"10.0.0.1\"\n",
        "[rule]\nlisten = \"80\"\n[rule]\nlisten = \"81\"\n",
        "[[rule]]\nlisten = \"80\"\nlisten = \"81\"\nforward = \"10.0.0.1\"\n",
        "[[rule]\nlisten = \"80\"\nforward = \"10.0.0.1\"\n[host]\nsetting = 1\n",
        "rules:\n - listen: 80\n",
        "{\"rule\": []}",
        "[[rule]]\nlisten = \"80\nforward = \"10.0.0.1\n[[rule]]\nlisten = \"81\"\nforwrd = \"10.0.0.1\"",
        "[[rule]]\nlisten \"80\"\nforward = \"10.0.0.1\"",
        "[[rule]]\nlisten = [\"80\", \"81\"\nforward = \"10.0.0.1\"\n",
        "[[rule]]\nlisten =\nforward =\n",
        "rule = [{ listen = \"80\", forward = \"10.0.0.1\" }, 3]\nhost = 3",
        "listen = \"80\"\n[host]\nidle = \"3s\"\n",
        "[[rule]]\nlisten = []\nforward = \"10.0.0.1\"",
    ];
    let mut shown = String::new();
    for text in texts {
        let source = Source::new("portway.toml", text);
        let (ruleset, found) = config::load(text).whole();
        assert!(ruleset.is_none() && !found.is_empty(), "{text}");
        let _ = write!(shown, "────────\n{text}\n────────\n{}", render(&source, &found, false));
    }
    compare("syntax.txt", &shown);
}

#[test]
fn command_lines() {
    let lines = [
        "8888:192.168.1.100:80 0.0.0.0:9:10.0.0.1:80 8889:[fd00::1]:80 udp/53:10.0.0.1:53 :90:10.0.0.1:80",
        "eth0:443:10.0.0.1 91:10.0.0.1 [fd00::2]:5:10.0.0.1:6 8000-8001:10.0.0.1:9000-9001",
        "80 10.0.0.1 81 10.0.0.2 --engine proxy --source 192.0.2.1,192.0.2.2",
        "8888:80",
        "8888",
        "",
        "8888 example.com:80 --source presrv --engine nft",
        "8888:example.com:80 8888:fd00::1:80",
        "8888 example.com:80 8889:app.example 0.0.0.0:9:App.example:80 5432:srv/_pg._tcp.example udp/53:srv/_dns._udp.a",
        "8888:localhost:80 8889 app..example 90 srv/_pg._tcp.example:5432 91 10.0.0.1,10.0.0.2",
        "8888:10.0.0.1:80/tcp 8889:10.0.0.1 80 10.0.0.2 81",
        "80 10.0.0.1 90 10.0.0.2 --source 192.0.2.1,fd00::2,x",
        "localhost:80 10.0.0.1 *:81 10.0.0.1 http://a:80 10.0.0.1 10.0.0.0/8:70 10.0.0.1 TCP/90 10.0.0.1",
        "80 10.0.0.1 0.0.0.0:80 10.0.0.2",
    ];
    let mut shown = String::new();
    for line in lines {
        let (mut pairs, mut engine, mut pool) = (Vec::new(), None, None);
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "--engine" => engine = words.next(),
                "--source" => pool = words.next(),
                word => pairs.push(word),
            }
        }
        let (source, built) = config::from_command_line(&pairs, engine, pool);
        let (ruleset, found) = built.whole();
        assert_eq!(ruleset.is_none(), found.iter().any(Diagnostic::is_error));
        let _ = writeln!(shown, "──────── {line}");
        for rule in ruleset.iter().flat_map(|ruleset| &ruleset.rules) {
            let listeners: Vec<String> = rule.listeners.iter().map(ToString::to_string).collect();
            let engine = rule.engine.map_or_else(|| "auto".to_owned(), |engine| engine.to_string());
            let listeners = listeners.join(", ");
            let _ = writeln!(shown, "{}: {listeners} -> {}, {}, {engine}", rule.name, rule.pool, rule.source);
        }
        shown.push_str(&render(&source, &found, false));
    }
    compare("command-lines.txt", &shown);
}

#[test]
fn places_count_characters_from_one() {
    let source = Source::new("f.toml", "a = \"é\"\r\n# ü\r\nünknown = 1\r\n");
    let (_, found) = config::load(source.text()).whole();
    let located = found[0].located(&source);
    assert_eq!((located.place.line, located.place.column), (1, 1));
    let text = serde_json::to_value(&located).expect("can be serialized");
    assert_eq!(text["file"], "f.toml");
    assert_eq!(text["severity"], "error");
    assert_eq!((&text["line"], &text["column"], &text["end_column"]), (&1.into(), &1.into(), &2.into()));
    let diagnostic = Diagnostic::error(21..26, "x");
    let multibyte = diagnostic.located(&source).place;
    assert_eq!((multibyte.line, multibyte.column), (3, 5), "ü is one column and two bytes");
}

#[test]
fn colour_is_only_where_it_is_asked_for() {
    let source = Source::new("f.toml", "x = 1");
    let found = [Diagnostic::error(0..1, "a \u{1b}[31mred\u{1b}[0m message").hint("b\u{7}")];
    assert!(!render(&source, &found, false).contains('\u{1b}'));
    assert!(!render(&source, &found, true).contains("\u{1b}[31mred"), "text cannot smuggle in colours");
    assert!(render(&source, &found, true).contains('\u{1b}'));
}

/// A limit of a rule above the limit of all is a warning, and a warning does not stand in the way.
#[test]
fn a_warning_leaves_the_ruleset() {
    let text = "[proxy]\nmax-connections = 10\n[[rule]]\nlisten = \"80\"\nforward = \"10.0.0.1\"\nmax-connections = 11\n";
    let (ruleset, found) = config::load(text).whole();
    assert_eq!(found.iter().map(|found| found.severity).collect::<Vec<_>>(), [Severity::Warning]);
    assert!(ruleset.is_some());
}

#[test]
fn an_empty_file_has_no_rules_and_no_mistakes() {
    for text in ["", "\n", "# nothing\n", "\u{feff}"] {
        let (ruleset, found) = config::load(text).whole();
        assert_eq!(found, [], "{text:?}");
        assert_eq!(ruleset.expect("is fine").rules.len(), 0);
    }
}

/// 10,000 mistakes are shown in time that does not grow with the square of the file.
#[test]
fn many_mistakes_are_cheap_to_show() {
    let mut text = String::new();
    for rule in 0..10_000 {
        let _ = write!(text, "[[rule]]\nname = \"r{rule}\"\nlisten = \"80\"\nforward = \"10.0.0.1:0\"\n");
    }
    let source = Source::new("f.toml", text);
    let start = std::time::Instant::now();
    let (_, found) = config::load(source.text()).whole();
    let shown = render(&source, &found, false);
    assert!(found.len() >= 10_000 && shown.len() > 1_000_000, "{}", found.len());
    // A debug build on a busy machine takes about 2 s; quadratic work would take minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

/// A line of any length is shown in part, with its real column, and no more slowly for its length.
#[test]
fn long_lines_are_cut() {
    let listeners: Vec<String> = (1..=3000).map(|at| format!("'0.0.0.0:{}'", 70_000 + at)).collect();
    let text = format!("[[rule]]\nforward = '10.0.0.1'\nlisten = [{}]\n", listeners.join(", "));
    let source = Source::new("f.toml", text);
    let (_, found) = config::load(source.text()).whole();
    assert_eq!(found.len(), 3000);
    let column = found[1500].located(&source).place.column;
    let shown = render(&source, &found[1500..1501], false);
    assert!(shown.contains(&format!("f.toml:3:{column}")) && shown.contains("^^^^^"), "{shown}");
    let start = std::time::Instant::now();
    render(&source, &found, false);
    // Shown whole, 3,000 places in a line of 50 KB take half a minute in a debug build.
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
}

/// Nesting is bounded: neither reading nor dropping a hostile file overflows the stack.
#[test]
fn deep_nesting_is_refused() {
    const DEEP: usize = 100_000;
    let texts = [
        format!("listen = {}", "[".repeat(DEEP)),
        format!("listen = {}1{}", "[".repeat(DEEP), "]".repeat(DEEP)),
        format!("listen = {}", "{a=".repeat(DEEP)),
        format!("{}a = 1", "a.".repeat(DEEP)),
        format!("[{}a]", "a.".repeat(DEEP)),
        format!("x = {{ {}a = 1 }}", "a.".repeat(DEEP)),
        format!("[[{}a]]", "a.".repeat(DEEP)),
    ];
    for text in texts {
        let (ruleset, found) = config::load(&text).whole();
        assert!(ruleset.is_none() && !found.is_empty(), "{}", &text[..20]);
        assert!(!render(&Source::new("f.toml", text), &found, false).is_empty());
    }
}
