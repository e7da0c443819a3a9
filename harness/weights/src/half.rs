//! IEEE half precision: 1 sign, 5 exponent and 10 mantissa bits. Rust's own `f16` is not stable yet.

/// Rounds to nearest, ties to even. Values that are too large become infinite.
pub fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7FFF_FFFF;
    if magnitude > 0x7F80_0000 {
        return sign | 0x7E00;
    }
    // From here on every value rounds to infinity.
    if magnitude >= 0x4780_0000 {
        return sign | 0x7C00;
    }
    if magnitude < 0x3880_0000 {
        // Subnormal halves have a unit of 2^-24. Adding 0.5 makes that the unit of f32's last bit, and the addition
        // rounds.
        let shifted = f32::from_bits(magnitude) + 0.5;
        return sign | (shifted.to_bits() - 0.5f32.to_bits()) as u16;
    }
    let rounded = magnitude + 0xFFF + ((magnitude >> 13) & 1);
    sign | ((rounded - 0x3800_0000) >> 13) as u16
}

pub fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7FFF);
    let bits = match magnitude {
        0x7C00.. => 0x7F80_0000 | (magnitude & 0x3FF) << 13,
        0x0400.. => (magnitude << 13) + 0x3800_0000,
        _ => (magnitude as f32 * (-24f32).exp2()).to_bits(),
    };
    f32::from_bits(sign | bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back() {
        for half in 0..=u16::MAX {
            let value = f16_to_f32(half);
            if value.is_nan() {
                assert_eq!(f32_to_f16(value) & 0x7E00, 0x7E00);
            } else {
                assert_eq!(f32_to_f16(value), half, "{value}");
            }
        }
    }

    /// Checks values between all pairs of neighbours: the nearer one is taken, and the even one for the middle.
    #[test]
    fn the_nearest_half_is_taken() {
        for half in 0..0x7BFF_u16 {
            let (low, high) = (f16_to_f32(half), f16_to_f32(half + 1));
            let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
            let even = half + (half & 1);
            assert_eq!(f32_to_f16(middle), even, "{middle}");
            assert_eq!(f32_to_f16(middle.next_down()), half);
            assert_eq!(f32_to_f16(middle.next_up()), half + 1);
            assert_eq!(f32_to_f16(-middle), even | 0x8000);
        }
        assert_eq!(f32_to_f16(65519.996), 0x7BFF);
        assert_eq!(f32_to_f16(65520.0), 0x7C00);
        assert_eq!(f32_to_f16(f32::INFINITY), 0x7C00);
        assert_eq!(f16_to_f32(0x3C00), 1.0);
        assert_eq!(f16_to_f32(0xC000), -2.0);
        assert_eq!(f16_to_f32(0x0001), 2f32.powi(-24));
    }
}
