//! Files as users have them: written here, read back.

use std::{fs, path::Path};

use image::{DynamicImage, GrayImage, Rgb, RgbImage};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn input(name: &str, axes: &[Option<u64>]) -> ModelInput {
    let axis = |axis: &Option<u64>| axis.map_or(ModelAxis::Free("N".into()), ModelAxis::Fixed);
    ModelInput { name: name.into(), dtype: "float32".into(), axes: Some(axes.iter().map(axis).collect()) }
}

fn values(set: &EvalSet, index: usize) -> Vec<f32> {
    set.inputs[index].bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[track_caller]
fn check_wrong(path: &Path, model: &[ModelInput], expected: &str) {
    let error = format!("{:#}", read("eval set", path, Some(model)).unwrap_err());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_list_of_numbers() {
    let folder = folder(&[("eval.csv", "age, height ,label\n40,1.5,0\n 7,0.25,2\n")]);
    let model = [input("age", &[None]), input("height", &[None])];
    let set = read("eval set", &folder.path().join("eval.csv"), Some(&model)).unwrap();
    assert_eq!(set.truth, Some(Truth::of_labels(&[0, 2])));
    assert_eq!((values(&set, 0), values(&set, 1)), (vec![40.0, 7.0], vec![1.5, 0.25]));
}

/// Two images of two by two pixels, in every layout and order of colours.
#[test]
fn images_are_laid_out_as_the_model_takes_them() {
    let folder = folder(&[("eval.csv", "file,label\na.png,1\nb.png,0\n")]);
    let pixel =
        |x: u32, y: u32, image: u32| Rgb([1, 2, 3].map(|channel| (100 * image + 10 * (2 * y + x) + channel) as u8));
    for (image, name) in ["a.png", "b.png"].iter().enumerate() {
        RgbImage::from_fn(2, 2, |x, y| pixel(x, y, image as u32)).save(folder.path().join(name)).unwrap();
    }
    let check = |axes: &[Option<u64>], images: &str, expected: &dyn Fn(u32, u32, u32, u32) -> f32| {
        let description = folder.path().join("eval.toml");
        fs::write(&description, format!("list = \"eval.csv\"\n[images]\nscale = 1.0\n{images}")).unwrap();
        let set = read("eval set", &description, Some(&[input("image", axes)])).unwrap();
        let channels_first = set.inputs[0].header.shape[1] < 2 || set.inputs[0].header.shape[1] == 3;
        let mut all = Vec::new();
        for image in 0..2 {
            for first in 0..if channels_first { 3 } else { 4 } {
                for second in 0..if channels_first { 4 } else { 3 } {
                    let (channel, place) = if channels_first { (first, second) } else { (second, first) };
                    all.push(expected(image, channel, place % 2, place / 2));
                }
            }
        }
        assert_eq!(values(&set, 0), all, "{axes:?} {images}");
        assert_eq!(set.truth, Some(Truth::of_labels(&[1, 0])));
    };
    let number = |image, channel, x, y| (100 * image + 10 * (2 * y + x) + channel + 1) as f32;
    let (nchw, nhwc) = ([None, Some(3), Some(2), Some(2)], [None, Some(2), Some(2), Some(3)]);
    check(&nchw, "", &number);
    check(&nhwc, "", &number);
    check(&nchw, "colour = \"bgr\"", &|image, channel, x, y| number(image, 2 - channel, x, y));
    check(&[None, None, None, None], "layout = \"nhwc\"\nsize = [2, 2]", &number);
    check(&nhwc, "mean = [1, 2, 3]", &|image, _, x, y| (100 * image + 10 * (2 * y + x)) as f32);
}

/// Against the definition: each pixel weighs 1 - distance / 2 where two fall on one.
#[test]
fn images_are_resized_by_area() {
    let folder = folder(&[("eval.csv", "x\nwide.png\n")]);
    let pixels = [10u8, 250, 30, 90, 200, 0, 77, 140];
    GrayImage::from_fn(8, 2, |x, _| image::Luma([pixels[x as usize]])).save(folder.path().join("wide.png")).unwrap();
    let (model, description) = ([input("x", &[None, Some(1), Some(1), Some(4)])], folder.path().join("eval.toml"));
    fs::write(&description, "list = \"eval.csv\"\n[images]\nscale = 1.0\n").unwrap();
    let got = values(&read("eval set", &description, Some(&model)).unwrap(), 0);
    for (place, got) in got.iter().enumerate() {
        let weight = |x: usize| (1.0 - (x as f64 + 0.5 - (2 * place + 1) as f64).abs() / 2.0).max(0.0);
        let sum: f64 = (0..8).map(|x| weight(x) * f64::from(pixels[x])).sum();
        let expected = sum / (0..8).map(weight).sum::<f64>();
        assert!((f64::from(*got) - expected).abs() <= 1.0, "{place}: {got}, expected {expected}");
    }

    // Of a wide image for a square one: the middle, or all.
    let model = [input("x", &[None, Some(1), Some(2), Some(2)])];
    let crop = values(&read("eval set", &description, Some(&model)).unwrap(), 0);
    assert_eq!(crop, [90.0, 200.0, 90.0, 200.0]);
    fs::write(&description, "list = \"eval.csv\"\n[images]\nscale = 1.0\nfit = \"stretch\"\n").unwrap();
    let stretched = values(&read("eval set", &description, Some(&model)).unwrap(), 0);
    assert!(stretched[0] != 90.0 && stretched[..2] == stretched[2..], "{stretched:?}");
}

#[test]
fn jpegs_are_read_whatever_their_ending() {
    let folder = folder(&[("eval.csv", "x\na.JPG\nb.png\n")]);
    let grey = DynamicImage::ImageRgb8(RgbImage::from_pixel(16, 16, Rgb([50, 100, 150])));
    for name in ["a.JPG", "b.png"] {
        grey.save_with_format(folder.path().join(name), image::ImageFormat::Jpeg).unwrap();
    }
    let model = [input("x", &[None, Some(3), Some(16), Some(16)])];
    let set = read("eval set", &folder.path().join("eval.csv"), Some(&model)).unwrap();
    let values = values(&set, 0);
    for (channel, expected) in [50.0, 100.0, 150.0].iter().enumerate() {
        let value = values[channel * 256 + 100] * 255.0;
        assert!((value - expected).abs() < 3.0, "channel {channel}: {value}");
    }
    assert_eq!(values[..768], values[768..]);
}

fn wav(path: &Path, spec: (u16, u32, u16, hound::SampleFormat), numbers: &[f32]) {
    let (channels, sample_rate, bits_per_sample, sample_format) = spec;
    let spec = hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    for number in numbers {
        match sample_format {
            hound::SampleFormat::Float => writer.write_sample(*number).unwrap(),
            hound::SampleFormat::Int => {
                writer.write_sample((number * 2f32.powi(i32::from(bits_per_sample) - 1)) as i32).unwrap();
            }
        }
    }
    writer.finalize().unwrap();
}

#[test]
fn recordings_are_one_channel_of_one_length() {
    let folder = folder(&[("eval.csv", "file,label\n8.wav,0\n16.wav,1\n24.wav,2\nfloat.wav,3\nstereo.wav,4\n")]);
    let sound = [0.5, -0.25, 0.125, -1.0, 0.75];
    for (name, bits) in [("8.wav", 8), ("16.wav", 16), ("24.wav", 24)] {
        wav(&folder.path().join(name), (1, 8000, bits, hound::SampleFormat::Int), &sound);
    }
    wav(&folder.path().join("float.wav"), (1, 8000, 32, hound::SampleFormat::Float), &sound);
    let stereo: Vec<f32> = sound.iter().flat_map(|number| [number + 0.125, number - 0.125]).collect();
    wav(&folder.path().join("stereo.wav"), (2, 8000, 32, hound::SampleFormat::Float), &stereo);

    let list = folder.path().join("eval.csv");
    let cut = read("eval set", &list, Some(&[input("sound", &[None, Some(1), Some(3)])])).unwrap();
    assert_eq!(cut.inputs[0].header.shape, [5, 1, 3]);
    assert_eq!(values(&cut, 0), [0.5, -0.25, 0.125].repeat(5));
    let filled = read("eval set", &list, Some(&[input("sound", &[None, Some(7)])])).unwrap();
    assert_eq!(values(&filled, 0), [&sound[..], &[0.0, 0.0]].concat().repeat(5));

    let description = folder.path().join("eval.toml");
    fs::write(&description, "list = \"eval.csv\"\naudio = { rate = 16000 }\n").unwrap();
    let model = [input("sound", &[None, Some(3)])];
    check_wrong(&description, &model, "it has 8000 samples a second, `audio.rate` is 16000");
    let open = [input("sound", &[None, None])];
    check_wrong(&list, &open, "column `x`: the model takes recordings of any length: set `audio.length`");
}

#[test]
fn a_folder_of_arrays_is_what_an_archive_of_them_is() {
    let folder = TempDir::new().unwrap();
    let archive = include_bytes!("../tests/fixtures/stored.npz");
    // Stored archives hold their files as they are.
    let mut expected = npz::read(archive).unwrap();
    expected.retain(|array| ["f4", "i8"].contains(&array.name.as_str()));
    for name in ["f4", "i8"] {
        let start = archive.windows(name.len() + 4).position(|at| at == format!("{name}.npy").as_bytes()).unwrap();
        let start = start + archive[start..].windows(6).position(|at| at == b"\x93NUMPY").unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([archive[start + 8], archive[start + 9]]));
        let len = header + expected.iter().find(|array| array.name == name).unwrap().bytes.len();
        fs::write(folder.path().join(format!("{name}.npy")), &archive[start..start + len]).unwrap();
    }
    assert_eq!(folder::read(folder.path()).unwrap(), expected);
    let empty = TempDir::new().unwrap();
    check_wrong(empty.path(), &[], "the folder has no `.npy` file");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let image = [input("image", &[None, Some(3), Some(2), Some(2)])];
    let list = |text: &str| folder(&[("eval.csv", text), ("text.png", "no image"), ("text.wav", "no sound")]);
    let check = |text: &str, expected: &str| {
        let folder = list(text);
        check_wrong(&folder.path().join("eval.csv"), &image, expected);
    };
    check("", "it lists no samples");
    check("x,y\n", "it lists no samples");
    check("x,file\n1,2\n", "it has two columns `x`");
    check("x,y\n1,2\n3\n", "found record with 1 fields, but the previous record has 2 fields");
    check("x,y\ntext.png,0\n", "line 2: `");
    check("x,y\ntext.png,0\n", "it is no JPEG or PNG image that can be read");
    check("x,y\ntext.gif,0\n", "files `.gif` are not read");
    check("x,y\nmissing.png,0\n", "No such file");
    check("x,y\n1,0\n2,cat\n", "column `y`: line 3: `cat` is neither a number nor a file");
    check("x,y\ntext.wav,0\n", "more than one of its axes is longer than 1");
    let missing = list("").path().join("missing.toml");
    check_wrong(&missing, &image, "cannot read the eval set `");
    let folder = folder(&[("eval.toml", "list = \"eval.csv\"\n[images]\nmeans = 1\n")]);
    check_wrong(&folder.path().join("eval.toml"), &image, "unknown field `means`");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever lies in the files, there is an error or a set, never a panic.
    #[test]
    fn damaged_files_never_panic(at in 0usize..2000, byte: u8, cut in 0usize..2000, rows in "[ -~\\n]{0,60}") {
        let folder = folder(&[("eval.csv", "x\na.png\n"), ("sound.csv", "x\na.wav\n"), ("any.csv", &rows)]);
        let image = folder.path().join("a.png");
        RgbImage::from_fn(9, 9, |x, y| Rgb([x as u8 * 20, y as u8 * 20, 7])).save(&image).unwrap();
        let sound = folder.path().join("a.wav");
        wav(&sound, (2, 8000, 16, hound::SampleFormat::Int), &[0.5; 40]);
        for file in [&image, &sound] {
            let mut bytes = fs::read(file).unwrap();
            let (len, place) = (bytes.len(), at % bytes.len());
            bytes[place] = byte;
            bytes.truncate(len - cut % len / 4);
            fs::write(file, bytes).unwrap();
        }
        let (picture, recording) = ([input("x", &[None, Some(3), Some(4), Some(4)])], [input("x", &[None, Some(16)])]);
        let _ = read("eval set", &folder.path().join("eval.csv"), Some(&picture));
        let _ = read("eval set", &folder.path().join("sound.csv"), Some(&recording));
        let _ = read("eval set", &folder.path().join("any.csv"), Some(&picture));
    }
}
