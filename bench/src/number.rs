//! Numbers as the report shows them.

/// A count as a float, for quotients. Exact to 2³², which no run reaches.
pub fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The quotient, or 0 where there is nothing to divide by.
pub fn per(amount: f64, count: u64) -> f64 {
    if count == 0 {
        0.0
    } else {
        amount / float(count)
    }
}

/// The median; of an even number of values the mean of the middle two; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied().unwrap_or_default();
    if values.len().is_multiple_of(2) {
        let lower = middle.checked_sub(1).and_then(|index| values.get(index));
        f64::midpoint(lower.copied().unwrap_or_default(), upper)
    } else {
        upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median([]).abs() < f64::EPSILON);
    }

    #[test]
    fn nothing_divides_to_nothing() {
        assert!(per(3.0, 0).abs() < f64::EPSILON);
        assert!((per(3.0, 2) - 1.5).abs() < f64::EPSILON);
    }
}
