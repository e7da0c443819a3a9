//! Floats as JSON: a number where it is finite, else `"NaN"`, `"inf"` or `"-inf"`, which JSON's numbers lack. For
//! `#[serde(with = "…")]` on a float, or on an `Option`, a `Vec` or a `Vec` of `Vec`s of them.
//!
//! `null`, which earlier releases wrote for all three, is read as NaN, in an `Option` as `None`. A number beyond the
//! range of the type is read as infinite: a board may send `1e39` where an `f32` is stored.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What has this form.
pub trait Floats: Sized {
    /// # Errors
    /// Those of the serializer.
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
    /// # Errors
    /// The value has another form.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// # Errors
/// Those of the serializer.
pub fn serialize<T: Floats, S: Serializer>(floats: &T, serializer: S) -> Result<S::Ok, S::Error> {
    floats.write(serializer)
}

/// # Errors
/// The value has another form.
pub fn deserialize<'de, T: Floats, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

/// The same form where `with` cannot say it: as an element of another type.
struct Read<T>(T);

struct Written<'a, T>(&'a T);

impl<'de, T: Floats> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Read<T>, D::Error> {
        T::read(deserializer).map(Read)
    }
}

impl<T: Floats> Serialize for Written<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.write(serializer)
    }
}

impl<T: Floats> Floats for Option<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_ref().map(Written).serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
        Ok(Option::<Read<T>>::deserialize(deserializer)?.map(|Read(float)| float))
    }
}

impl<T: Floats> Floats for Vec<T> {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Written))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
        struct Elements<T>(std::marker::PhantomData<T>);

        impl<'de, T: Floats> de::Visitor<'de> for Elements<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(Read(element)) = elements.next_element()? {
                    all.push(element);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_seq(Elements(std::marker::PhantomData))
    }
}

impl<const N: usize, T: Floats + Copy + Default> Floats for [T; N] {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Written))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[T; N], D::Error> {
        let elements = Vec::<T>::read(deserializer)?;
        let count = elements.len();
        elements.try_into().map_err(|_| de::Error::invalid_length(count, &"another number of floats"))
    }
}

macro_rules! floats {
    ($float:ty, $write:ident) => {
        impl Floats for $float {
            fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if self.is_finite() {
                    serializer.$write(*self)
                } else {
                    serializer.serialize_str(name(f64::from(*self)))
                }
            }

            fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$float, D::Error> {
                deserializer.deserialize_any(Number).map(|number| number as $float)
            }
        }
    };
}

floats!(f32, serialize_f32);
floats!(f64, serialize_f64);

fn name(float: f64) -> &'static str {
    match (float.is_nan(), float > 0.0) {
        (true, _) => "NaN",
        (false, true) => "inf",
        (false, false) => "-inf",
    }
}

struct Number;

impl de::Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"inf\" or \"-inf\"")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_unit<E: de::Error>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "inf" => Ok(f64::INFINITY),
            "-inf" => Ok(f64::NEG_INFINITY),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{num, prelude::*};

    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Stored {
        #[serde(with = "super")]
        single: f32,
        #[serde(with = "super")]
        double: f64,
        #[serde(default, with = "super")]
        perhaps: Option<f64>,
        #[serde(with = "super")]
        rows: Vec<Vec<f32>>,
        #[serde(with = "super")]
        pair: [f64; 2],
    }

    #[test]
    fn each_has_one_form() {
        let read = |text: &str| serde_json::from_str::<Read<Vec<f32>>>(text).unwrap().0;
        let written = |floats: Vec<f32>| serde_json::to_string(&Written(&floats)).unwrap();
        let text = r#"["NaN","inf","-inf",0.1,-0.0,1e-45]"#;
        assert_eq!(written(read(text)), text);
        // Too large for an f32, an integer, and what earlier releases wrote.
        assert_eq!(written(read("[1e39,-1e39,7,null]")), r#"["inf","-inf",7.0,"NaN"]"#);
        for wrong in [r#"["nan"]"#, r#"["1"]"#, "[true]", "[[]]"] {
            assert!(serde_json::from_str::<Read<Vec<f32>>>(wrong).is_err(), "{wrong}");
        }
        let old = r#"{"single":null,"double":2,"rows":[],"pair":[1,null]}"#;
        let old: Stored = serde_json::from_str(old).unwrap();
        assert!(old.single.is_nan() && old.perhaps.is_none() && old.pair[1].is_nan());
    }

    proptest! {
        #[test]
        fn every_float_comes_back(
            single in num::f32::ANY,
            double in num::f64::ANY,
            perhaps in proptest::option::of(num::f64::ANY),
            rows in proptest::collection::vec(proptest::collection::vec(num::f32::ANY, 0..4), 0..4),
            pair in [num::f64::ANY, num::f64::ANY],
        ) {
            let stored = Stored { single, double, perhaps, rows, pair };
            let text = serde_json::to_string(&stored).unwrap();
            let back: Stored = serde_json::from_str(&text).unwrap();
            // All NaN are one: their bits mean nothing.
            let same = |one: f64, other: f64| one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan());
            prop_assert!(same(single.into(), back.single.into()) && same(double, back.double));
            prop_assert_eq!(&text, &serde_json::to_string(&back).unwrap());
        }
    }
}
