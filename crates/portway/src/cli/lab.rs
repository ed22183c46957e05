//! `portway lab`: arguments in, the lab's reports out. What it does is `portway-measure`'s.

use portway_measure::lane::Scheme;
use portway_measure::load::Load;
use portway_measure::options::{Options, Scale};
use portway_measure::run::{self, Ending};
use portway_measure::{actor, perform, report as reports};

use super::args::Lab;
use super::{Failure, report};

/// The words that make this program the stage of a lab.
const ON_STAGE: [&str; 2] = ["lab", "--on-stage"];

pub(super) fn run(words: Lab) -> Result<(), Failure> {
    if words.on_stage {
        return perform::main().map_err(|perform::Told| Failure::Said);
    }
    if let Some(part) = &words.act {
        return actor::main(part).map_err(Failure::Say);
    }
    if words.list {
        list();
        return Ok(());
    }
    let scale = match (words.quick, words.long) {
        (true, _) => Scale::Quick,
        (_, true) => Scale::Long,
        _ => Scale::Usual,
    };
    let options = Options { only: words.only, scale, rounds: words.rounds, peers: words.peers };
    let (record, ending) = run::run(&options, &ON_STAGE, env!("CARGO_PKG_VERSION"))?;
    if record.runs.is_empty()
        && let Ending::Failed(reason) = ending
    {
        return Err(Failure::Say(reason));
    }
    let out = words.out.unwrap_or_else(|| run::default_out(&record));
    let written = reports::write_all(&record, &out)?;
    report::say(&reports::brief(&record));
    report::say(&format!("written: {}", written.html.display()));
    match ending {
        Ending::Complete => Ok(()),
        Ending::Interrupted => Err("interrupted; what was measured until then is written".into()),
        Ending::Failed(reason) => Err(Failure::Say(reason)),
    }
}

/// Says which lanes and loads there are.
fn list() {
    report::say("lanes");
    for scheme in Scheme::ALL {
        let why = scheme.available().err().map(|why| format!(" (not here: {why})")).unwrap_or_default();
        report::say(&format!("  {:<18} {}{why}", scheme.name(), scheme.title()));
    }
    report::say("loads");
    for load in Load::ALL {
        report::say(&format!("  {:<18} {}", load.name(), load.title()));
    }
}
