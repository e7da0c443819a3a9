//! `gate --replay FILE`: recorded comparisons judged again, one line in, one line out, whatever the size of the file.
//!
//! A line that cannot be judged is reported on stderr, and the others are judged; the exit code is then 2.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use anyhow::Result;
use espalier_bench::exit::ExitStatus;
use espalier_gate::{
    Criterion,
    judge::LatencyJudge,
    profile::{Profile, Terms},
    replay::{Reader, ReplayVerdict, judge},
};
use flate2::bufread::MultiGzDecoder;

use crate::{context::usage, terminal};

/// Bytes of one line, after unpacking: 64 blocks of a thousand inferences have 3 MB. A gzip of zeros would otherwise
/// fill the memory.
const LONGEST_LINE: u64 = 64 << 20;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Prints a line a case.
///
/// # Errors
/// The file cannot be opened, or stdout is closed. A bad line is no error here but an exit code.
pub fn replay(file: &Path, profile: Profile, criterion: Criterion, comparisons: usize) -> Result<ExitStatus> {
    let terms = Terms { comparisons, ..Terms::ALONE };
    let latency = LatencyJudge::new(&profile, criterion, terms)
        .ok_or_else(|| usage(format!("`{}` is no latency", criterion.name())))?;
    let opened = File::open(file).map_err(|error| usage(format!("cannot open `{}`: {error}", file.display())))?;
    let lines = unpacked(BufReader::new(opened))
        .map_err(|error| usage(format!("cannot read `{}`: {error}", file.display())))?;
    judge_lines(lines, &latency, &file.display().to_string(), &mut io::stdout().lock(), &mut io::stderr().lock())
}

/// The bytes, unpacked where they are packed.
fn unpacked(mut file: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    Ok(match file.fill_buf()?.starts_with(&GZIP) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(file))),
        false => Box::new(file),
    })
}

fn judge_lines(
    mut lines: impl BufRead,
    latency: &LatencyJudge,
    name: &str,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> Result<ExitStatus> {
    let mut reader = Reader::default();
    let (mut bad, mut regressed, mut inconclusive, mut judged) = (0, 0, 0, 0);
    for number in 1.. {
        let mut line = Vec::new();
        let read = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        // The beginning of a cut-off line still names the case that is lost.
        let broken = read.err();
        if line.is_empty() && broken.is_none() {
            break;
        }
        let complete = (line.len() as u64) < LONGEST_LINE || line.ends_with(b"\n");
        let text = line.trim_ascii();
        if !complete {
            bad += 1;
            writeln!(errors, "error: `{name}`, line {number}: longer than {} MiB", LONGEST_LINE >> 20)?;
            lines.skip_until(b'\n').ok();
        } else if !text.is_empty() {
            let done =
                reader.read(text, number).and_then(|replay| judge(&replay, latency).map_err(|error| error.to_string()));
            match done {
                Ok(case) => {
                    judged += 1;
                    regressed += usize::from(case.verdict == ReplayVerdict::Fail);
                    inconclusive += usize::from(case.verdict == ReplayVerdict::Inconclusive);
                    writeln!(out, "{}", case.to_line()).map_err(|error| terminal::failed(&error))?;
                }
                Err(error) => {
                    bad += 1;
                    writeln!(errors, "error: `{name}`, {error}")?;
                }
            }
        }
        if let Some(error) = broken {
            bad += 1;
            writeln!(errors, "error: `{name}`, line {number}: cannot read on: {error}")?;
            break;
        }
    }
    out.flush().map_err(|error| terminal::failed(&error))?;
    if judged == 0 && bad == 0 {
        writeln!(errors, "error: `{name}` has no case: nothing was compared")?;
    }
    Ok(match (bad, regressed, inconclusive, judged) {
        (1.., ..) => ExitStatus::Usage,
        (_, 1.., ..) => ExitStatus::Regression,
        (_, _, 1.., _) | (.., 0) => ExitStatus::Inconclusive,
        _ => ExitStatus::Ok,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use espalier_gate::simulate::session;
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// Exit status, stdout and stderr.
    fn judged(file: Vec<u8>) -> (ExitStatus, String, String) {
        let latency = LatencyJudge::new(&Profile::COARSE, Criterion::P50, Terms::ALONE).unwrap();
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let lines = unpacked(Cursor::new(file)).unwrap();
        let status = judge_lines(lines, &latency, "cases", &mut out, &mut errors).unwrap();
        (status, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
    }

    fn gzipped(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    /// Without a line feed; as clear as can be.
    fn line(seed: u64, effect: f64) -> String {
        session(seed, effect, Profile::COARSE.most_blocks()).to_line()
    }

    #[track_caller]
    fn check(text: &str, status: ExitStatus, cases: usize, expected: &str) {
        let (got, out, errors) = judged(text.as_bytes().to_vec());
        assert_eq!((got, out.lines().count(), errors.as_str()), (status, cases, expected));
        assert_eq!(judged(gzipped(text)), (got, out, errors), "gzipped it must be the same");
    }

    #[test]
    fn the_exit_code_is_the_worst_of_the_cases() {
        let (pass, fail) = (line(1, -0.2), line(2, 0.5));
        let cut_off = session(3, 0.5, 3).to_line();
        check(&format!("{pass}\n"), ExitStatus::Ok, 1, "");
        // Without the last line feed, and with empty lines.
        check(&format!("\n{pass}\n \n{fail}"), ExitStatus::Regression, 2, "");
        check(&format!("{pass}\n{cut_off}\n"), ExitStatus::Inconclusive, 2, "");
        check(&format!("{cut_off}\n{fail}\n"), ExitStatus::Regression, 2, "");
        let errors = "error: `cases` has no case: nothing was compared\n";
        check("", ExitStatus::Inconclusive, 0, errors);
        check("\n\n", ExitStatus::Inconclusive, 0, errors);
    }

    #[test]
    fn a_bad_line_costs_nothing_but_itself() {
        let (pass, fail) = (line(1, -0.2), line(2, 0.5));
        let errors = "error: `cases`, line 2: a case without a name that can be read: the line ends in the middle: was \
                    the file cut off?\n";
        check(&format!("{pass}\n{{\n{fail}\n"), ExitStatus::Usage, 2, errors);
    }

    #[test]
    fn a_file_cut_off_is_said_so() {
        let lines = (1..6).map(|seed| line(seed, 0.0) + "\n").collect::<String>();
        let mut packed = gzipped(&lines);
        packed.truncate(packed.len() / 2);
        let (status, out, errors) = judged(packed);
        let cases = out.lines().count();
        assert_eq!(status, ExitStatus::Usage);
        assert!((1..5).contains(&cases), "{out}");
        let line = cases + 1;
        assert!(errors.contains(&format!("line {line}: cannot read on: ")), "{errors}");
        // The case that is lost has its name in the other half of the message.
        assert!(errors.starts_with(&format!("error: `cases`, line {line}: case `s")), "{errors}");
    }

    /// What unpacks to more than a line may have is not taken into memory, and what follows it is judged.
    #[test]
    fn a_line_without_end_is_passed_over() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let zeros = vec![b'0'; 1 << 20];
        (0..(LONGEST_LINE >> 20) + 3).for_each(|_| encoder.write_all(&zeros).unwrap());
        encoder.write_all(format!("\n{}\n", line(1, -0.2)).as_bytes()).unwrap();
        let (status, out, errors) = judged(encoder.finish().unwrap());
        assert_eq!((status, out.lines().count()), (ExitStatus::Usage, 1));
        assert_eq!(errors, "error: `cases`, line 1: longer than 64 MiB\n");
    }
}
