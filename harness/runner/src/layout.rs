//! Moves the program's code to other addresses, on request at compile time: a build with `ESPALIER_LAYOUT=n` has
//! padding of a different size before its code for each n.
//!
//! The addresses of code decide what shares cache lines, pages and entries of the branch predictor. That can change
//! times by some percent by chance, so a real regression is still there in a program that was linked another way.
//! Without the variable, and with 0, nothing is added, not even a function. `main` refers to the padding, or the linker
//! would drop it; no code reads it.

/// The size of [`PADDING`] in bytes.
pub const SIZE: usize = padding(number(option_env!("ESPALIER_LAYOUT")));

// Before the engine's code: the runner's own objects are linked first, and GNU ld puts sections of this name first.
#[unsafe(link_section = ".text.unlikely.espalier_layout")]
pub static PADDING: [u8; SIZE] = [0; SIZE];

/// A cache line.
const LINE: usize = 64;
/// The most whole lines of padding. With the remainder, rounded up to a line, that is less than a page.
const LINES: usize = 62;

/// The size of the padding in bytes: 80 to 4000. It is different for each of 124 consecutive numbers, and neighbours
/// differ much.
///
/// The remainder is a quarter or half of a line. Functions are aligned to at most 16 bytes, so their place within a
/// line changes, whatever the linker adds for alignment and for the reference in `main` (at most 16 bytes). Code that
/// is aligned to whole lines stays so and moves within its page.
const fn padding(layout: u32) -> usize {
    if layout == 0 {
        return 0;
    }
    // 77 is coprime to 124 and near 124 divided by the golden ratio.
    let place = layout as usize % (2 * LINES) * 77 % (2 * LINES);
    (1 + place / 2) * LINE + (1 + place % 2) * 16
}

const fn number(text: Option<&str>) -> u32 {
    let Some(text) = text else { return 0 };
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("`ESPALIER_LAYOUT` wants a whole number"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_layout_moves_the_code() {
        assert_eq!(padding(0), 0);
        for layout in (1..1000).chain([u32::MAX]) {
            let size = padding(layout);
            assert!((80..=4000).contains(&size), "{layout}: {size}");
            // Between functions the linker may add up to 16 bytes.
            assert!((size..=size + 16).all(|moved| moved % LINE != 0), "{layout}: {size}");
            assert_ne!(size.next_multiple_of(LINE) % 4096, 0, "{layout}: {size}");
        }
    }

    #[test]
    fn layouts_differ() {
        let sizes: HashSet<usize> = (1..=124).map(padding).collect();
        assert_eq!(sizes.len(), 124);
        assert!((1..20).all(|layout| padding(layout).abs_diff(padding(layout + 1)) > 1024));
    }

    #[test]
    fn absent_is_none() {
        assert_eq!((number(None), number(Some("0")), number(Some("17"))), (0, 0, 17));
        assert!(std::panic::catch_unwind(|| number(Some("-1"))).is_err());
    }
}
