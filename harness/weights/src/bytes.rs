//! Conversion of numbers to bytes and back. Multi-byte numbers of a list are written in planes: all first bytes, then
//! all second bytes, and so on. Exponents are similar to each other and mantissas are noise; zstd compresses them well
//! when they are separate, and hardly when they are mixed.

/// Whether a value is `0.0`, which layouts do not store. `-0.0` is another value.
pub fn is_zero(value: f32) -> bool {
    value.to_bits() == 0
}

/// Bytes that were not read yet. Nothing is allocated here: a length is accepted only if that many bytes exist.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// # Errors
    /// A message, where there are fewer than `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| format!("it ends {} bytes too early", count - self.0.len()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many were taken"))
    }

    pub fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `count` numbers of `N` bytes each.
    pub fn planes<const N: usize>(&mut self, count: usize) -> Result<Planes<'a, N>, String> {
        let bytes = count.checked_mul(N).ok_or("it claims more numbers than memory can hold")?;
        Ok(Planes { bytes: self.take(bytes)?, count })
    }

    pub fn end(self) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("it has {} bytes too many", self.0.len())) }
    }
}

/// A list of numbers, read without a copy.
#[derive(Clone, Copy, Debug)]
pub struct Planes<'a, const N: usize> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a, const N: usize> Planes<'a, N> {
    pub fn iter(self) -> impl ExactSizeIterator<Item = [u8; N]> + 'a {
        let planes: [&[u8]; N] = std::array::from_fn(|plane| &self.bytes[plane * self.count..][..self.count]);
        (0..self.count).map(move |index| planes.map(|plane| plane[index]))
    }
}

/// Bytes in streams of one type each: types differ in their frequencies of bytes and compress better separately.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Streams {
    pub bytes: Vec<u8>,
    /// The ends of all streams.
    pub ends: Vec<usize>,
}

impl Streams {
    pub fn put(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.bytes.extend(bytes);
        self.ends.push(self.bytes.len());
    }

    /// Each plane is a stream.
    pub fn put_planes<const N: usize>(&mut self, numbers: impl ExactSizeIterator<Item = [u8; N]>) {
        let (start, count) = (self.bytes.len(), numbers.len());
        self.bytes.resize(start + N * count, 0);
        let planes = &mut self.bytes[start..];
        for (index, number) in numbers.enumerate() {
            for (plane, byte) in number.into_iter().enumerate() {
                planes[plane * count + index] = byte;
            }
        }
        self.ends.extend((1..=N).map(|plane| start + plane * count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_come_back() {
        let numbers = [0x0102_0304_u32, 5, u32::MAX];
        let mut streams = Streams::default();
        streams.put([7]);
        streams.put_planes(numbers.iter().map(|number| number.to_le_bytes()));
        assert_eq!(streams.bytes, [7, 4, 5, 255, 3, 0, 255, 2, 0, 255, 1, 0, 255]);
        assert_eq!(streams.ends, [1, 4, 7, 10, 13]);
        let mut reader = Reader(&streams.bytes[1..]);
        let back: Vec<u32> = reader.planes(3).unwrap().iter().map(u32::from_le_bytes).collect();
        assert_eq!(back, numbers);
        reader.end().unwrap();
    }

    #[test]
    fn what_is_not_there_is_not_allocated() {
        let bytes = [0; 11];
        assert!(Reader(&bytes).planes::<4>(3).is_err());
        assert!(Reader(&bytes).planes::<4>(usize::MAX).is_err());
        assert!(Reader(&bytes).take(usize::MAX).is_err());
        assert!(Reader(&bytes).end().is_err());
    }
}
