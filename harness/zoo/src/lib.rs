//! The networks that articles on pruning measure, at full size, as ONNX files: a name in, a file out.
//!
//! Topology, shapes, multiplications, node patterns and names are those of PyTorch's own exports. The weights are
//! random: a clone contains no trained ones, and speed does not depend on them. They are scaled so that activations
//! stay in a sane range through fifty layers and predictions differ between inputs. A variant's predictions can be
//! compared with those of the dense model, never with a truth. Every machine makes the same bytes, which
//! [`Net::sha256`] records.

mod bert;
mod blueprint;
mod graph;
mod keywords;
mod lstm;
mod mobilenet;
mod resnet;
mod samples;
#[cfg(test)]
mod tests;
mod weights;

pub use blueprint::Blueprint;
pub use samples::{Input, Kind, Sampled, Values};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Net {
    Resnet50,
    Mobilenetv2,
    BertBase,
    BertLarge,
    Lstm,
    DsCnn,
}

impl Net {
    pub const ALL: [Net; 6] = [Net::Resnet50, Net::Mobilenetv2, Net::BertBase, Net::BertLarge, Net::Lstm, Net::DsCnn];

    pub fn name(self) -> &'static str {
        match self {
            Net::Resnet50 => "resnet50",
            Net::Mobilenetv2 => "mobilenetv2",
            Net::BertBase => "bert-base",
            Net::BertLarge => "bert-large",
            Net::Lstm => "lstm",
            Net::DsCnn => "ds-cnn",
        }
    }

    pub fn named(name: &str) -> Option<Net> {
        Net::ALL.into_iter().find(|net| net.name() == name)
    }

    /// What it is, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Net::Resnet50 => "ResNet50 as torchvision has it, one image of 224 by 224",
            Net::Mobilenetv2 => "MobileNetV2 1.0 as torchvision has it, one image of 224 by 224",
            Net::BertBase => "BERT-base with a classifier of 20 classes, 128 tokens",
            Net::BertLarge => "BERT-large with a classifier of 20 classes, 128 tokens",
            Net::Lstm => "LSTM of two layers of 512, 100 steps of 512 features, 35 classes",
            Net::DsCnn => "DS-CNN-S of \"Hello Edge\", which is MLPerf Tiny's, 49 frames of 10 coefficients, 12 words",
        }
    }

    pub fn blueprint(self) -> Blueprint {
        let about = format!("{}; the weights are random", self.about());
        match self {
            Net::Resnet50 => resnet::resnet50(about),
            Net::Mobilenetv2 => mobilenet::mobilenetv2(about),
            Net::BertBase => bert::bert("bert-base", bert::BASE, about),
            Net::BertLarge => bert::bert("bert-large", bert::LARGE, about),
            Net::Lstm => lstm::lstm("lstm", lstm::FULL, about),
            Net::DsCnn => keywords::ds_cnn(about),
        }
    }

    /// Of the file, whatever machine writes it.
    pub fn sha256(self) -> &'static str {
        match self {
            Net::Resnet50 => "0daee112701ca952dc888249d6f79b72e139e6c89081082b279cd9081cf33358",
            Net::Mobilenetv2 => "7467ab04d46c4bef1eef2d137dd47bc906f08bd7b9d3e4dce99c74fbbc9aa035",
            Net::BertBase => "ba417cc818894b37ef861ea1cccdf043f4cfecb9d0998b412c12d432d1e7a91b",
            Net::BertLarge => "709f997486f6f3f30248d8fc55b8e1b322f99cc8e2bdadfa31968931bdbd12ad",
            Net::Lstm => "0c2b9a60c694f75c60f6bdd3572b69c5759302cbb38a096aeb742702c039d8d8",
            Net::DsCnn => "8c46aae33f036dc7227d4d1f1a65a4ed3101e30966da84e3f32af931251bbc36",
        }
    }

    pub fn inputs(self) -> Vec<Input> {
        let image = |dims: &[usize]| vec![Input { name: "input", dims: dims.to_vec(), kind: Kind::Image }];
        match self {
            Net::Resnet50 | Net::Mobilenetv2 => image(&[3, 224, 224]),
            Net::DsCnn => image(&[1, 49, 10]),
            Net::Lstm => {
                vec![Input { name: "input", dims: vec![lstm::FULL.steps, lstm::FULL.inputs], kind: Kind::Frames }]
            }
            Net::BertBase | Net::BertLarge => {
                let row = |name, kind| Input { name, dims: vec![bert::BASE.tokens], kind };
                vec![
                    row("input_ids", Kind::Tokens(bert::BASE.vocabulary)),
                    row("attention_mask", Kind::Mask),
                    row("token_type_ids", Kind::Sentence),
                ]
            }
        }
    }

    /// Synthetic inputs, the same every time.
    pub fn samples(self, count: usize) -> Vec<Sampled> {
        samples::samples(&self.inputs(), count)
    }
}
