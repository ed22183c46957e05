//! What a run does without, and why: a line for each lane and reason, rather than one for every place where it would have been
//! tried.
//!
//! Pure. Deliberately absent: what is found out only by trying, which is told as it happens ([`crate::perform`]).

use std::collections::BTreeMap;

use crate::load::Load;
use crate::options::Series;
use crate::record::LeftOut;
use crate::schedule::Trial;

/// What is not tried.
#[derive(Debug, Default)]
pub struct Absent(Vec<Group>);

/// The places where a lane is not tried for one reason.
#[derive(Debug)]
struct Group {
    lane: String,
    why: String,
    loads: Vec<&'static str>,
    points: BTreeMap<String, Vec<u64>>,
}

impl Absent {
    /// A lane is not tried under a load.
    pub fn load(&mut self, lane: &str, load: Load, why: &str) {
        let loads = &mut self.group(lane, why).loads;
        if !loads.contains(&load.name()) {
            loads.push(load.name());
        }
    }

    /// Something is not tried that would have been set up apart.
    pub fn trial(&mut self, trial: &Trial, why: &str) {
        let lane = trial.scheme.name();
        match &trial.at {
            None => self.load(&lane, trial.load, why),
            Some(at) => self.group(&lane, why).points.entry(at.of.clone()).or_default().push(at.count),
        }
    }

    /// What is to be told, in the order in which it was found.
    pub fn lines(&self) -> impl Iterator<Item = LeftOut> {
        self.0.iter().map(|group| LeftOut { name: group.name(), why: group.why.clone() })
    }

    fn group(&mut self, lane: &str, why: &str) -> &mut Group {
        let known = self.0.iter().position(|group| group.lane == lane && group.why == why);
        let place = known.unwrap_or_else(|| {
            let (lane, why) = (lane.to_owned(), why.to_owned());
            self.0.push(Group { lane, why, loads: Vec::new(), points: BTreeMap::new() });
            self.0.len() - 1
        });
        &mut self.0[place]
    }
}

impl Group {
    /// `nginx-stream under churn at flows 1000000; rules 10000, 100000`.
    fn name(&self) -> String {
        let points = self.points.iter().map(|(series, counts)| match Series::named(series) {
            Some(whole) if whole.counts().len() == counts.len() => format!("all {series}"),
            _ => format!("{series} {}", counts.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
        });
        let points: Vec<String> = points.collect();
        let mut name = self.lane.clone();
        for (word, places) in [(" under ", self.loads.join(", ")), (" at ", points.join("; "))] {
            if !places.is_empty() {
                name.push_str(word);
                name.push_str(&places);
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Scheme;
    use crate::options::Scale;
    use crate::record::Mode;
    use crate::schedule;

    #[test]
    fn a_reason_is_told_once_for_a_lane() {
        let mut absent = Absent::default();
        absent.load("socat", Load::UdpSmall, "no UDP");
        absent.load("socat", Load::UdpLarge, "no UDP");
        absent.load("socat", Load::UdpLarge, "no UDP");
        absent.load("socat", Load::Article, "too many");
        let groups =
            schedule::apart(&[Scheme::Socat], &[Load::Churn], &[Series::Rules], (Scale::Long, Mode::Time));
        for trial in groups.iter().flatten() {
            let few = trial.at.as_ref().is_none_or(|at| at.count < 1000);
            absent.trial(trial, if few { "no UDP" } else { "too many" });
        }
        let lines: Vec<String> = absent.lines().map(|line| format!("{}: {}", line.name, line.why)).collect();
        let wanted = [
            "socat under udp-small, udp-large, churn at rules 1, 100: no UDP",
            "socat under article at rules 10000, 100000: too many",
        ];
        assert_eq!(lines, wanted);
    }

    #[test]
    fn a_whole_series_is_named_as_such() {
        let mut absent = Absent::default();
        let groups = schedule::apart(&[Scheme::Socat], &[], &[Series::Rules], (Scale::Long, Mode::Time));
        groups.iter().flatten().for_each(|trial| absent.trial(trial, "one target"));
        let names: Vec<String> = absent.lines().map(|line| line.name).collect();
        assert_eq!(names, ["socat at all rules"]);
    }
}
