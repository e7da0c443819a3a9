//! Whatever a file contains, nothing panics, every mistake is reported, and each report points into the file.

use proptest::prelude::*;

use super::*;

const ESCAPE: char = '\u{1b}';

/// What a slip inserts.
const SLIP: &str = "[\\[\\]{}=\"'$\\\\#.,\n\r\taé1\u{1b}\u{feff}]{0,2}";

/// A line and the same line with a mistake. All right lines together are one valid device.
const LINES: [(&str, &str); 9] = [
    ("target = 'host'", "target = 'hostt'"),
    ("description = 'd'", "description = '${NOPE}'"),
    ("workdir = '/w'", "workdir = 'w'"),
    ("emulated = true", "emulatd = true"),
    ("transport = { ssh = { host = 'b' } }", "transport = { ssh = { host = '' } }"),
    ("[conditions]", "[conditons]"),
    ("cpus = [1, 2]", "cpus = [1, 1]"),
    ("[timeouts]\nidle = '30s'", "[timeouts]\nidle = 30"),
    ("command = '1h'", "command = "),
];

proptest! {
    /// Any set of mistakes in one file is reported in full, each on its own line, and nothing else is.
    #[test]
    fn each_of_many_mistakes_is_reported_once(mistakes in proptest::array::uniform9(any::<bool>())) {
        let mut text = String::new();
        let mut expected = Vec::new();
        for ((right, wrong), is_wrong) in LINES.iter().zip(mistakes) {
            text += if is_wrong { wrong } else { right };
            // The contents of a table with an unknown name are not looked at.
            if is_wrong && !(mistakes[5] && right.starts_with("cpus")) {
                expected.push(1 + text.matches('\n').count());
            }
            text.push('\n');
        }
        let files = SourceFiles { devices: vec![SourceFile::new("devices/a.toml", &text)], ..SourceFiles::default() };
        let lines: Vec<usize> =
            load_files(&files).err().unwrap_or_default().iter().map(|problem| problem.line).collect();
        prop_assert_eq!(lines, expected, "{}", text);
    }

    #[test]
    fn any_text_has_its_problems_inside_the_file(text in any_text()) {
        positions_lie_in_the_file(&text)?;
    }

    #[test]
    fn a_valid_file_with_a_slip_has_its_problems_inside_the_file(
        file in 0..4_usize,
        slips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..2_usize, SLIP), 1..4),
    ) {
        let files = split(VALID);
        let all: Vec<&SourceFile> = files.targets.iter().chain(&files.devices).chain(&files.models).collect();
        let mut characters: Vec<char> = all[file].text.chars().collect();
        for (place, removed, inserted) in slips {
            let place = place.index(characters.len());
            characters.splice(place..place + removed, inserted.chars());
            characters.push('\n');
        }
        positions_lie_in_the_file(&String::from_iter(characters))?;
    }
}

fn any_text() -> impl Strategy<Value = String> {
    // Half of it made of what TOML is made of, which gets further than noise.
    let token = proptest::sample::select(vec![
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        ".",
        "\n",
        "\r\n",
        " ",
        "\"",
        "'",
        "\"\"\"",
        "target",
        "transport",
        "ssh",
        "host",
        "prune",
        "ratios",
        "source",
        "conditions",
        "cpus",
        "runner",
        "1",
        "-1",
        "0.5",
        "1e999",
        "0xff",
        "nan",
        "true",
        "'a'",
        "\"${X}\"",
        "'$'",
        "1979-05-27",
        "#",
        "é",
        "\u{0}",
        "\u{feff}",
        "\u{1f600}",
    ]);
    prop_oneof![".{0,60}", proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())]
}

/// As each kind of file: no panic, and every problem points at characters that are there.
fn positions_lie_in_the_file(text: &str) -> Result<(), TestCaseError> {
    let file = |path: &str| vec![SourceFile::new(path, text)];
    let all = [
        SourceFiles { targets: file("targets.toml").pop(), ..SourceFiles::default() },
        SourceFiles { devices: file("devices/a.toml"), ..SourceFiles::default() },
        SourceFiles { models: file("models/m.toml"), ..SourceFiles::default() },
    ];
    for problem in all.iter().filter_map(|files| load_files(files).err()).flatten() {
        let line = text.split('\n').nth(problem.line - 1);
        let line = line.map(|line| line.trim_end_matches('\r').trim_start_matches('\u{feff}'));
        prop_assert_eq!(line, Some(problem.source_line.as_str()), "{}", problem);
        // One behind the last character is where something is missing.
        let length = text.split('\n').nth(problem.line - 1).unwrap_or_default().chars().count();
        prop_assert!((1..=length + 1).contains(&problem.column), "{}", problem);
        prop_assert!(problem.width >= 1 && problem.column + problem.width <= length + 2, "{}", problem);
        prop_assert_eq!(problem.with_source().lines().count(), 4);
        prop_assert!(!problem.with_source().contains(ESCAPE), "{}", problem);
    }
    Ok(())
}
