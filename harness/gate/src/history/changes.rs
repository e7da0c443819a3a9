//! `reports/changes.toml`: acknowledged change points. A committed file; `cargo xtask accept-change` adds to it, people
//! may edit it.
//!
//! ```toml
//! [[change]]
//! case = "digits-cnn@0.5 on pi4"
//! criterion = "p50"
//! series = "code"                 # or "device"
//! commit = "8c1f3ab"              # of the first entry at the new level; the gate's id where it has no commit
//! gate = "20261120T020000Z-91c2"  # which entry of that commit; may be left out
//! state = "accepted"              # the new level is intended, detection restarts here; or "noise": no change
//! by = "Jana"
//! reason = "int8 kernels are slower and smaller, as decided in issue 12"
//! date = "2026-11-23"
//! ```

use serde::Serialize;

use super::{HistoryEntry, Subject};
use crate::{Criterion, tables};
use espalier_bench::record::Case;
use espalier_inventory::{
    Problem, SourceFile,
    document::{Table, Wrong},
};

/// The acknowledgement of a change point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledged {
    /// The new level is intended.
    Accepted,
    /// There is no change.
    Noise,
}

impl Acknowledged {
    pub fn name(self) -> &'static str {
        match self {
            Acknowledged::Accepted => "accepted",
            Acknowledged::Noise => "noise",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    pub case: Case,
    pub criterion: Criterion,
    #[serde(rename = "series")]
    pub subject: Subject,
    /// Of the first entry at the new level, possibly abbreviated.
    pub commit: String,
    pub gate: Option<String>,
    pub state: Acknowledged,
    pub by: String,
    pub reason: String,
    pub date: String,
}

/// The fewest characters that name a commit.
const SHORTEST_COMMIT: usize = 4;

impl Change {
    /// Whether this is the entry it names.
    pub fn names(&self, entry: &HistoryEntry) -> bool {
        match &self.gate {
            Some(gate) => entry.gate == *gate,
            None => is_commit(&self.commit, entry),
        }
    }

    /// Its lines in the file, an empty one first.
    pub fn to_toml(&self) -> String {
        let mut lines = String::from("\n[[change]]\n");
        let fields = [
            ("case", Some(self.case.to_string())),
            ("criterion", Some(self.criterion.name().to_owned())),
            ("series", Some(self.subject.name().to_owned())),
            ("commit", Some(self.commit.clone())),
            ("gate", self.gate.clone()),
            ("state", Some(self.state.name().to_owned())),
            ("by", Some(self.by.clone())),
            ("reason", Some(self.reason.clone())),
            ("date", Some(self.date.clone())),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                lines.push_str(&format!("{key} = {}\n", quoted(&value)));
            }
        }
        lines
    }
}

/// Whether the entry is of this commit, where either may be abbreviated; with or without `+`.
pub fn is_commit(commit: &str, entry: &HistoryEntry) -> bool {
    let (one, other) = (commit.trim_end_matches('+'), entry.name().trim_end_matches('+'));
    one.len().min(other.len()) >= SHORTEST_COMMIT && (other.starts_with(one) || one.starts_with(other))
}

/// # Errors
/// Every mistake in the file, from top to bottom.
pub fn parse(source: &SourceFile) -> Result<Vec<Change>, Vec<Problem>> {
    tables::parse(source, "change", read_change)
}

fn read_change(mut table: Table<'_, '_>, others: &[Change]) -> Option<Change> {
    use tables::{field, filled, one_of};
    let subjects = Subject::ALL.map(|subject| (subject.name(), subject));
    let states = [Acknowledged::Accepted, Acknowledged::Noise].map(|state| (state.name(), state));
    let case = field(&mut table, "case", "digits-cnn@0.5 on pi4", tables::case);
    let criterion = field(&mut table, "criterion", "p50", tables::criterion);
    let subject = field(&mut table, "series", "code", |text| one_of("series", text, &subjects));
    let commit_value = table.require("commit", "\"8c1f3ab\"");
    let commit = commit_value.as_ref().and_then(|value| value.parse(commit));
    let gate = tables::optional(&mut table, "gate", |text| filled("gate", text));
    let state = field(&mut table, "state", "accepted", |text| one_of("state", text, &states));
    let by = field(&mut table, "by", "Jana", |text| filled("by", text));
    let reason = field(&mut table, "reason", "as decided in issue 12", |text| filled("reason", text));
    let date = field(&mut table, "date", "2026-11-23", tables::day);
    table.close();
    let change = Change {
        case: case?,
        criterion: criterion?,
        subject: subject?,
        commit: commit?,
        gate: gate?,
        state: state?,
        by: by?,
        reason: reason?,
        date: date?.to_string(),
    };
    let same = |other: &Change| {
        (&other.case, other.criterion, other.subject) == (&change.case, change.criterion, change.subject)
            && (&other.commit, &other.gate) == (&change.commit, &change.gate)
    };
    if others.iter().any(same) {
        commit_value?.wrong(Wrong::new(format!("there is another change for {} at this commit", change.case)));
        return None;
    }
    Some(change)
}

fn commit(text: &str) -> Result<String, Wrong> {
    if text.trim_end_matches('+').len() < SHORTEST_COMMIT || text.contains(char::is_whitespace) {
        return Err(Wrong::new(format!("`{text}` is no commit: at least {SHORTEST_COMMIT} characters of one")));
    }
    Ok(text.to_owned())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::fixture;

    fn read(text: &str) -> Result<Vec<Change>, Vec<String>> {
        parse(&SourceFile::new("reports/changes.toml", text))
            .map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn a_change_comes_back_from_the_file() {
        let mut change = fixture::change("c00010", Acknowledged::Accepted);
        change.reason = "\"quotes\", C:\\new, and\ntwo lines".into();
        let other = Change { gate: Some("g10".into()), state: Acknowledged::Noise, ..change.clone() };
        let text = format!("# Kept by hand.\n{}{}", change.to_toml(), other.to_toml());
        assert_eq!(read(&text).unwrap(), [change, other]);
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn all_mistakes_at_once_with_their_lines() {
        let text = r#"[[change]]
case = "digits-cnn on pi4"
criterion = "p55"
series = "codes"
commit = "ab"
state = "acepted"
by = " "
reason = "r"
date = 2026-11-23

[[change]]
case = "digits-cnn@0.5 on pi4"
criterion = "p50"
series = "code"
commit = "abcd123"
statte = "noise"
by = "Jana"
date = "2026-02-30"
"#;
        let expected = [
            "reports/changes.toml:2:8: `digits-cnn on pi4` is not a case such as `digits-cnn@0.5 on pi4`",
            "reports/changes.toml:3:13: unknown criterion `p55`; did you mean `p50`?",
            "reports/changes.toml:4:10: unknown series `codes`; did you mean `code`?",
            "reports/changes.toml:5:10: `ab` is no commit: at least 4 characters of one",
            "reports/changes.toml:6:9: unknown state `acepted`; did you mean `accepted`?",
            "reports/changes.toml:7:6: `by` is empty: fill it in for whoever reads the report",
            "reports/changes.toml:9:8: `change.date` must be a string, not a date; did you mean `\"2026-11-23\"`?",
            "reports/changes.toml:11:1: `reason` is missing in `[change]`, e.g. `reason = \"as decided in issue 12\"`",
            "reports/changes.toml:16:1: unknown key `statte` in `[change]`; did you mean `state`?",
            "reports/changes.toml:18:8: `2026-02-30` is no day such as `2026-12-31`",
        ];
        assert_eq!(read(text).unwrap_err(), expected);
        let twice = fixture::change("c00010", Acknowledged::Noise).to_toml().repeat(2);
        let problems = read(&twice).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].contains("there is another change for digits-cnn@0.5 on pi4 at this commit"),
            "{problems:?}"
        );
    }

    #[test]
    fn which_entry_is_meant() {
        let entry = fixture::entry(10, 0.0, 1e7);
        let names = |commit: &str, gate: Option<&str>| {
            let change = fixture::change(commit, Acknowledged::Noise);
            Change { gate: gate.map(str::to_owned), ..change }.names(&entry)
        };
        assert!(names("c00010", None) && names("c00010+", None) && names("c000", None) && names("c00010ffff", None));
        assert!(!names("c00011", None) && !names("c00", None));
        assert!(names("other", Some("g10")) && !names("c00010", Some("g11")));
        let change = fixture::change("g10ff", Acknowledged::Noise);
        let without = HistoryEntry { commit: None, gate: "g10ff".into(), ..entry };
        assert!(change.names(&without), "without a commit an entry goes by its gate");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), start in 0..260usize, end in 0..260usize) {
            let _ = read(&text);
            let mut file = fixture::change("c00010", Acknowledged::Noise).to_toml();
            if end <= file.len() && start <= end {
                file.replace_range(start..end, &text);
            }
            let _ = read(&file);
        }

        #[test]
        fn whatever_a_reason_says_comes_back(reason in any::<String>()) {
            prop_assume!(!reason.trim().is_empty());
            let reason = reason.trim().to_owned();
            let change = Change { reason, ..fixture::change("c00010", Acknowledged::Accepted) };
            prop_assert_eq!(read(&change.to_toml()).unwrap(), [change]);
        }
    }
}
