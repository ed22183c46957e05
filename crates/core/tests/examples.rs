//! Every example file is valid and can be served by a host on which everything works.

use std::path::{Path, PathBuf};

use portway_core::assign::{Assignment, assign};
use portway_core::caps::Caps;
use portway_core::config;
use portway_core::diagnostic::{Source, render};
use portway_core::ruleset::{EngineKind, Ruleset};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("examples/ is there")
        .map(|entry| entry.expect("is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
}

fn served(path: &Path) -> (Ruleset, Assignment) {
    let source = Source::new(path.display().to_string(), std::fs::read_to_string(path).expect("is readable"));
    let (ruleset, diagnostics) = config::load(source.text()).whole();
    assert!(diagnostics.is_empty(), "{}", render(&source, &diagnostics, false));
    let ruleset = ruleset.expect("no diagnostics, so a ruleset");
    match assign(&ruleset, &Caps::all()) {
        Ok(assignment) => (ruleset, assignment),
        Err(diagnostics) => panic!("{}", render(&source, &diagnostics, false)),
    }
}

#[test]
fn examples_load_and_are_served() {
    let files = examples();
    assert!(files.len() >= 10, "{files:?}");
    for path in files {
        let (ruleset, assignment) = served(&path);
        assert!(!ruleset.rules.is_empty(), "{}: no rules", path.display());
        // Each example says which engine it is about: `# engine: nftables` for each rule, in order.
        let text = std::fs::read_to_string(&path).expect("is readable");
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# engine: ")).collect();
        let got: Vec<String> = assignment.rules.iter().map(|assigned| assigned.engine.to_string()).collect();
        assert_eq!(got, expected, "{}", path.display());
    }
}

#[test]
fn the_examples_cover_every_engine() {
    let engines: Vec<EngineKind> = examples()
        .iter()
        .flat_map(|path| served(path).1.rules.into_iter().map(|assigned| assigned.engine))
        .collect();
    for engine in EngineKind::ALL {
        assert!(engines.contains(&engine), "{engine}");
    }
}
