//! CPU over time: for each lane a panel in which programs, kernel and softirq are stacked, with the forwarder's own time as a
//! line. What a screenshot of `top` shows at one moment, for all of the load and on one scale.

use super::axis::Axis;
use super::bars::{shortened, tick};
use super::drawing::{Anchor, Drawing, WIDTH};
use crate::record::Moment;

/// A panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// The lane's name.
    pub name: String,
    /// What the CPUs did.
    pub moments: Vec<Moment>,
}

const COLUMNS: usize = 2;
const COLUMN: f64 = (WIDTH - 10.0) / COLUMNS as f64;
const LEFT: f64 = 34.0;
const BREADTH: f64 = COLUMN - LEFT - 4.0;
const TOP: f64 = 46.0;
const PANEL: f64 = 62.0;
const ROW: f64 = PANEL + 28.0;

/// Draws panels of a machine with so many CPUs.
pub fn moments(name: &str, title: &str, alt: String, cpus: u32, panels: &[Panel]) -> Drawing {
    let bottom = TOP + ROW * panels.len().div_ceil(COLUMNS) as f64;
    let mut drawing = Drawing::new(name, title, alt, bottom + 30.0);
    drawing.text((10.0, 16.0), Anchor::Start, "strong", title);
    let mut x = 10.0;
    for (class, meaning) in [("user", "programs"), ("kernel", "kernel"), ("softirq", "softirq")] {
        drawing.filled(x, 25.0, 11.0, 11.0, class);
        drawing.text((x + 16.0, 34.5), Anchor::Start, "small", meaning);
        x += 32.0 + 6.0 * meaning.len() as f64;
    }
    drawing.line((x, 30.5), (x + 18.0, 30.5), "forwarder");
    drawing.text((x + 23.0, 34.5), Anchor::Start, "small", "the forwarder's processes");

    let ends = panels.iter().filter_map(|panel| panel.moments.last()).map(|moment| moment.at);
    let end = ends.fold(0.0, f64::max).max(0.1);
    let most = f64::from(cpus.max(1));
    let marks = Axis::linear([end].into_iter(), (0.0, 1.0)).ticks();
    for (place, panel) in panels.iter().enumerate() {
        let left = LEFT + COLUMN * (place % COLUMNS) as f64;
        let top = TOP + ROW * (place / COLUMNS) as f64 + 20.0;
        let across = |at: f64| left + (at / end).clamp(0.0, 1.0) * BREADTH;
        let foot = top + PANEL;
        let up = |busy: f64| foot - (busy / most).clamp(0.0, 1.0) * PANEL;
        drawing.text((left, top - 6.0), Anchor::Start, "strong", &shortened(&panel.name, 24));
        for busy in [0.0, most / 2.0, most] {
            drawing.line((left, up(busy)), (left + BREADTH, up(busy)), "grid");
            drawing.text((left - 5.0, up(busy) + 4.0), Anchor::End, "small", &tick(busy));
        }
        let mut floor = vec![0.0; panel.moments.len()];
        for class in ["user", "kernel", "softirq"] {
            let part = |moment: &Moment| match class {
                "user" => moment.user,
                "kernel" => moment.kernel,
                _ => moment.softirq,
            };
            let ceiling: Vec<f64> =
                panel.moments.iter().zip(&floor).map(|(moment, floor)| floor + part(moment)).collect();
            let over = steps(&panel.moments, &ceiling, across, up);
            let under = steps(&panel.moments, &floor, across, up);
            drawing.area(&over.into_iter().chain(under.into_iter().rev()).collect::<Vec<_>>(), class);
            floor = ceiling;
        }
        let forwarder: Vec<f64> = panel.moments.iter().map(|moment| moment.forwarder).collect();
        if forwarder.iter().any(|busy| *busy > 0.0) {
            drawing.curve(&steps(&panel.moments, &forwarder, across, up), "forwarder", "");
        }
        // Written once, below the last panel of each column.
        if place + COLUMNS >= panels.len() {
            for at in marks.iter().copied().filter(|at| *at <= end) {
                drawing.text((across(at), foot + 14.0), Anchor::Middle, "small", &tick(at));
            }
        }
    }
    drawing.text((WIDTH / 2.0, bottom + 20.0), Anchor::Middle, "small", "seconds; CPUs busy, upwards");
    drawing
}

/// A line of steps: what a moment says holds for all of its interval.
fn steps(
    moments: &[Moment],
    heights: &[f64],
    across: impl Fn(f64) -> f64,
    up: impl Fn(f64) -> f64,
) -> Vec<(f64, f64)> {
    let mut from = 0.0;
    let mut points = Vec::with_capacity(2 * moments.len());
    for (moment, height) in moments.iter().zip(heights) {
        points.extend([(across(from), up(*height)), (across(moment.at), up(*height))]);
        from = moment.at;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_all_cpus_stays_in_its_panel() {
        let moment = Moment { at: 1.0, user: 9.0, kernel: 9.0, softirq: 9.0, forwarder: 9.0 };
        let panel = Panel { name: "a".into(), moments: vec![moment] };
        let svg = moments("x", "x", String::new(), 2, &[panel]).inline();
        let top = format!("{LEFT},{}", TOP + 20.0);
        assert!(svg.contains(&format!(r#"points="{top} "#)), "{svg}");
    }
}
