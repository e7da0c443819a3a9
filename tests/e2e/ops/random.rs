//! Random shapes and values, the same every time.

use espalier_onnx::{TensorProto, tensor_proto::DataType};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    /// In `[from, to)`.
    pub fn int(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from) as u64) as i64
    }

    pub fn float(&mut self, from: f32, to: f32) -> f32 {
        from + (to - from) * ((self.next() >> 40) as f32 / (1u64 << 24) as f32)
    }

    pub fn coin(&mut self) -> bool {
        self.next() >> 63 == 0
    }

    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[(self.next() % all.len() as u64) as usize]
    }

    /// Of a rank in `[least, most]`; one axis in a dozen is empty.
    pub fn shape(&mut self, least: i64, most: i64) -> Vec<i64> {
        let rank = self.int(least, most + 1);
        (0..rank).map(|_| if self.int(0, 12) == 0 { 0 } else { self.int(1, 5) }).collect()
    }

    /// As [`Random::shape`], nothing empty.
    pub fn full_shape(&mut self, least: i64, most: i64) -> Vec<i64> {
        let rank = self.int(least, most + 1);
        (0..rank).map(|_| self.int(1, 5)).collect()
    }

    /// One that broadcasts to `shape`.
    pub fn narrower(&mut self, shape: &[i64]) -> Vec<i64> {
        let from = self.int(0, shape.len() as i64 + 1) as usize;
        shape[from..].iter().map(|axis| if self.int(0, 3) == 0 { 1 } else { *axis }).collect()
    }

    pub fn floats(&mut self, shape: &[i64], from: f32, to: f32) -> TensorProto {
        let len = shape.iter().product::<i64>();
        floats(shape, &(0..len).map(|_| self.float(from, to)).collect::<Vec<_>>())
    }

    pub fn ints(&mut self, shape: &[i64], from: i64, to: i64) -> TensorProto {
        let len = shape.iter().product::<i64>();
        ints(shape, &(0..len).map(|_| self.int(from, to)).collect::<Vec<_>>())
    }

    pub fn bools(&mut self, shape: &[i64]) -> TensorProto {
        let len = shape.iter().product::<i64>();
        let bytes: Vec<u8> = (0..len).map(|_| u8::from(self.coin())).collect();
        TensorProto { raw_data: Some(bytes.into()), ..empty(shape, DataType::Bool) }
    }

    /// Integers of a narrow type.
    pub fn quantised(&mut self, shape: &[i64], signed: bool) -> TensorProto {
        let len = shape.iter().product::<i64>();
        let bytes: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
        TensorProto {
            raw_data: Some(bytes.into()),
            ..empty(shape, if signed { DataType::Int8 } else { DataType::Uint8 })
        }
    }
}

fn empty(shape: &[i64], data_type: DataType) -> TensorProto {
    TensorProto { dims: shape.to_vec(), data_type: Some(data_type as i32), ..TensorProto::default() }
}

pub fn floats(shape: &[i64], values: &[f32]) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { raw_data: Some(bytes.into()), ..empty(shape, DataType::Float) }
}

pub fn ints(shape: &[i64], values: &[i64]) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { raw_data: Some(bytes.into()), ..empty(shape, DataType::Int64) }
}

pub fn list(values: &[i64]) -> TensorProto {
    ints(&[values.len() as i64], values)
}

pub fn narrow_ints(shape: &[i64], values: &[i32]) -> TensorProto {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { raw_data: Some(bytes.into()), ..empty(shape, DataType::Int32) }
}
