//! One line of `reports/history.jsonl`: one criterion of one case in one run of the gate. The file only ever grows, a night at a time; what is made of
//! it is computed anew each time it is read.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{Criterion, Verdict, date};
use espalier_bench::record::Case;

/// Raised when a stored field changes its meaning.
pub const FORMAT: u32 = 1;

/// The beginning of a tag that says that a night's numbers are not to be used.
pub const INVALID: &str = "invalid";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Night {
    /// The gate's id.
    pub gate: String,
    /// RFC 3339, UTC.
    pub time: String,
    /// Of the candidate, with `+` behind it where the tree had changes.
    pub commit: Option<String>,
    /// The name of the baseline.
    pub baseline: String,
    pub case: Case,
    pub criterion: Criterion,
    /// Candidate over baseline, with its standard error.
    pub log_ratio: f64,
    pub se: f64,
    pub pairs: usize,
    /// Geometric mean of the baseline's arm in the criterion's unit (ns, bytes), and the standard error of its logarithm.
    pub anchor_ns: f64,
    pub anchor_se: f64,
    pub verdict: Verdict,
    pub tags: Vec<String>,
}

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
struct Stored<T> {
    format: u32,
    #[serde(flatten)]
    night: T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Night {
    /// Its line, with the line break.
    ///
    /// # Errors
    /// A number that no later reader could use: then nothing may be written.
    pub fn to_line(&self) -> Result<String, String> {
        self.check()?;
        let stored = Stored { format: FORMAT, night: self };
        Ok(serde_json::to_string(&stored).expect("checked numbers and strings always encode") + "\n")
    }

    /// # Errors
    /// Says what cannot be.
    pub fn from_line(line: &str) -> Result<Night, String> {
        // First and by itself: another format may have other fields.
        let Format { format } = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if format != FORMAT {
            return Err(format!("it has format {format}, this espalier reads {FORMAT}"));
        }
        let stored: Stored<Night> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        stored.night.check()?;
        Ok(stored.night)
    }

    /// Left out of every estimate and drawn hollow: nothing was shown that night, or what was shown is not to be used.
    pub fn is_hollow(&self) -> bool {
        self.verdict == Verdict::Inconclusive || self.tags.iter().any(|tag| tag.starts_with(INVALID))
    }

    /// What a person would name the night by: its commit, or its gate where there is none.
    pub fn name(&self) -> &str {
        self.commit.as_deref().unwrap_or(&self.gate)
    }

    /// The day, `2026-11-23`.
    pub fn day(&self) -> &str {
        self.time.get(..10).unwrap_or(&self.time)
    }

    fn check(&self) -> Result<(), String> {
        for (name, text) in [("gate", &self.gate), ("baseline", &self.baseline)] {
            if text.trim().is_empty() {
                return Err(format!("`{name}` is empty"));
            }
        }
        if !date::is_timestamp(&self.time) {
            return Err(format!(
                "`time` is `{}`, which is no time in UTC such as `2026-11-23T19:15:00Z`",
                self.time.escape_debug()
            ));
        }
        if Case::parse(&self.case.to_string()).as_ref() != Ok(&self.case) {
            return Err(format!("`{}` is no case", self.case.to_string().escape_debug()));
        }
        if !self.log_ratio.is_finite() {
            return Err(format!("`log_ratio` is {}", self.log_ratio));
        }
        for (name, error) in [("se", self.se), ("anchor_se", self.anchor_se)] {
            if !(error.is_finite() && error >= 0.0) {
                return Err(format!("`{name}` is {error}: an error is 0 or more"));
            }
        }
        if !(self.anchor_ns.is_finite() && self.anchor_ns > 0.0) {
            return Err(format!("`anchor_ns` is {}: it must be above 0", self.anchor_ns));
        }
        Ok(())
    }
}

/// All nights in the order of time. The last line may be cut off (the host lost power while writing): it is dropped, anything else unreadable is an
/// error. What a gate said twice counts as it was said last.
///
/// # Errors
/// Names the line.
pub fn parse(text: &str) -> Result<Vec<Night>, String> {
    let mut nights = Vec::new();
    let last = text.lines().count();
    for (index, line) in text.lines().enumerate() {
        match Night::from_line(line) {
            Ok(night) => nights.push(night),
            Err(_) if index + 1 == last && !text.ends_with('\n') => {}
            Err(error) => return Err(format!("line {}: {error}", index + 1)),
        }
    }
    let mut seen = HashSet::new();
    nights.reverse();
    nights.retain(|night| {
        seen.insert((night.gate.clone(), night.baseline.clone(), night.case.to_string(), night.criterion))
    });
    nights.reverse();
    nights.sort_by(|one, other| one.time.cmp(&other.time));
    Ok(nights)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::fixture;

    #[test]
    fn a_line_is_what_the_documents_say() {
        let line = fixture::night(3, 0.01, 1e7).to_line().unwrap();
        let expected = r#"{"format":1,"gate":"g3","time":"2026-01-04T02:00:00Z","commit":"c00003","baseline":"release-1.4","case":{"model":"digits-cnn","ratio":0.5,"device":"pi4"},"criterion":"p50","log_ratio":0.01,"se":0.003,"pairs":24,"anchor_ns":10000000.0,"anchor_se":0.002,"verdict":"pass","tags":[]}"#;
        assert_eq!(line, format!("{expected}\n"));
        assert_eq!(Night::from_line(&line).unwrap(), fixture::night(3, 0.01, 1e7));
        // A later version may say more.
        assert!(Night::from_line(&line.replace("\"pairs\"", "\"weather\":\"fine\",\"pairs\"")).is_ok());
    }

    /// Wherever the host lost power: what was written whole is there.
    #[test]
    fn a_cut_off_last_line_is_dropped() {
        let nights: Vec<Night> = (0..3).map(|night| fixture::night(night, 0.0, 1e7)).collect();
        let text = fixture::file(&nights);
        for end in 0..text.len() {
            let whole = text[..end].matches('\n').count() + usize::from(text.as_bytes()[end] == b'\n');
            assert_eq!(parse(&text[..end]).unwrap(), nights[..whole], "cut at {end}");
        }
    }

    #[test]
    fn what_was_said_last_counts_and_time_orders() {
        let [mut first, second] = [fixture::night(1, 0.0, 1e7), fixture::night(2, 0.0, 1e7)];
        let other = Night { criterion: Criterion::P99, ..first.clone() };
        let text = fixture::file(&[second.clone(), first.clone(), other.clone()]);
        first.log_ratio = 0.5;
        let text = text + &first.to_line().unwrap();
        assert_eq!(parse(&text).unwrap(), [other, first, second]);
    }

    #[test]
    fn impossible_numbers_are_refused_with_their_line() {
        #[track_caller]
        fn check(from: &str, to: &str, expected: &str) {
            let text = fixture::file(&[fixture::night(0, 0.0, 1e7), fixture::night(1, 0.25, 1e7)]);
            let broken = text.replace(from, to);
            assert_ne!(text, broken);
            let error = parse(&broken).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        check("\"log_ratio\":0.25", "\"log_ratio\":NaN", "line 2: expected value");
        check("\"log_ratio\":0.25", "\"log_ratio\":null", "line 2: invalid type: null");
        check("\"log_ratio\":0.25", "\"log_ratio\":1e999", "line 2: number out of range");
        check("\"se\":0.003,\"pairs\":24", "\"se\":-0.003,\"pairs\":24", "line 1: `se` is -0.003");
        check("10000000.0", "0.0", "line 1: `anchor_ns` is 0: it must be above 0");
        check("10000000.0", "-1.0", "line 1: `anchor_ns` is -1");
        check("\"pass\"", "\"fine\"", "line 1: unknown variant");
        check("\"format\":1", "\"format\":2", "line 1: it has format 2, this espalier reads 1");
        check("2026-01-02T", "2026-02-30T", "line 2: `time` is `2026-02-30T02:00:00Z`");
        check("\"ratio\":0.5", "\"ratio\":1.5", "line 1: `digits-cnn@1.5 on pi4` is no case");
        check("release-1.4", " ", "line 1: `baseline` is empty");
        check("\n{", "\n\n{", "line 2: EOF");
        let broken = Night { log_ratio: f64::NAN, ..fixture::night(0, 0.0, 1e7) };
        assert_eq!(broken.to_line().unwrap_err(), "`log_ratio` is NaN");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), start in 0..300usize, end in 0..300usize) {
            let _ = parse(&text);
            let mut line = fixture::file(&[fixture::night(0, 0.0, 1e7), fixture::night(1, 0.0, 1e7)]);
            if line.is_char_boundary(start.min(end)) && line.is_char_boundary(start.max(end)) {
                line.replace_range(start.min(end)..start.max(end), &text);
            }
            if let Ok(nights) = parse(&line) {
                prop_assert!(nights.iter().all(|night| night.log_ratio.is_finite() && night.anchor_ns > 0.0));
            }
        }

        #[test]
        fn numbers_come_back_to_the_last_bit(log_ratio in -1.0..1.0f64, se in 0.0..0.1f64, anchor_ns in 1.0..1e12f64) {
            let night = Night { log_ratio, se, anchor_ns, ..fixture::night(0, 0.0, 1.0) };
            prop_assert_eq!(parse(&night.to_line().unwrap()).unwrap(), [night]);
        }
    }
}
