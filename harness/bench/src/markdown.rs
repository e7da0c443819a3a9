//! Sheets as GitHub-flavoured Markdown, for `reports/`, job summaries and comments. Names, messages and whatever a
//! board sends are untrusted: they are escaped, so that none of them makes a link, a mention or another column.

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

/// Escapes text so that Markdown shows it literally.
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
        assert!(got == include_str!("expected/markdown.txt"), "{got}");
    }

    #[test]
    fn untrusted_text_is_only_text() {
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
