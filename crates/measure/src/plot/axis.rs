//! Where on a line a figure stands, and which figures are written beside it: linear and logarithmic axes.
//!
//! Deliberately absent: drawing them.

/// An axis from one coordinate to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// The figures at both ends.
    figures: (f64, f64),
    /// The coordinates of both ends.
    places: (f64, f64),
    /// The difference between figures written beside it; none of a logarithmic axis.
    step: Option<f64>,
}

impl Axis {
    /// An axis on which equal steps are equal differences. It begins at zero, or at the least figure if that is below,
    /// and ends at one that is written beside it.
    pub fn linear(figures: impl Iterator<Item = f64>, places: (f64, f64)) -> Self {
        let (low, high) = range(figures).unwrap_or((0.0, 1.0));
        let (low, high) = (low.min(0.0), high.max(0.0));
        let step = step((high - low) / 6.0);
        let figures = (low, (high / step).ceil() * step);
        let figures = if figures.0 < figures.1 { figures } else { (figures.0, figures.0 + step) };
        Self { figures, places, step: Some(step) }
    }

    /// An axis on which equal steps are equal ratios; figures that are not above zero have no place on it.
    pub fn logarithmic(figures: impl Iterator<Item = f64>, places: (f64, f64)) -> Self {
        // A record may hold any number: beyond these all are drawn at the end, so that ticks are a handful.
        let figures = figures.filter(|figure| *figure > 0.0).map(|figure| figure.clamp(1e-12, 1e15));
        let (low, high) = range(figures).unwrap_or((1.0, 10.0));
        // To the next 1, 2 or 5, so that there is little empty space.
        let (low, high) = (below(low), above(high));
        let high = if low < high { high } else { low * 10.0 };
        Self { figures: (low, high), places, step: None }
    }

    /// Logarithmic if figures are so far apart that small ones would lie on the ground.
    pub fn fitting(figures: &[f64], places: (f64, f64)) -> Self {
        match range(figures.iter().copied()) {
            Some((low, high)) if low > 0.0 && high > 12.0 * low => {
                Self::logarithmic(figures.iter().copied(), places)
            }
            _ => Self::linear(figures.iter().copied(), places),
        }
    }

    /// Where a figure stands; at the nearer end if it is beyond both.
    pub fn place(&self, figure: f64) -> f64 {
        let (low, high) = self.figures;
        let share = if self.step.is_none() {
            (figure.max(low) / low).ln() / (high / low).ln()
        } else {
            (figure - low) / (high - low)
        };
        self.places.0 + share.clamp(0.0, 1.0) * (self.places.1 - self.places.0)
    }

    /// Whether a figure lies on the axis.
    pub fn holds(&self, figure: f64) -> bool {
        (self.figures.0..=self.figures.1).contains(&figure)
    }

    /// The figures that are written beside it, growing.
    pub fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.figures;
        if let Some(step) = self.step {
            // The least less is for what a division has lost.
            let first = (low / step - 1e-6).ceil();
            let count = (high / step - first).round() as i32;
            // Minus zero is zero.
            return (0..=count).map(|tick| (first + f64::from(tick)) * step + 0.0).collect();
        }
        let decades = (high / low).log10();
        let of_each: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let every = if decades > 7.0 { 2 } else { 1 };
        let ticks = powers.filter(|power| power.rem_euclid(every) == 0);
        let ticks = ticks.flat_map(|power| of_each.iter().map(move |first| first * 10_f64.powi(power)));
        // Powers of ten are not exact.
        ticks.filter(|tick| *tick > low * 0.999 && *tick < high * 1.001).collect()
    }
}

fn range(figures: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    figures.filter(|figure| figure.is_finite()).fold(None, |range, figure| {
        let (low, high): (f64, f64) = range.unwrap_or((figure, figure));
        Some((low.min(figure), high.max(figure)))
    })
}

/// The next of 1, 2, 5, 10, 20, … that is not smaller.
fn step(least: f64) -> f64 {
    if least > 0.0 { above(least) } else { 1.0 }
}

fn above(figure: f64) -> f64 {
    let power = 10_f64.powf(figure.log10().floor());
    // The least more than one is for what a division has lost.
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|first| first * power)
        .find(|step| *step >= figure * 0.999_999)
        .unwrap_or(10.0 * power)
}

fn below(figure: f64) -> f64 {
    let power = 10_f64.powf(figure.log10().floor());
    [5.0, 2.0]
        .into_iter()
        .map(|first| first * power)
        .find(|step| *step <= figure * 1.000_001)
        .unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_figure_makes_endless_ticks() {
        for figures in [[5e-324, 1.0], [1.0, f64::MAX], [5e-324, f64::MAX]] {
            let axis = Axis::logarithmic(figures.into_iter(), (0.0, 100.0));
            assert!((1..40).contains(&axis.ticks().len()), "{figures:?}: {:?}", axis.ticks());
            assert!(figures.iter().all(|figure| (0.0..=100.0).contains(&axis.place(*figure))), "{figures:?}");
        }
    }

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_at_a_tick() {
        let axis = Axis::linear([3.0, 87.0].into_iter(), (0.0, 100.0));
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(axis.place(50.0), 50.0);
        let axis = Axis::linear([-3.0, 9.0].into_iter(), (0.0, 100.0));
        assert_eq!(axis.ticks(), [-2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
    }

    #[test]
    fn a_logarithmic_axis_gives_equal_ratios_equal_room() {
        let axis = Axis::logarithmic([1.0, 100.0].into_iter(), (0.0, 100.0));
        assert!((axis.place(10.0) - 50.0).abs() < 1e-9);
        assert_eq!(axis.ticks().len(), 7, "{:?}", axis.ticks());
        assert_eq!(axis.place(0.0), 0.0);
    }

    #[test]
    fn no_figures_and_equal_figures_make_an_axis() {
        for axis in [
            Axis::linear([].into_iter(), (0.0, 1.0)),
            Axis::linear([0.0].into_iter(), (0.0, 1.0)),
            Axis::logarithmic([].into_iter(), (0.0, 1.0)),
            Axis::logarithmic([5.0, 5.0].into_iter(), (0.0, 1.0)),
            Axis::fitting(&[f64::NAN, f64::INFINITY], (0.0, 1.0)),
        ] {
            assert!(axis.place(0.5).is_finite() && !axis.ticks().is_empty(), "{axis:?}");
        }
    }
}
