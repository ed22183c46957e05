//! Medians and quartiles of a handful of rounds.

/// The middle and the middle half of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The median.
    pub median: f64,
    /// The first quartile.
    pub low: f64,
    /// The third quartile.
    pub high: f64,
}

/// Summarises; `None` for no figures. Quartiles by linear interpolation (Hyndman and Fan 1996, type 7).
pub fn summary(figures: impl IntoIterator<Item = f64>) -> Option<Summary> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        let place = q * (sorted.len() as f64 - 1.0);
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        sorted[below] + (sorted[above] - sorted[below]) * place.fract()
    };
    (!sorted.is_empty()).then(|| Summary { median: quantile(0.5), low: quantile(0.25), high: quantile(0.75) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        let summary = summary([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(summary, Summary { median: 2.5, low: 1.75, high: 3.25 });
    }

    #[test]
    fn one_figure_is_its_own_middle() {
        assert_eq!(summary([7.0]).unwrap(), Summary { median: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(summary([]), None);
    }
}
