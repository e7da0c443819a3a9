//! Recorded comparisons: one JSON object a line, with every time of every invocation in the order they ran, judged
//! again without hardware.
//!
//! In: `{"id":"c0001","warmup_iters":10,"block":4,"invocations":[{"arm":"A","ns":[…]},…]}`.
//! Out: `{"id","verdict","ratio","lo","hi","blocks_used","mde"}`. Any mistake in a line is found when it is read and
//! reported with line and case, so that a [`Replay`] can always be judged. What is unknown is `null`, never NaN.
//! Invocations of one case have equally many values: a shorter one was cut off, and its quantile would be another one.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    Arm, Verdict,
    judge::{Block, BlockError, LatencyJudge},
};
use espalier_protocol::text::sanitise;

/// Invocations of a block.
pub const BLOCK: usize = 4;

/// Valid times in the file's unit (usually ns): outside of this range the quotient of two times overflows.
const TIMES: std::ops::RangeInclusive<f64> = 1e-12..=1e18;

/// One comparison with its warm-up, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    id: String,
    warmup: usize,
    invocations: Vec<Invocation>,
}

/// One fresh process.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    pub arm: Arm,
    /// In order, warm-up first. Usually whole nanoseconds.
    pub ns: Vec<f64>,
}

impl Replay {
    /// # Errors
    /// Names the invocation that breaks a rule: whole blocks of four, neighbours of different arms, equally many times
    /// each, all of them finite and above zero, at least one after the warm-up.
    pub fn new(id: impl Into<String>, warmup: usize, invocations: Vec<Invocation>) -> Result<Replay, String> {
        let id = id.into();
        if id.trim().is_empty() {
            return Err("`id` is empty: every case needs a name".into());
        }
        let count = invocations.len();
        if !count.is_multiple_of(BLOCK) {
            return Err(format!(
                "{count} invocations are no whole number of blocks of {BLOCK}: was the session cut off?"
            ));
        }
        for (index, pair) in invocations.chunks_exact(2).enumerate() {
            if pair[0].arm == pair[1].arm {
                let (first, second, arm) = (2 * index + 1, 2 * index + 2, pair[0].arm);
                return Err(format!(
                    "invocations {first} and {second} are both of arm {arm:?}: neighbours are compared, one of each arm"
                ));
            }
        }
        for (index, Invocation { arm, ns }) in invocations.iter().enumerate() {
            let (length, first) = (ns.len(), invocations[0].ns.len());
            let wrong = if length <= warmup {
                format!(" has {length} values: none after {warmup} of warm-up")
            } else if length != first {
                format!(" has {length} values, the first one {first}: was it cut off?")
            } else if let Some(value) = ns.iter().position(|ns| !TIMES.contains(ns)) {
                format!(", value {}: {:?} is no time in nanoseconds", value + 1, ns[value])
            } else {
                continue;
            };
            return Err(format!("invocation {} (arm {arm:?}){wrong}", index + 1));
        }
        Ok(Replay { id, warmup, invocations })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Without the warm-up.
    pub fn blocks(&self) -> Vec<Block> {
        let block = |four: &[Invocation]| Block {
            arms: std::array::from_fn(|i| four[i].arm),
            times: std::array::from_fn(|i| four[i].ns[self.warmup..].to_vec()),
        };
        self.invocations.chunks_exact(BLOCK).map(block).collect()
    }

    /// The line that [`parse_line`] reads as the same, without a line feed.
    pub fn to_line(&self) -> String {
        let invocations = self.invocations.iter().map(|Invocation { arm, ns }| InvocationOut { arm: *arm, ns });
        let line =
            LineOut { id: &self.id, warmup_iters: self.warmup, block: BLOCK, invocations: invocations.collect() };
        serde_json::to_string(&line).expect("times are finite and keys are text")
    }
}

/// Lines of one file, read one after the other.
#[derive(Default)]
pub struct Reader {
    /// The line of each case.
    seen: HashMap<String, usize>,
}

impl Reader {
    /// `line_number` counts from one.
    ///
    /// # Errors
    /// As [`parse_line`], and a case that an earlier line has.
    pub fn read(&mut self, line: &[u8], line_number: usize) -> Result<Replay, String> {
        let replay = parse_line(line, line_number)?;
        if let Some(earlier) = self.seen.get(&replay.id) {
            return Err(format!(
                "{}: there is such a case on line {earlier} already",
                place(line_number, Some(&replay.id))
            ));
        }
        self.seen.insert(replay.id.clone(), line_number);
        Ok(replay)
    }
}

/// One line of the file, any bytes.
///
/// # Errors
/// What is wrong and where: line, case (as far as it can be read), and invocation or column.
pub fn parse_line(line: &[u8], line_number: usize) -> Result<Replay, String> {
    let raw: LineIn = serde_json::from_slice(line).map_err(|error| {
        let id = id_in(line);
        let place = place(line_number, id.as_deref());
        if error.is_eof() {
            return format!("{place}: the line ends in the middle: was the file cut off?");
        }
        // serde_json counts lines within the one it is given.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let near = near(line, error.column());
        sanitise(&format!("{place}, column {}, near `{near}`: {message}", error.column()))
    })?;
    let place = || place(line_number, Some(&raw.id));
    if raw.block != BLOCK {
        return Err(format!("{}: `block` is {}, only blocks of {BLOCK} invocations are known", place(), raw.block));
    }
    let mut invocations = Vec::with_capacity(raw.invocations.len());
    for (index, InvocationIn { arm, ns }) in raw.invocations.into_iter().enumerate() {
        let arm = match arm.as_str() {
            "A" => Arm::A,
            "B" => Arm::B,
            _ => {
                let (number, arm) = (index + 1, sanitise(&arm));
                return Err(format!("{}: invocation {number}: arm `{arm}` is neither `A` nor `B`", place()));
            }
        };
        invocations.push(Invocation { arm, ns });
    }
    Replay::new(raw.id.as_str(), raw.warmup_iters, invocations).map_err(|error| format!("{}: {error}", place()))
}

/// The result of a case. Ratios are candidate over baseline; `lo` and `hi` are the limits the test used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayResult {
    pub id: String,
    pub verdict: ReplayVerdict,
    pub ratio: Option<f64>,
    pub lo: Option<f64>,
    pub hi: Option<f64>,
    pub blocks_used: usize,
    pub mde: Option<f64>,
}

/// Verdicts as this format spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayVerdict {
    Pass,
    Fail,
    Inconclusive,
}

impl From<Verdict> for ReplayVerdict {
    fn from(verdict: Verdict) -> ReplayVerdict {
        match verdict {
            Verdict::Pass => ReplayVerdict::Pass,
            Verdict::Regressed => ReplayVerdict::Fail,
            Verdict::Inconclusive => ReplayVerdict::Inconclusive,
        }
    }
}

/// The verdict of the live gate on these blocks, measured one after the other, with no more to come.
///
/// # Errors
/// None: [`Replay::new`] refuses what cannot be judged.
pub fn judge(replay: &Replay, judge: &LatencyJudge) -> Result<ReplayResult, BlockError> {
    let decision = judge.judge_all(&replay.blocks())?;
    let effect = decision.effect;
    Ok(ReplayResult {
        id: replay.id.clone(),
        verdict: decision.verdict.into(),
        ratio: effect.map(|effect| effect.ratio),
        lo: effect.map(|effect| effect.low),
        hi: effect.map(|effect| effect.high),
        blocks_used: decision.blocks_used,
        mde: effect.and_then(|effect| effect.mde),
    })
}

impl ReplayResult {
    /// Without a line feed.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).expect("numbers and text")
    }
}

#[derive(Deserialize)]
struct LineIn {
    id: String,
    warmup_iters: usize,
    block: usize,
    invocations: Vec<InvocationIn>,
}

#[derive(Deserialize)]
struct InvocationIn {
    arm: String,
    ns: Vec<f64>,
}

#[derive(Serialize)]
struct LineOut<'a> {
    id: &'a str,
    warmup_iters: usize,
    block: usize,
    invocations: Vec<InvocationOut<'a>>,
}

#[derive(Serialize)]
struct InvocationOut<'a> {
    arm: Arm,
    #[serde(serialize_with = "whole_where_whole")]
    ns: &'a [f64],
}

/// `120`, not `120.0`: nanoseconds are usually whole.
fn whole_where_whole<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Other(f64),
    }
    // Every whole number up to 2^53 is exact in both.
    let number = |value: &f64| match *value {
        value if value.fract() == 0.0 && value.abs() < 9e15 => Number::Whole(value as u64),
        value => Number::Other(value),
    };
    serializer.collect_seq(values.iter().map(number))
}

fn place(line_number: usize, id: Option<&str>) -> String {
    match id {
        Some(id) => format!("line {line_number}: case `{}`", sanitise(&id.chars().take(80).collect::<String>())),
        None => format!("line {line_number}: a case without a name that can be read"),
    }
}

/// The case's name in a line that is no JSON, so that the error can name the case.
fn id_in(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(&line[..line.len().min(4096)]);
    let (_, rest) = text.split_once("\"id\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (id, _) = rest.split_once('"')?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// A few characters around a column, which counts bytes from one.
fn near(line: &[u8], column: usize) -> String {
    let end = column.min(line.len());
    let start = end.saturating_sub(8);
    String::from_utf8_lossy(&line[start..(end + 8).min(line.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Criterion,
        profile::{Profile, Terms},
    };

    fn invocation(arm: Arm, ns: &[f64]) -> Invocation {
        Invocation { arm, ns: ns.to_vec() }
    }

    /// One block ABBA of three values after one of warm-up.
    fn small() -> Replay {
        let invocations = [Arm::A, Arm::B, Arm::B, Arm::A].map(|arm| invocation(arm, &[30.0, 10.0, 12.0, 11.0]));
        Replay::new("c1", 1, invocations.to_vec()).unwrap()
    }

    #[track_caller]
    fn refused(line: &str, expected: &str) {
        assert_eq!(parse_line(line.as_bytes(), 7).unwrap_err(), expected);
    }

    /// `small` with something else in place of a text that is there.
    #[track_caller]
    fn changed(from: &str, to: &str, expected: &str) {
        let line = small().to_line();
        assert!(line.contains(from), "{line}");
        refused(&line.replacen(from, to, 1), expected);
    }

    #[test]
    fn a_line_is_read() {
        let line = concat!(
            r#"{"id":"c1","warmup_iters":1,"block":4,"invocations":[{"arm":"A","ns":[30,10,12,11]},"#,
            r#"{"arm":"B","ns":[30,10,12,11]},{"arm":"B","ns":[30,10,12,11]},{"arm":"A","ns":[30,10,12,11]}]}"#
        );
        assert_eq!(small().to_line(), line);
        let replay = parse_line(line.as_bytes(), 1).unwrap();
        assert_eq!(replay, small());
        let blocks = replay.blocks();
        assert_eq!(blocks.len(), 1);
        assert_eq!(blocks[0].arms, [Arm::A, Arm::B, Arm::B, Arm::A]);
        assert_eq!(blocks[0].times[3], [10.0, 12.0, 11.0]);
        // What later versions may add does no harm, and no session is an empty one.
        let more = r#"{"id":"c2","block":4,"warmup_iters":0,"invocations":[],"device":"pi4"}"#;
        assert_eq!(parse_line(more.as_bytes(), 1).unwrap().blocks(), []);
    }

    #[test]
    fn mistakes_name_line_case_and_place() {
        changed("[30,10", "[0,10", "line 7: case `c1`: invocation 1 (arm A), value 1: 0.0 is no time in nanoseconds");
        changed(
            "[30,10",
            "[30,-10",
            "line 7: case `c1`: invocation 1 (arm A), value 2: -10.0 is no time in nanoseconds",
        );
        changed("[30,", "[1e300,", "line 7: case `c1`: invocation 1 (arm A), value 1: 1e300 is no time in nanoseconds");
        changed(
            r#"ns":[30,10,12,11]"#,
            r#"ns":[30]"#,
            "line 7: case `c1`: invocation 1 (arm A) has 1 values: none after 1 of warm-up",
        );
        changed(
            r#"B","ns":[30,10,12,11]"#,
            r#"B","ns":[30,10,12]"#,
            "line 7: case `c1`: invocation 2 (arm B) has 3 values, the first one 4: was it cut off?",
        );
        changed("\"B\"", "\"C\"", "line 7: case `c1`: invocation 2: arm `C` is neither `A` nor `B`");
        changed(
            "\"B\"",
            "\"A\"",
            "line 7: case `c1`: invocations 1 and 2 are both of arm A: neighbours are compared, one of each arm",
        );
        changed(
            r#"{"arm":"A","ns":[30,10,12,11]},"#,
            "",
            "line 7: case `c1`: 3 invocations are no whole number of blocks of 4: was the session cut off?",
        );
        changed(
            "\"block\":4",
            "\"block\":6",
            "line 7: case `c1`: `block` is 6, only blocks of 4 invocations are known",
        );
        changed("\"c1\"", "\"\"", "line 7: case ``: `id` is empty: every case needs a name");
    }

    /// In what is no JSON, or JSON of another shape, the case's name is still found.
    #[test]
    fn what_cannot_be_read_names_its_case() {
        changed("[30,", "[NaN,", "line 7: case `c1`, column 71, near `,\"ns\":[NaN,10,12`: expected value");
        changed(
            "[30,",
            "[null,",
            "line 7: case `c1`, column 74, near `s\":[null,10,12,1`: invalid type: null, expected f64",
        );
        changed("[30,", "[1e999,", "line 7: case `c1`, column 75, near `\":[1e999,10,12,1`: number out of range");
        changed(r#""block":4,"#, "", "line 7: case `c1`, column 168, near `2,11]}]}`: missing field `block`");
        changed(
            "c1",
            "c1\u{1b}[2J",
            concat!(
                r#"line 7: case `c1\u{1b}[2J`, column 10, near `id":"c1\u{1b}[2J","wa`: "#,
                r"control character (\u0000-\u001F) found while parsing a string"
            ),
        );
        refused(
            "[1, 2]",
            "line 7: a case without a name that can be read, column 2, near `[1, 2]`: invalid type: integer `1`, \
             expected a string",
        );
        refused(
            "",
            "line 7: a case without a name that can be read: the line ends in the middle: was the file cut off?",
        );
        let line = small().to_line();
        for end in 10..line.len() {
            let error = parse_line(&line.as_bytes()[..end], 3).unwrap_err();
            assert_eq!(error, "line 3: case `c1`: the line ends in the middle: was the file cut off?");
        }
    }

    #[test]
    fn a_case_is_there_once() {
        let mut reader = Reader::default();
        let line = small().to_line();
        assert!(reader.read(line.as_bytes(), 1).is_ok());
        assert_eq!(
            reader.read(line.as_bytes(), 5).unwrap_err(),
            "line 5: case `c1`: there is such a case on line 1 already"
        );
        assert!(reader.read(line.replace("c1", "c2").as_bytes(), 6).is_ok());
    }

    /// Nothing is a number that is none.
    #[test]
    fn the_answer_has_nulls_and_no_nan() {
        let latency = LatencyJudge::new(&Profile::NIGHTLY, Criterion::P50, Terms::ALONE).unwrap();
        let empty = Replay::new("none", 0, vec![]).unwrap();
        let expected =
            r#"{"id":"none","verdict":"inconclusive","ratio":null,"lo":null,"hi":null,"blocks_used":0,"mde":null}"#;
        assert_eq!(judge(&empty, &latency).unwrap().to_line(), expected);
        // Two blocks, and times at both ends of what is allowed.
        let extreme = [(Arm::A, 1e-12), (Arm::B, 1e18), (Arm::B, 1e-12), (Arm::A, 1e18)].repeat(2);
        let extreme = extreme.into_iter().map(|(arm, ns)| invocation(arm, &[ns])).collect();
        let extreme = Replay::new("extreme", 0, extreme).unwrap();
        let judged = judge(&extreme, &latency).unwrap();
        assert_eq!((judged.verdict, judged.blocks_used), (ReplayVerdict::Inconclusive, 2));
        assert!(judged.lo.is_some_and(|lo| lo > 0.0) && judged.hi.is_some_and(f64::is_finite), "{judged:?}");
        assert_eq!(serde_json::from_str::<ReplayResult>(&judged.to_line()).unwrap(), judged);
    }

    /// Whole nanoseconds and others, any coin flips, any name.
    fn valid() -> impl Strategy<Value = Replay> {
        let time = prop_oneof![(1u64..1 << 53).prop_map(|ns| ns as f64), 1e-12..1e18];
        (0usize..3, 1usize..4, proptest::collection::vec(any::<bool>(), 0..6), ".*[a-z].*").prop_flat_map(
            move |(warmup, timed, flips, id)| {
                let values = proptest::collection::vec(time.clone(), warmup + timed);
                proptest::collection::vec(values, flips.len() * BLOCK).prop_map(move |times| {
                    let arm = |i: usize| if flips[i / BLOCK] == matches!(i % BLOCK, 0 | 3) { Arm::A } else { Arm::B };
                    let invocations =
                        times.into_iter().enumerate().map(|(i, ns)| Invocation { arm: arm(i), ns }).collect();
                    Replay::new(id.clone(), warmup, invocations).unwrap()
                })
            },
        )
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_case_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Reader::default().read(&bytes, 1);
        }

        #[test]
        fn a_line_with_a_mistake_is_a_case_or_an_error(at in 0usize..1000, byte: u8, replay in valid()) {
            let mut line = replay.to_line().into_bytes();
            let at = at % line.len();
            line[at] = byte;
            if let Ok(read) = parse_line(&line, 1) {
                prop_assert!(Reader::default().read(read.to_line().as_bytes(), 1).is_ok());
            }
        }

        #[test]
        fn what_is_written_is_read(replay in valid()) {
            prop_assert_eq!(parse_line(replay.to_line().as_bytes(), 1), Ok(replay));
        }
    }
}
