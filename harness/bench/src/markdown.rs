//! Sheets as GitHub-flavoured Markdown, for `reports/`, job summaries and comments. Board names, messages and the like are foreign text: they are
//! escaped, so that none of them makes a link, a mention or another column.

use crate::{
    command::CommandLine,
    record::Run,
    sheet::{self, Sheet},
    summary::CaseSummary,
};

pub fn render(run: &Run, summaries: &[CaseSummary]) -> String {
    let provenance = &run.header.provenance;
    let mut out = format!("# Run {}\n\n", escape(&run.header.id));
    let command = CommandLine { env: Vec::new(), argv: provenance.command.clone() }.to_string();
    out.push_str(&format!("- started {} on {}\n", escape(&run.header.started), escape(&provenance.host)));
    out.push_str(&format!("- by {}\n", escape(&command)));
    for sheet in sheet::sheets(run, summaries) {
        out.push_str(&render_sheet(&sheet));
    }
    out
}

pub fn render_sheet(sheet: &Sheet) -> String {
    let mut out = format!("\n## {}\n\n", escape(&sheet.title));
    out.push_str(&format!("{}\n", escape(&sheet.facts.join(" · "))));
    let heading = sheet.columns.iter().map(|column| match column.unit.as_str() {
        "" => escape(column.name),
        unit => format!("{}, {}", escape(column.name), escape(unit)),
    });
    if !sheet.columns.is_empty() {
        out.push('\n');
        out.push_str(&row(heading));
        out.push_str(&row(sheet.columns.iter().map(|_| "---:".to_owned())));
    }
    let rows = sheet.columns.first().map_or(0, |column| column.cells.len());
    for index in 0..rows {
        out.push_str(&row(sheet.columns.iter().map(|column| escape(&column.cells[index].text))));
    }
    let mut notes = sheet.notes.clone();
    notes.extend(sheet::legend(sheet.columns.iter()));
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in &notes {
        out.push_str(&format!("- {}\n", escape(note)));
    }
    out
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<String>>().join(" | "))
}

/// Text that Markdown shows as it is.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '~' | '#' | '&' | '!' | '$' => {
                out.push('\\');
                out.push(c);
            }
            // The empty comment keeps GitHub from seeing a mention or an address.
            '@' => out.push_str("@<!-- -->"),
            ':' if rest.peek() == Some(&'/') => out.push_str(":<!-- -->"),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, summary::summarise};

    #[test]
    fn as_it_is_stored() {
        let run = fixture::run();
        let got = render(&run, &summarise(&run));
        let expected = r"
# Run 20261123T191500Z-3f9a

- started 2026-11-23T19:15:00Z on workbench
- by cargo xtask bench

## digits-cnn on local

target x86\_64 (x86\_64-unknown-linux-gnu) · cpu Bench CPU 3000 · 2 CPUs · kernel 6.1.0 · governor performance · runner 1a2b3c4d, 4.10 MiB, cargo, rustc 1.91.0 · tract 0.23.9 · espalier 0.1.0, revision 7c7533f+ · pruned by magnitude, global, weight · accuracy on 200 samples · 5 fresh processes a variant · each 20 inferences to warm up, then at least 100 and 500 ms · run 20261123T191500Z-3f9a of 2026-11-23T19:15:00Z

| ratio | weights, k kept | MACs/≠0, k | file, KiB | packed, KiB | load, ms | first, ms | p50 \[95 %\], ms | p90, ms | p99, ms | speed-up \[95 %\], × dense | peak RSS, MiB | accuracy, % | vs dense, pp (−/+) | trust |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 0 | 52.00 | 410/410 | 210 | — | 12.5 | 3.01 | 1.000 \[0.981–1.019\] | 1.081 | 1.111 | 1 (dense) | 9.00 | 98.00 | — | ok |
| 0.5 | 26.00 | 410/210 | 210 | 96.0/24.0 | 12.5 | 2.39 | 0.800 \[0.784–0.816\] | 0.865 | 0.893 | 1.25 \[1.24–1.26\] | 9.06 | 97.00 | -1.00 (3/1) | ok |
| 0.9 (0.895) | 5.46 | 410/50 | 210 | — | — | — | — | — | — | — | 9.12 | 90.00 | -8.00 (17/1) | — |

- ratio 0.9: \`time\` failed, stage run: the runner was cut off before \`finished\`: signal 9 \| \\u{1b}\]0;x\\u{7} (5 times)
- largest ratio within the accuracy budget (at most 1 pp lost): 0.5 (-1.00 pp)
- ratio: asked for (and what came out); MACs/≠0: multiply-accumulates run, and those whose weight is not zero; packed: \`cargo xtask pack\` without loss, and as bitmap and codebook; (−/+): samples lost and won

## digits-cnn on virt-riscv64

target riscv64gc (riscv64gc-unknown-linux-gnu) · cpu QEMU \| \\u{1b}\[31mvirt @<!-- -->root · 1 CPU · kernel 6.1.0 · governor performance · runner 1a2b3c4d, 4.10 MiB, cargo, rustc 1.91.0 · tract 0.23.9 · espalier 0.1.0, revision 7c7533f+ · pruned by magnitude, global, weight · accuracy on 200 samples · 5 fresh processes a variant · each 20 inferences to warm up, then at least 100 and 500 ms · run 20261123T191500Z-3f9a of 2026-11-23T19:15:00Z

| ratio | weights, k kept | MACs/≠0, k | file, KiB | packed, KiB | load, ms | first, ms | p50 \[95 %\], ms | p90, ms | p99, ms | speed-up \[95 %\], × dense | peak RSS, MiB | accuracy, % | vs dense, pp (−/+) | trust |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| 0 | 52.00 | 410/410 | 210 | — | 12.5 | 30.1 | 10.00 \[9.81–10.19\] | 10.81 | 11.11 | 1 (dense) | 9.00 | 98.00 | — | emulated |
| 0.5 | 26.00 | 410/210 | 210 | 96.0/24.0 | 12.5 | 23.9 | 8.00 \[7.84–8.16\] | 8.65 | 8.93 | 1.25 \[1.24–1.26\] | 9.06 | 97.00 | -1.00 (3/1) | emulated |
| 0.9 (0.895) | 5.46 | 410/50 | 210 | — | 12.5 | 21.0 | 7.00 \[6.86–7.14\] | 7.57 | 7.79 | 1.43 \[1.42–1.43\] | 9.12 | 90.00 | -8.00 (17/1) | emulated |

- emulated board: its times are a functional check and say nothing about a real one
- predictions as on \`local\`: 600 of 600 equal, largest output difference 1.2e-7
- largest ratio within the accuracy budget (at most 1 pp lost): 0.5 (-1.00 pp)
- ratio: asked for (and what came out); MACs/≠0: multiply-accumulates run, and those whose weight is not zero; packed: \`cargo xtask pack\` without loss, and as bitmap and codebook; (−/+): samples lost and won
";
        assert!(got == expected.trim_start_matches('\n'), "{got}");
    }

    #[test]
    fn foreign_text_is_only_text() {
        assert_eq!(escape("a|b `c` [x](y) <img> @me"), r"a\|b \`c\` \[x\](y) \<img\> @<!-- -->me");
        assert_eq!(escape("see http://x.y\n# no"), r"see http:<!-- -->//x.y \# no");
    }

    #[test]
    fn every_row_has_every_column() {
        let run = fixture::run();
        let text = render(&run, &summarise(&run));
        let pipes = |line: &str| line.replace(r"\|", "").matches('|').count();
        let counts: Vec<usize> = text.lines().filter(|line| line.starts_with('|')).map(pipes).collect();
        assert_eq!(counts, vec![16; 10]);
    }
}
