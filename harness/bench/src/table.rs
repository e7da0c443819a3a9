//! Sheets as tables for a terminal. Columns that do not fit are left out, the least important first, and named below: a wrapped table is not readable.
//! Width and colour come in as parameters; nothing is asked of the terminal here.

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
        let words: Vec<String> = note.split(' ').map(str::to_owned).collect();
        out.push_str(&wrapped(&words, " ", look.width));
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

/// What is shown, and what there is no room for.
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

/// Cells and headings hold nothing but characters of one cell's width.
fn content_width(column: &Column) -> usize {
    let cells = column.cells.iter().map(|cell| cell.text.chars().count());
    cells.chain(heading(column, true).lines().map(|line| line.chars().count())).max().unwrap_or(0)
}

/// Parts joined into lines of at most `width`; continued lines are indented. Every line ends with a line break.
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
        assert!(got == expected.trim_start_matches('\n'), "width {width}:\n{got}");
    }

    #[test]
    fn wide() {
        check(
            160,
            r"
digits-cnn on local
target x86_64 (x86_64-unknown-linux-gnu) · cpu Bench CPU 3000 · 2 CPUs · kernel 6.1.0 · governor performance · runner 1a2b3c4d, 4.10 MiB, cargo, rustc 1.91.0
  tract 0.23.9 · espalier 0.1.0, revision 7c7533f+ · pruned by magnitude, global, weight · accuracy on 200 samples · 5 fresh processes a variant
  each 20 inferences to warm up, then at least 100 and 500 ms · run 20261123T191500Z-3f9a of 2026-11-23T19:15:00Z
╭─────────────┬─────────┬─────────┬──────┬───────────┬───────┬─────────────────────┬───────┬──────────────────┬──────────┬──────────┬──────────────┬───────╮
│    ratio    ┆ weights ┆ MACs/≠0 ┆ file ┆   packed  ┆ first ┆      p50 [95 %]     ┆  p99  ┆  speed-up [95 %] ┆ peak RSS ┆ accuracy ┆   vs dense   ┆ trust │
│             ┆  k kept ┆    k    ┆  KiB ┆    KiB    ┆   ms  ┆          ms         ┆   ms  ┆      × dense     ┆    MiB   ┆     %    ┆   pp (−/+)   ┆       │
╞═════════════╪═════════╪═════════╪══════╪═══════════╪═══════╪═════════════════════╪═══════╪══════════════════╪══════════╪══════════╪══════════════╪═══════╡
│           0 ┆   52.00 ┆ 410/410 ┆  210 ┆         — ┆  3.01 ┆ 1.000 [0.981–1.019] ┆ 1.111 ┆        1 (dense) ┆     9.00 ┆    98.00 ┆            — ┆    ok │
│         0.5 ┆   26.00 ┆ 410/210 ┆  210 ┆ 96.0/24.0 ┆  2.39 ┆ 0.800 [0.784–0.816] ┆ 0.893 ┆ 1.25 [1.24–1.26] ┆     9.06 ┆    97.00 ┆  -1.00 (3/1) ┆    ok │
│ 0.9 (0.895) ┆    5.46 ┆  410/50 ┆  210 ┆         — ┆     — ┆                   — ┆     — ┆                — ┆     9.12 ┆    90.00 ┆ -8.00 (17/1) ┆     — │
╰─────────────┴─────────┴─────────┴──────┴───────────┴───────┴─────────────────────┴───────┴──────────────────┴──────────┴──────────┴──────────────┴───────╯
ratio 0.9: `time` failed, stage run: the runner was cut off before `finished`: signal 9 | \u{1b}]0;x\u{7} (5 times)
largest ratio within the accuracy budget (at most 1 pp lost): 0.5 (-1.00 pp)
ratio: asked for (and what came out); MACs/≠0: multiply-accumulates run, and those whose weight is not zero; packed: `cargo xtask pack` without loss, and as
  bitmap and codebook; (−/+): samples lost and won
too narrow for: load, p90

digits-cnn on virt-riscv64
target riscv64gc (riscv64gc-unknown-linux-gnu) · cpu QEMU | \u{1b}[31mvirt @root · 1 CPU · kernel 6.1.0 · governor performance
  runner 1a2b3c4d, 4.10 MiB, cargo, rustc 1.91.0 · tract 0.23.9 · espalier 0.1.0, revision 7c7533f+ · pruned by magnitude, global, weight
  accuracy on 200 samples · 5 fresh processes a variant · each 20 inferences to warm up, then at least 100 and 500 ms
  run 20261123T191500Z-3f9a of 2026-11-23T19:15:00Z
╭─────────────┬─────────┬─────────┬──────┬───────────┬───────┬────────────────────┬───────┬──────────────────┬──────────┬──────────┬──────────────┬──────────╮
│    ratio    ┆ weights ┆ MACs/≠0 ┆ file ┆   packed  ┆ first ┆     p50 [95 %]     ┆  p99  ┆  speed-up [95 %] ┆ peak RSS ┆ accuracy ┆   vs dense   ┆   trust  │
│             ┆  k kept ┆    k    ┆  KiB ┆    KiB    ┆   ms  ┆         ms         ┆   ms  ┆      × dense     ┆    MiB   ┆     %    ┆   pp (−/+)   ┆          │
╞═════════════╪═════════╪═════════╪══════╪═══════════╪═══════╪════════════════════╪═══════╪══════════════════╪══════════╪══════════╪══════════════╪══════════╡
│           0 ┆   52.00 ┆ 410/410 ┆  210 ┆         — ┆  30.1 ┆ 10.00 [9.81–10.19] ┆ 11.11 ┆        1 (dense) ┆     9.00 ┆    98.00 ┆            — ┆ emulated │
│         0.5 ┆   26.00 ┆ 410/210 ┆  210 ┆ 96.0/24.0 ┆  23.9 ┆   8.00 [7.84–8.16] ┆  8.93 ┆ 1.25 [1.24–1.26] ┆     9.06 ┆    97.00 ┆  -1.00 (3/1) ┆ emulated │
│ 0.9 (0.895) ┆    5.46 ┆  410/50 ┆  210 ┆         — ┆  21.0 ┆   7.00 [6.86–7.14] ┆  7.79 ┆ 1.43 [1.42–1.43] ┆     9.12 ┆    90.00 ┆ -8.00 (17/1) ┆ emulated │
╰─────────────┴─────────┴─────────┴──────┴───────────┴───────┴────────────────────┴───────┴──────────────────┴──────────┴──────────┴──────────────┴──────────╯
emulated board: its times are a functional check and say nothing about a real one
predictions as on `local`: 600 of 600 equal, largest output difference 1.2e-7
largest ratio within the accuracy budget (at most 1 pp lost): 0.5 (-1.00 pp)
ratio: asked for (and what came out); MACs/≠0: multiply-accumulates run, and those whose weight is not zero; packed: `cargo xtask pack` without loss, and as
  bitmap and codebook; (−/+): samples lost and won
too narrow for: load, p90
",
        );
    }

    #[test]
    fn narrow() {
        check(
            100,
            r"
digits-cnn on local
target x86_64 (x86_64-unknown-linux-gnu) · cpu Bench CPU 3000 · 2 CPUs · kernel 6.1.0
  governor performance · runner 1a2b3c4d, 4.10 MiB, cargo, rustc 1.91.0 · tract 0.23.9
  espalier 0.1.0, revision 7c7533f+ · pruned by magnitude, global, weight · accuracy on 200 samples
  5 fresh processes a variant · each 20 inferences to warm up, then at least 100 and 500 ms
  run 20261123T191500Z-3f9a of 2026-11-23T19:15:00Z
╭─────────────┬─────────────────────┬──────────────────┬──────────┬──────────────┬───────╮
│    ratio    ┆      p50 [95 %]     ┆  speed-up [95 %] ┆ accuracy ┆   vs dense   ┆ trust │
│             ┆          ms         ┆      × dense     ┆     %    ┆   pp (−/+)   ┆       │
╞═════════════╪═════════════════════╪══════════════════╪══════════╪══════════════╪═══════╡
│           0 ┆ 1.000 [0.981–1.019] ┆        1 (dense) ┆    98.00 ┆            — ┆    ok │
│         0.5 ┆ 0.800 [0.784–0.816] ┆ 1.25 [1.24–1.26] ┆    97.00 ┆  -1.00 (3/1) ┆    ok │
│ 0.9 (0.895) ┆                   — ┆                — ┆    90.00 ┆ -8.00 (17/1) ┆     — │
╰─────────────┴─────────────────────┴──────────────────┴──────────┴──────────────┴───────╯
ratio 0.9: `time` failed, stage run: the runner was cut off before `finished`: signal 9 |
  \u{1b}]0;x\u{7} (5 times)
largest ratio within the accuracy budget (at most 1 pp lost): 0.5 (-1.00 pp)
ratio: asked for (and what came out); (−/+): samples lost and won
too narrow for: weights, MACs/≠0, file, packed, load, first, p90, p99, peak RSS

digits-cnn on virt-riscv64
target riscv64gc (riscv64gc-unknown-linux-gnu) · cpu QEMU | \u{1b}[31mvirt @root · 1 CPU
  kernel 6.1.0 · governor performance · runner 1a2b3c4d, 4.10 MiB, cargo, rustc 1.91.0
  tract 0.23.9 · espalier 0.1.0, revision 7c7533f+ · pruned by magnitude, global, weight
  accuracy on 200 samples · 5 fresh processes a variant
  each 20 inferences to warm up, then at least 100 and 500 ms
  run 20261123T191500Z-3f9a of 2026-11-23T19:15:00Z
╭─────────────┬────────────────────┬──────────────────┬──────────┬──────────────┬──────────╮
│    ratio    ┆     p50 [95 %]     ┆  speed-up [95 %] ┆ accuracy ┆   vs dense   ┆   trust  │
│             ┆         ms         ┆      × dense     ┆     %    ┆   pp (−/+)   ┆          │
╞═════════════╪════════════════════╪══════════════════╪══════════╪══════════════╪══════════╡
│           0 ┆ 10.00 [9.81–10.19] ┆        1 (dense) ┆    98.00 ┆            — ┆ emulated │
│         0.5 ┆   8.00 [7.84–8.16] ┆ 1.25 [1.24–1.26] ┆    97.00 ┆  -1.00 (3/1) ┆ emulated │
│ 0.9 (0.895) ┆   7.00 [6.86–7.14] ┆ 1.43 [1.42–1.43] ┆    90.00 ┆ -8.00 (17/1) ┆ emulated │
╰─────────────┴────────────────────┴──────────────────┴──────────┴──────────────┴──────────╯
emulated board: its times are a functional check and say nothing about a real one
predictions as on `local`: 600 of 600 equal, largest output difference 1.2e-7
largest ratio within the accuracy budget (at most 1 pp lost): 0.5 (-1.00 pp)
ratio: asked for (and what came out); (−/+): samples lost and won
too narrow for: weights, MACs/≠0, file, packed, load, first, p90, p99, peak RSS
",
        );
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
    fn colour_only_if_asked() {
        let run = fixture::run();
        let coloured = render(&run, &summarise(&run), Look { width: 160, colour: true });
        assert!(coloured.contains("\u{1b}[38;5;10m") || coloured.contains("\u{1b}[32m"), "{coloured:?}");
        assert!(!rendered(160).contains('\u{1b}'));
    }
}
