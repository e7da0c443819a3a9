//! The devices and models of a command: flags that several commands have.

use anyhow::Result;
use clap::Args;
use espalier_inventory::{Device, Inventory, LOCAL_DEVICE as LOCAL, Model};

use crate::{
    context::{Context, usage},
    recipe_flags::is_onnx,
    ssh_feature,
};

#[derive(Args, Clone, Default)]
pub struct Selection {
    /// A device by its file's name in devices/; may be repeated [default: local]
    #[arg(short, long, value_name = "NAME")]
    pub device: Vec<String>,
    /// Every device in devices/, but those with `in-all = false`
    #[arg(long, conflicts_with = "device")]
    pub all_devices: bool,
    /// A model by its file's name in models/; may be repeated [default: every model in models/, but those with
    /// `in-all = false`]
    #[arg(short, long, value_name = "NAME")]
    pub model: Vec<String>,
}

/// The inventory and what was selected of it.
pub struct Selected {
    pub inventory: Inventory,
    pub devices: Vec<Device>,
    pub models: Vec<Model>,
}

impl Selection {
    pub fn resolve(&self, context: &Context) -> Result<Selected> {
        let (inventory, devices) = devices(context, &self.device, self.all_devices, &self.model)?;
        let models: Vec<Model> = if self.model.is_empty() {
            in_all(&inventory)
        } else {
            let model = |name: &String| inventory.model(name).cloned().map_err(usage);
            self.model.iter().map(model).collect::<Result<_>>()?
        };
        if models.is_empty() {
            return Err(usage("no model is named, and `models/` has none without `in-all = false`"));
        }
        Ok(Selected { inventory, devices, models })
    }

    /// [`Self::resolve`] for a command that judges times, with SSH where a device needs it. An emulated device's times
    /// say nothing: without `emulated` it is an error, or left out with a note where all devices are selected.
    pub fn resolve_to_measure(&self, context: &Context, emulated: bool) -> Result<(Selected, Vec<String>)> {
        let mut selected = self.resolve(context)?;
        let is_emulated = |device: &Device| device.emulated && !emulated;
        let (left_out, kept): (Vec<Device>, Vec<Device>) = selected.devices.into_iter().partition(is_emulated);
        if let Some(Device { name, .. }) = left_out.first().filter(|_| !self.all_devices) {
            return Err(usage(format!(
                "`{name}` is emulated: its times say nothing; `--emulated` measures it all the same"
            )));
        }
        selected.devices = kept;
        ssh_feature::ensure(context, &selected.devices)?;
        let note = |device: &Device| format!("`{}` is emulated and was left out", device.name);
        Ok((selected, left_out.iter().map(note).collect()))
    }
}

/// The models of a command that names none.
pub fn in_all(inventory: &Inventory) -> Vec<Model> {
    inventory.models.values().filter(|model| model.in_all).cloned().collect()
}

/// The inventory and the devices named (none: this host). Only mistakes in files of named devices and `models` (none:
/// all models) are errors; `models` may have paths of ONNX files too.
pub fn devices(context: &Context, names: &[String], all: bool, models: &[String]) -> Result<(Inventory, Vec<Device>)> {
    let has = |names: &[String], name: &str| names.iter().any(|listed| listed == name);
    let needed = |file: &str| match file.trim_end_matches(".toml").split_once('/') {
        Some(("devices", name)) => all || name == LOCAL || has(names, name),
        Some((_, name)) => models.is_empty() || has(models, name),
        None => true,
    };
    let inventory = if !models.is_empty() && models.iter().all(|model| is_onnx(model)) {
        context.inventory_or_this_host(&needed)?
    } else {
        context.inventory(&needed)?
    };
    let devices = if all {
        inventory.devices.values().filter(|device| device.in_all).cloned().collect()
    } else if names.is_empty() {
        named(&inventory, [LOCAL])?
    } else {
        named(&inventory, names.iter().map(String::as_str))?
    };
    Ok((inventory, devices))
}

/// Each device once, in the order of the names.
pub fn named<'a>(inventory: &Inventory, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Device>> {
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        let device = inventory.device(name).map_err(usage)?;
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    Ok(devices)
}
