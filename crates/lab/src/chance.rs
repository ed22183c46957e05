//! How far a count may stray by chance. A sound program passes each bound once in 10^9 runs, so that the hundred or so
//! bounds of the suite together fail less than one run in a million.

/// How often a bound may be passed by chance.
const RARE: f64 = 1e-9;

/// How far the share of an outcome of probability `p` may stray from `p` in `trials` independent trials: Bernstein's
/// inequality (Boucheron, Lugosi, Massart, "Concentration Inequalities", 2013, corollary 2.11), both sides. It also
/// holds for draws without replacement (Hoeffding 1963, section 6), and for a hash that was fixed before its keys
/// were chosen.
pub fn stray(p: f64, trials: usize) -> f64 {
    let (n, log) = (trials as f64, (2.0 / RARE).ln());
    // From 2 exp(-n t^2 / (2 p (1 - p) + 2 t / 3)) = RARE, solved for t.
    let linear = log / (3.0 * n);
    linear + (linear * linear + 2.0 * p * (1.0 - p) * log / n).sqrt()
}

/// Insists that a share is what it should be, within chance and `other` (what is known to be rounded).
///
/// # Panics
/// When it is not.
pub fn assert_share(what: &str, found: f64, wanted: f64, trials: usize, other: f64) {
    let bound = stray(wanted, trials) + other;
    assert!((found - wanted).abs() <= bound, "{what}: {found:.4}, not {wanted:.4} within {bound:.4}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_near_the_normal_one_and_no_tighter() {
        // 6.11 standard deviations leave 1e-9 on both sides of a normal distribution.
        let normal = 6.11 * (0.2_f64 * 0.8 / 2000.0).sqrt();
        let bound = stray(0.2, 2000);
        assert!(bound > normal && bound < 1.25 * normal, "{bound} and {normal}");
    }

    #[test]
    fn a_fair_coin_stays_within() {
        // 2,000 draws of the lowest bit of a linear congruential generator's upper half.
        let mut state = 1_u64;
        let heads = (0..2000)
            .filter(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state >> 63 == 1
            })
            .count();
        assert_share("heads", heads as f64 / 2000.0, 0.5, 2000, 0.0);
    }

    #[test]
    #[should_panic(expected = "shares")]
    fn a_missing_backend_is_noticed() {
        assert_share("shares", 0.0, 0.2, 2000, 0.0);
    }
}
