//! A series as one line of text: `▁▂▁▁·▂▇█▇`. Only block elements and a dot, no control characters.

/// From the lowest to the highest value.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Where there is no value.
const HOLLOW: char = '·';

#[derive(Clone, Debug, PartialEq)]
pub struct Sparkline {
    pub line: String,
    /// Below the line, as wide as its last mark; empty where there is none.
    pub marks: String,
    /// Of the values, not of what is drawn.
    pub low: f64,
    pub high: f64,
}

/// At most `width` characters: more values share columns, as their mean. `marks` are an index of a value and what to
/// put below it; in a column the first one counts. `None` where there is no value to draw.
pub fn sparkline(values: &[Option<f64>], marks: &[(usize, char)], width: usize) -> Option<Sparkline> {
    let columns = values.len().min(width);
    let column = |index: usize| index * columns / values.len();
    let solid = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (solid().reduce(f64::min)?, solid().reduce(f64::max)?);
    if columns == 0 {
        return None;
    }
    let mut sums = vec![(0.0, 0u32); columns];
    for (index, value) in values.iter().enumerate() {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let (sum, count) = &mut sums[column(index)];
            *sum += value;
            *count += 1;
        }
    }
    let means: Vec<Option<f64>> =
        sums.iter().map(|&(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect();
    // The columns fill the height, though means reach less far than the values.
    let drawn = || means.iter().flatten().copied();
    let (bottom, top) = (drawn().reduce(f64::min)?, drawn().reduce(f64::max)?);
    let level = |mean: f64| match (mean - bottom) / (top - bottom) {
        share if share.is_finite() => LEVELS[((share * 8.0) as usize).min(7)],
        _ => LEVELS[3],
    };
    let line = means.iter().map(|mean| mean.map_or(HOLLOW, level)).collect();

    let mut below = vec![' '; columns];
    for &(index, mark) in marks.iter().filter(|(index, _)| *index < values.len()) {
        if below[column(index)] == ' ' {
            below[column(index)] = mark;
        }
    }
    let marks = below.into_iter().collect::<String>().trim_end().to_owned();
    Some(Sparkline { line, marks, low, high })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(values: &[f64], marks: &[(usize, char)], width: usize, line: &str, below: &str) {
        // -1 stands for a hollow entry.
        let values: Vec<Option<f64>> = values.iter().map(|value| (*value >= 0.0).then_some(*value)).collect();
        let spark = sparkline(&values, marks, width).unwrap();
        assert_eq!((spark.line.as_str(), spark.marks.as_str()), (line, below));
    }

    #[test]
    fn by_hand() {
        check(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], &[], 80, "▁▂▃▄▅▆▇█", "");
        check(&[0.0, 0.0, -1.0, 7.0, 7.0], &[(3, '▲'), (9, 'x')], 80, "▁▁·██", "   ▲");
        check(&[5.0, 5.0], &[], 80, "▄▄", "");
        // Two entries a column, one of which may be hollow.
        check(&[0.0, 2.0, 4.0, -1.0, -1.0, -1.0, 8.0, 8.0], &[(3, '▲'), (2, '△')], 4, "▁▄·█", " ▲");
        let spark = sparkline(&[Some(1.0), Some(3.0), Some(9.0)], &[], 1).unwrap();
        assert_eq!((spark.low, spark.high), (1.0, 9.0));
        assert_eq!(sparkline(&[None, Some(f64::NAN)], &[], 10), None);
        assert_eq!(sparkline(&[Some(1.0)], &[], 0), None);
        assert_eq!(sparkline(&[], &[], 10), None);
    }

    proptest! {
        #[test]
        fn never_wider_and_never_strange(
            values in proptest::collection::vec(proptest::option::of(any::<f64>()), 0..200),
            marks in proptest::collection::vec((0..220usize, Just('▲')), 0..4), width in 0..90usize,
        ) {
            if let Some(spark) = sparkline(&values, &marks, width) {
                prop_assert_eq!(spark.line.chars().count(), width.min(values.len()));
                prop_assert!(spark.line.chars().all(|c| LEVELS.contains(&c) || c == HOLLOW));
                prop_assert!(spark.marks.chars().count() <= width);
                prop_assert!(spark.low <= spark.high);
            }
        }
    }
}
