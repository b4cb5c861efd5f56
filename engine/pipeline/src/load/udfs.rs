//! `[udfs.NAME]`: modules of user functions.

use sparklet_core::sandbox::{Declared, Limits, Wanted};
use toml::de::DeValue;

use super::walk::{Section, describe, entries};
use crate::definition::Udf;
use crate::units;

/// Reads `[udfs]`.
pub(crate) fn udfs(section: &Section<'_, '_>, table: &toml::de::DeTable<'_>) -> Vec<Udf> {
    let walk = section.walk();
    let mut found = Vec::new();
    for (name, value) in entries(table) {
        walk.check_name("a module", name.get_ref(), name.span());
        let DeValue::Table(table) = value.get_ref() else {
            let message = format!("`[udfs.{}]` must be a table, but is {}", name.get_ref(), describe(value.get_ref()));
            walk.error("wrong-type", value.span(), message, "write `module = \"name.wasm\"` in it");
            continue;
        };
        let keys = ["module", "memory", "timeout", "fuel", "max_rows", "deterministic", "functions", "description"];
        let udf = Section::new(walk, format!("`[udfs.{}]`", name.get_ref()), table, name.span(), &keys);
        let declared = declared(&udf);
        let Some(module) = udf.required("module", "name the file: `module = \"pricing.wasm\"`") else { continue };
        let file = walk.root.join(&module.value);
        if !file.is_file() {
            let message = format!("there is no module `{}`", module.value);
            udf.bad("missing-file", "module", message, "build it, or correct the path");
            continue;
        }
        found.push(Udf { name: name.get_ref().to_string(), written: module.value, file, declared, span: module.span });
    }
    found
}

fn declared(udf: &Section<'_, '_>) -> Declared {
    let mut limits = Limits::default();
    if let Some(memory) = udf.string("memory") {
        let bad = |why: &str| {
            let message = format!("`memory` in {}, `{}`, {why}", udf.title(), memory.value.escape_debug());
            udf.bad("bad-size", "memory", message, "give a size like `64MiB`");
        };
        match units::parse_size(&memory.value) {
            Ok(bytes) if (64 << 10..=Limits::MAX_MEMORY as u64).contains(&bytes) => limits.memory = bytes as usize,
            Ok(_) => bad("is not between 64 KiB and 4 GiB"),
            Err(why) => bad(&why.to_string()),
        }
    }
    if let Some(timeout) = udf.duration("timeout") {
        limits.timeout = timeout;
    }
    limits.fuel = udf.integer("fuel", 1..=i64::MAX).map(i64::cast_unsigned);
    if let Some(rows) = udf.integer("max_rows", 1..=i64::MAX) {
        limits.max_rows = rows.cast_unsigned();
    }
    let mut functions = Vec::new();
    for text in udf.strings("functions").unwrap_or_default() {
        match Wanted::parse(&text.value) {
            Ok(wanted) => functions.push(wanted),
            Err(why) => {
                let hint = "a name, or a name with types: `is_late(Date32, Int16) -> Boolean`";
                udf.bad("bad-value", "functions", format!("`functions` in {}: {why}", udf.title()), hint);
            }
        }
    }
    Declared { limits, functions, volatile: udf.boolean("deterministic") == Some(false) }
}
