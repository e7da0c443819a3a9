//! `--message-format json`: one JSON object a line on stdout, with a `reason` as in cargo's messages. A program that
//! reads them needs no other output; it has to skip lines whose `reason` it does not know.

use serde::Serialize;

use crate::{
    record::{Record, RunHeader},
    summary::CaseSummary,
};

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum Message<'a> {
    /// Once, before the first record.
    RunStarted { run: &'a RunHeader },
    /// As each job ends, measured or failed.
    Record { record: &'a Record },
    /// Each planned case, at the end.
    Summary { case: &'a CaseSummary },
    /// Always last.
    Finished(Finished<'a>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Finished<'a> {
    /// The run's id.
    pub run: &'a str,
    pub success: bool,
    /// What the process ends with.
    pub exit_code: u8,
    /// Jobs measured, failed, and planned but not begun.
    pub measured: u64,
    pub failed: u64,
    pub missing: u64,
}

impl Message<'_> {
    /// With the line break.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always encode") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, summary::summarise};

    #[test]
    fn one_object_a_line_with_its_reason() {
        let run = fixture::run();
        let summaries = summarise(&run);
        let finished =
            Finished { run: &run.header.id, success: false, exit_code: 5, measured: 37, failed: 5, missing: 0 };
        let messages = [
            Message::RunStarted { run: &run.header },
            Message::Record { record: &run.records[0] },
            Message::Summary { case: &summaries[0] },
            Message::Finished(finished),
        ];
        let lines = messages.map(|message| message.to_line());
        let reasons = lines.each_ref().map(|line| {
            assert_eq!(line.matches('\n').count(), 1);
            serde_json::from_str::<serde_json::Value>(line).unwrap()["reason"].clone()
        });
        assert_eq!(reasons, ["run-started", "record", "summary", "finished"]);
        let expected = [
            r#"{"reason":"finished","run":"20261123T191500Z-3f9a","success":false,"exit_code":5,"#,
            r#""measured":37,"failed":5,"missing":0}"#,
        ];
        assert_eq!(lines[3].trim_end(), expected.concat());
    }
}
