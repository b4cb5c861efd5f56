//! `sparklet udf new`: a function to begin with, and the one command that builds it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::world::World;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Folder for the function; it is made if it does not exist
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The language
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: Language,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// C, with clang and lld
    C,
    /// Rust, with the target wasm32-unknown-unknown
    Rust,
    /// Zig
    Zig,
    /// AssemblyScript, with asc
    Assemblyscript,
    /// Go 1.24 or later
    Go,
    /// WebAssembly's own text format: nothing to build
    Wat,
}

/// Name of the source file, its text, the command that builds it.
fn template(language: Language) -> (&'static str, &'static str, &'static str) {
    match language {
        Language::C => (
            "margin.c",
            "double margin(double price, double cost) {\n    return price - cost;\n}\n",
            "clang --target=wasm32 -O3 -nostdlib -fvisibility=default -Wl,--no-entry -Wl,--export-dynamic -o margin.wasm margin.c",
        ),
        Language::Rust => (
            "margin.rs",
            "#[no_mangle]\npub extern \"C\" fn margin(price: f64, cost: f64) -> f64 {\n    price - cost\n}\n",
            "rustc --target wasm32-unknown-unknown --crate-type cdylib -O -o margin.wasm margin.rs",
        ),
        Language::Zig => (
            "margin.zig",
            "export fn margin(price: f64, cost: f64) f64 {\n    return price - cost;\n}\n",
            "zig build-exe margin.zig -target wasm32-freestanding -O ReleaseSmall -fno-entry -rdynamic",
        ),
        Language::Assemblyscript => (
            "margin.ts",
            "export function margin(price: f64, cost: f64): f64 {\n  return price - cost;\n}\n",
            "npx --package assemblyscript asc margin.ts -O3 --runtime stub -o margin.wasm",
        ),
        Language::Go => (
            "margin.go",
            "package main\n\n//go:wasmexport margin\nfunc margin(price, cost float64) float64 {\n\treturn price - cost\n}\n\nfunc main() {}\n",
            "GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags='-s -w' -o margin.wasm margin.go",
        ),
        Language::Wat => (
            "margin.wat",
            "(module\n  (func (export \"margin\") (param $price f64) (param $cost f64) (result f64)\n    (f64.sub (local.get $price) (local.get $cost))))\n",
            "",
        ),
    }
}

/// Cases for `udf test`: arguments, and what is expected.
const CASES: &str = "price,cost,expected\n10.5,4,6.5\n1,2,-1\n,4,\n";

pub(super) fn run(arguments: &Arguments, world: &World, console: &mut Console) -> Result {
    let folder = world.cwd.join(&arguments.folder);
    let (source, text, build) = template(arguments.lang);
    let module = if build.is_empty() { source } else { "margin.wasm" };
    let mut files = vec![(source, text.to_owned()), ("cases.csv", CASES.to_owned())];
    if !build.is_empty() {
        files.push(("build.sh", format!("#!/bin/sh\n# Builds {module}.\ncd \"$(dirname \"$0\")\" && {build}\n")));
    }
    std::fs::create_dir_all(&folder).map_err(|e| Failure::io(format!("cannot make `{}`", folder.display()), e))?;
    if let Some((there, _)) = files.iter().find(|(name, _)| folder.join(name).exists()) {
        return Err(Failure::usage(format!("`{}` is there already", arguments.folder.join(there).display()))
            .with_hint("give another folder: no file is overwritten"));
    }
    for (name, text) in &files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| Failure::io(format!("cannot write `{}`", path.display()), e))?;
        writeln!(console.out(), "{}", arguments.folder.join(name).display())?;
    }
    let shown = arguments.folder.display();
    if !build.is_empty() {
        console.hint(&format!("sh {shown}/build.sh"));
    }
    console.hint(&format!("sparklet udf test {shown}/{module} margin {shown}/cases.csv"));
    console.hint(&format!(
        "sparklet sql -c \"CREATE FUNCTION margin() LANGUAGE wasm AS '{shown}/{module}'; SELECT margin(10.5, 4)\""
    ));
    Ok(())
}
