//! Sheets as tables for a terminal. A wrapped table is not readable, so columns that do not fit are left out, the least
//! important first, and named below. Width and colour are parameters.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};

use crate::{
    record::Run,
    sheet::{self, Column, Sheet, Tone},
    summary::CaseSummary,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns of the terminal.
    pub width: usize,
    pub colour: bool,
}

/// One table for each model on each device.
pub fn render(run: &Run, summaries: &[CaseSummary], look: Look) -> String {
    let sheets = sheet::sheets(run, summaries);
    sheets.iter().map(|sheet| render_sheet(sheet, look)).collect::<Vec<String>>().join("\n")
}

pub fn render_sheet(sheet: &Sheet, look: Look) -> String {
    let (columns, dropped) = fitting(&sheet.columns, look.width);
    let mut out = format!("{}\n", sheet.title);
    out.push_str(&wrapped(&sheet.facts, " · ", look.width));
    if !columns.is_empty() {
        out.push_str(&table(&columns, look.colour).to_string());
        out.push('\n');
    }
    let mut notes = sheet.notes.clone();
    notes.extend(sheet::legend(columns.into_iter()));
    if !dropped.is_empty() {
        let names: Vec<&str> = dropped.iter().map(|column| column.name).collect();
        notes.push(format!("too narrow for: {}", names.join(", ")));
    }
    for note in notes {
        let parts: Vec<String> = note.split(' ').map(str::to_owned).collect();
        out.push_str(&wrapped(&parts, " ", look.width));
    }
    out
}

fn table(columns: &[&Column], colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    if colour {
        table.enforce_styling();
    }
    let with_units = has_units(columns);
    table.set_header(columns.iter().map(|column| {
        Cell::new(heading(column, with_units)).set_alignment(CellAlignment::Center).add_attribute(Attribute::Bold)
    }));
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for row in 0..rows {
        table.add_row(columns.iter().map(|column| {
            let sheet::Cell { text, tone } = &column.cells[row];
            let cell = Cell::new(text).set_alignment(CellAlignment::Right);
            match tone {
                Tone::Plain => cell,
                Tone::Good => cell.fg(Color::Green),
                Tone::Bad => cell.fg(Color::Red),
                Tone::Doubtful => cell.fg(Color::Yellow),
            }
        }));
    }
    table
}

/// The second line is left out where no column has a unit.
fn heading(column: &Column, with_units: bool) -> String {
    if with_units { format!("{}\n{}", column.name, column.unit) } else { column.name.to_owned() }
}

fn has_units(columns: &[&Column]) -> bool {
    columns.iter().any(|column| !column.unit.is_empty())
}

/// The columns that fit, and those that do not.
fn fitting(columns: &[Column], width: usize) -> (Vec<&Column>, Vec<&Column>) {
    // A border on the left, then content, a blank on each side and a border each.
    let total = |columns: &[&Column]| 1 + columns.iter().map(|column| content_width(column) + 3).sum::<usize>();
    let mut shown: Vec<&Column> = columns.iter().collect();
    while shown.len() > 2 && total(&shown) > width {
        let least = (0..shown.len()).max_by_key(|index| shown[*index].rank).expect("more than two are left");
        shown.remove(least);
    }
    let dropped = columns.iter().filter(|column| !shown.iter().any(|shown| std::ptr::eq(*shown, *column))).collect();
    (shown, dropped)
}

/// All characters of cells and headings are one column wide.
fn content_width(column: &Column) -> usize {
    let cells = column.cells.iter().map(|cell| cell.text.chars().count());
    cells.chain(heading(column, true).lines().map(|line| line.chars().count())).max().unwrap_or(0)
}

/// Joins parts into lines of at most `width`; continuation lines are indented. Every line ends with a line break.
fn wrapped(parts: &[String], joint: &str, width: usize) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for part in parts {
        let long = line.chars().count() + joint.chars().count() + part.chars().count() > width;
        if line.is_empty() {
            line = part.clone();
        } else if long {
            out.push_str(&line);
            out.push('\n');
            line = format!("  {part}");
        } else {
            line = format!("{line}{joint}{part}");
        }
    }
    out + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, summary::summarise};

    fn rendered(width: usize) -> String {
        let run = fixture::run();
        render(&run, &summarise(&run), Look { width, colour: false })
    }

    #[track_caller]
    fn check(width: usize, expected: &str) {
        let got = rendered(width);
        assert!(got == expected, "width {width}:\n{got}");
    }

    #[test]
    fn wide() {
        check(160, include_str!("expected/wide.txt"));
    }

    #[test]
    fn narrow() {
        check(100, include_str!("expected/narrow.txt"));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [80, 100, 120, 140, 160, 200] {
            for line in rendered(width).lines() {
                assert!(line.chars().count() <= width, "width {width}: {line}");
            }
        }
        assert!(!rendered(200).contains("too narrow"));
    }

    #[test]
    fn colour_only_if_requested() {
        let run = fixture::run();
        let coloured = render(&run, &summarise(&run), Look { width: 160, colour: true });
        assert!(coloured.contains("\u{1b}[38;5;10m") || coloured.contains("\u{1b}[32m"), "{coloured:?}");
        assert!(!rendered(160).contains('\u{1b}'));
    }
}
