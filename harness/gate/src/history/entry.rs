//! One line of `reports/history.jsonl`: one criterion of one case in one run of the gate. The file only grows;
//! everything else is computed anew from it.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{Criterion, Verdict, date, lines};
use espalier_bench::record::Case;

/// Raised when a stored field changes its meaning.
pub const FORMAT: u32 = 1;

/// The beginning of a tag that excludes an entry's numbers.
pub const INVALID: &str = "invalid";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
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
    /// Logarithm of candidate over baseline, and its standard error.
    pub log_ratio: f64,
    pub se: f64,
    pub pairs: usize,
    /// Geometric mean of the baseline's arm in the criterion's unit (ns, bytes), and the standard error of its
    /// logarithm.
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
    entry: T,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl HistoryEntry {
    /// Its line, with the line break.
    ///
    /// # Errors
    /// A number that could not be read again: nothing may be written then.
    pub fn to_line(&self) -> Result<String, String> {
        self.check()?;
        Ok(lines::to_json(&Stored { format: FORMAT, entry: self }))
    }

    /// # Errors
    /// Names the invalid field.
    pub fn from_line(line: &str) -> Result<HistoryEntry, String> {
        // First and alone: another format may have other fields.
        let Format { format } = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if format != FORMAT {
            return Err(format!("it has format {format}, this espalier reads {FORMAT}"));
        }
        let stored: Stored<HistoryEntry> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        stored.entry.check()?;
        Ok(stored.entry)
    }

    /// Left out of every estimate and drawn hollow: it is inconclusive or invalid.
    pub fn is_hollow(&self) -> bool {
        self.verdict == Verdict::Inconclusive || self.tags.iter().any(|tag| tag.starts_with(INVALID))
    }

    /// Its commit, or its gate where there is none.
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

/// All entries in the order of time. A last line that was cut off is dropped. Of several entries of one gate for the
/// same case, criterion and baseline the last one counts.
///
/// # Errors
/// Names the line.
pub fn parse(text: &str) -> Result<Vec<HistoryEntry>, String> {
    let mut entries = lines::parse(text, HistoryEntry::from_line)?;
    let mut seen = HashSet::new();
    entries.reverse();
    entries.retain(|entry| {
        seen.insert((entry.gate.clone(), entry.baseline.clone(), entry.case.to_string(), entry.criterion))
    });
    entries.reverse();
    entries.sort_by(|one, other| one.time.cmp(&other.time));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::fixture;

    #[test]
    fn a_line_is_what_the_documents_say() {
        let line = fixture::entry(3, 0.01, 1e7).to_line().unwrap();
        let expected = concat!(
            r#"{"format":1,"gate":"g3","time":"2026-01-04T02:00:00Z","commit":"c00003","baseline":"release-1.4","#,
            r#""case":{"model":"digits-cnn","ratio":0.5,"device":"pi4"},"criterion":"p50","log_ratio":0.01,"#,
            r#""se":0.003,"pairs":24,"anchor_ns":10000000.0,"anchor_se":0.002,"verdict":"pass","tags":[]}"#
        );
        assert_eq!(line, format!("{expected}\n"));
        assert_eq!(HistoryEntry::from_line(&line).unwrap(), fixture::entry(3, 0.01, 1e7));
        // A later version may add fields.
        assert!(HistoryEntry::from_line(&line.replace("\"pairs\"", "\"weather\":\"fine\",\"pairs\"")).is_ok());
    }

    /// Wherever the host lost power: complete lines are read.
    #[test]
    fn a_cut_off_last_line_is_dropped() {
        let entries: Vec<HistoryEntry> = (0..3).map(|entry| fixture::entry(entry, 0.0, 1e7)).collect();
        let text = fixture::file(&entries);
        for end in 0..text.len() {
            let complete = text[..end].matches('\n').count() + usize::from(text.as_bytes()[end] == b'\n');
            assert_eq!(parse(&text[..end]).unwrap(), entries[..complete], "cut at {end}");
        }
    }

    #[test]
    fn the_last_entry_counts_and_time_orders() {
        let [mut first, second] = [fixture::entry(1, 0.0, 1e7), fixture::entry(2, 0.0, 1e7)];
        let other = HistoryEntry { criterion: Criterion::P99, ..first.clone() };
        let text = fixture::file(&[second.clone(), first.clone(), other.clone()]);
        first.log_ratio = 0.5;
        let text = text + &first.to_line().unwrap();
        assert_eq!(parse(&text).unwrap(), [other, first, second]);
    }

    #[test]
    fn impossible_numbers_are_refused_with_their_line() {
        #[track_caller]
        fn check(from: &str, to: &str, expected: &str) {
            let text = fixture::file(&[fixture::entry(0, 0.0, 1e7), fixture::entry(1, 0.25, 1e7)]);
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
        let broken = HistoryEntry { log_ratio: f64::NAN, ..fixture::entry(0, 0.0, 1e7) };
        assert_eq!(broken.to_line().unwrap_err(), "`log_ratio` is NaN");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), start in 0..300usize, end in 0..300usize) {
            let _ = parse(&text);
            let mut line = fixture::file(&[fixture::entry(0, 0.0, 1e7), fixture::entry(1, 0.0, 1e7)]);
            if line.is_char_boundary(start.min(end)) && line.is_char_boundary(start.max(end)) {
                line.replace_range(start.min(end)..start.max(end), &text);
            }
            if let Ok(entries) = parse(&line) {
                prop_assert!(entries.iter().all(|entry| entry.log_ratio.is_finite() && entry.anchor_ns > 0.0));
            }
        }

        #[test]
        fn numbers_come_back_to_the_last_bit(log_ratio in -1.0..1.0f64, se in 0.0..0.1f64, anchor_ns in 1.0..1e12f64) {
            let entry = HistoryEntry { log_ratio, se, anchor_ns, ..fixture::entry(0, 0.0, 1.0) };
            prop_assert_eq!(parse(&entry.to_line().unwrap()).unwrap(), [entry]);
        }
    }
}
