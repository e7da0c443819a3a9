//! The inputs of a model, as far as samples have to fit them.

/// An input of a model, as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInput {
    pub name: String,
    /// As NumPy calls it, e.g. `float32`.
    pub dtype: String,
    /// `None` where the file does not declare them.
    pub axes: Option<Vec<ModelAxis>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelAxis {
    Fixed(u64),
    /// Of any length, by its name.
    Free(String),
}

impl ModelAxis {
    pub fn fixed(&self) -> Option<u64> {
        match self {
            ModelAxis::Fixed(length) => Some(*length),
            ModelAxis::Free(_) => None,
        }
    }
}

/// `x` stands for the first one.
pub fn input_named<'a>(name: &str, model: &'a [ModelInput]) -> Option<&'a ModelInput> {
    let named = model.iter().find(|input| input.name == name);
    named.or_else(|| model.first().filter(|_| name == "x"))
}
