//! A file with parts cut out, which can be read like the whole file: what was cut out reads as zeros.

use std::{io, iter, ops::Range};

use crate::source::Source;

pub struct Spliced<'a> {
    pub rest: &'a [u8],
    /// Ranges of the whole file, ascending.
    pub cuts: &'a [Range<u64>],
    pub length: u64,
}

impl Source for Spliced<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= self.length);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        into.fill(0);
        // The bytes before each cut, and after the last one.
        let first = self.cuts.partition_point(|cut| cut.end <= offset);
        let mut cut_before: u64 = self.cuts[..first].iter().map(|cut| cut.end - cut.start).sum();
        let mut at = offset;
        for cut in self.cuts[first..].iter().cloned().chain(iter::once(self.length..self.length)) {
            let until = cut.start.clamp(at, end);
            if until > at {
                let from = &self.rest[(at - cut_before) as usize..(until - cut_before) as usize];
                into[(at - offset) as usize..][..from.len()].copy_from_slice(from);
            }
            if cut.end >= end {
                break;
            }
            cut_before += cut.end - cut.start;
            at = cut.end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    #[test]
    fn every_range_reads_as_in_the_whole() {
        let whole: Vec<u8> = (1..=40).collect();
        let all: [&[Range<u64>]; 5] =
            [&[], from_ref(&(3..7)), &[0..5, 5..6, 20..40], &[10..20, 30..31], from_ref(&(0..40))];
        for cuts in all {
            let mut zeroed = whole.clone();
            cuts.iter().for_each(|cut: &Range<u64>| zeroed[cut.start as usize..cut.end as usize].fill(0));
            let inside = |index: usize| cuts.iter().any(|cut| cut.contains(&(index as u64)));
            let rest: Vec<u8> = (0..40).filter(|index| !inside(*index)).map(|index| whole[index]).collect();
            let spliced = Spliced { rest: &rest, cuts, length: 40 };
            for start in 0..40 {
                for end in start..=40 {
                    let mut read = vec![9; end - start];
                    spliced.read_at(start as u64, &mut read).unwrap();
                    assert_eq!(read, zeroed[start..end], "{cuts:?} {start} {end}");
                }
            }
            assert!(spliced.read_at(38, &mut [0; 3]).is_err());
        }
    }
}
