//! Minimum, median and maximum of the rounds.

use serde::Serialize;

/// What the rounds of one figure gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The middle one.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; all zero when there are none.
    pub fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let Some((&min, &max)) = values.first().zip(values.last()) else { return Self::default() };
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Self { min, median: (low + high) / 2.0, max }
    }

    /// To three places.
    pub(super) fn short(self) -> Self {
        Self { min: short(self.min), median: short(self.median), max: short(self.max) }
    }
}

/// The median of a round's value over another value of the same round.
pub(super) fn paired(values: &[f64], base: &[f64]) -> f64 {
    let ratios: Vec<f64> = values.iter().zip(base).filter(|(_, base)| **base > 0.0).map(|(value, base)| value / base).collect();
    Spread::of(&ratios).median
}

/// To three places, for people and for JSON.
pub(super) fn short(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Spread { min: 1.0, median: 2.5, max: 4.0 });
        assert_eq!(Spread::of(&[7.0]).median, 7.0);
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        assert_eq!(paired(&[2.0, 40.0, 3.0], &[1.0, 20.0, 1.0]), 2.0);
    }
}
