//! One bit a cell, row after row without gaps between rows. Its size does not depend on the number of stored cells.
//! Below 97 % zeros no list of indices is smaller.

use crate::bytes::{Reader, is_zero};

pub fn find(cells: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let byte =
        |cells: &[f32]| cells.iter().enumerate().fold(0, |byte, (bit, value)| byte | u8::from(!is_zero(*value)) << bit);
    let bits: Vec<u8> = cells.chunks(8).map(byte).collect();
    let mut values = Vec::with_capacity(count(&bits));
    values.extend(cells.iter().filter(|value| !is_zero(**value)));
    (bits, values)
}

pub fn count(bits: &[u8]) -> usize {
    bits.iter().map(|byte| byte.count_ones() as usize).sum()
}

pub fn for_each(bits: &[u8], columns: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (mut place, mut row, mut row_start) = (0, 0, 0);
    // Eight bytes at a time, because few bits of a byte are set.
    let (whole, rest) = bits.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for (index, bytes) in whole.iter().chain([&last]).enumerate() {
        let mut left = u64::from_le_bytes(*bytes);
        while left != 0 {
            let cell = index * 64 + left.trailing_zeros() as usize;
            while cell >= row_start + columns {
                row += 1;
                row_start += columns;
            }
            f(place, row, cell - row_start);
            place += 1;
            left &= left - 1;
        }
    }
}

pub fn read(cells: usize, reader: &mut Reader) -> Result<Vec<u8>, String> {
    let bits = reader.take(cells.div_ceil(8))?;
    let beyond = match (bits.last(), cells % 8) {
        (Some(last), used @ 1..) => last >> used,
        _ => 0,
    };
    if beyond != 0 {
        return Err("its bitmap has cells beyond the last".into());
    }
    Ok(bits.to_vec())
}
