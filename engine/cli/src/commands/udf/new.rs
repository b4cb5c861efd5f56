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
    /// With the SDK, which is put beside it: functions over texts, NULLs and the like, and aggregates; C, Rust and AssemblyScript
    #[arg(long)]
    sdk: bool,
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

/// What is written, and how one goes on.
struct Project {
    /// Files by path, with what is in them.
    files: Vec<(&'static str, String)>,
    /// Builds the module; empty where there is nothing to build.
    build: &'static str,
    module: &'static str,
    function: &'static str,
    /// SQL that calls it.
    call: &'static str,
}

impl Project {
    fn plain(language: Language) -> Self {
        let (source, text, build) = template(language);
        Self {
            // Cases for `udf test`: arguments, and what is expected.
            files: vec![
                (source, text.to_owned()),
                ("cases.csv", "price,cost,expected\n10.5,4,6.5\n1,2,-1\n,4,\n".to_owned()),
            ],
            build,
            module: if build.is_empty() { source } else { "margin.wasm" },
            function: "margin",
            call: "SELECT margin(10.5, 4)",
        }
    }

    /// With the SDK; none where the language has no SDK.
    fn with_sdk(language: Language) -> Option<Self> {
        let (own, sdk, build): (&[(_, &str)], &[(_, &str)], _) = match language {
            Language::C => (
                &[("shop.c", include_str!("new/shop.c"))],
                &[
                    ("sparklet_udf.h", include_str!("../../../../../udf-sdk/c/sparklet_udf.h")),
                    ("sparklet_udf_impl.h", include_str!("../../../../../udf-sdk/c/sparklet_udf_impl.h")),
                ],
                "${CC:-clang --target=wasm32} -O3 -ffreestanding -nostdlib -I . -Wl,--no-entry shop.c -o shop.wasm",
            ),
            Language::Rust => (
                &[("Cargo.toml", include_str!("new/shop.toml")), ("src/lib.rs", include_str!("new/shop.rs"))],
                &RUST_SDK,
                "cargo build --release --target wasm32-unknown-unknown --target-dir target && cp target/wasm32-unknown-unknown/release/shop.wasm .",
            ),
            Language::Assemblyscript => (
                &[("shop.ts", include_str!("new/shop.ts"))],
                &[
                    ("sdk/package.json", include_str!("../../../../../udf-sdk/assemblyscript/package.json")),
                    ("sdk/transform.js", include_str!("../../../../../udf-sdk/assemblyscript/transform.js")),
                    ("sdk/assembly/index.ts", include_str!("../../../../../udf-sdk/assemblyscript/assembly/index.ts")),
                ],
                "${ASC:-npx --package assemblyscript asc} shop.ts --transform ./sdk/transform.js -O3 --use abort= --disableWarning -o shop.wasm",
            ),
            _ => return None,
        };
        let cases = [("cases.csv", "text,expected\nhello,HELLO!\nTwo words,TWO WORDS!\n")];
        Some(Self {
            files: own.iter().chain(sdk).chain(&cases).map(|(name, text)| (*name, (*text).to_owned())).collect(),
            build,
            module: "shop.wasm",
            function: "shout",
            call: "SELECT shout('hello')",
        })
    }
}

macro_rules! rust_sdk {
    ($($name:literal),*) => {
        [$((concat!("sparklet-udf/", $name), include_str!(concat!("../../../../../udf-sdk/rust/", $name)))),*]
    };
}

const RUST_SDK: [(&str, &str); 12] = rust_sdk![
    "Cargo.toml",
    "src/abi.rs",
    "src/aggregate.rs",
    "src/column.rs",
    "src/error.rs",
    "src/lib.rs",
    "src/nested.rs",
    "src/row.rs",
    "src/scalar.rs",
    "src/table.rs",
    "src/text.rs",
    "src/values.rs"
];

pub(super) fn run(arguments: &Arguments, world: &World, console: &mut Console) -> Result {
    let folder = world.cwd.join(&arguments.folder);
    let project = match arguments.sdk {
        false => Project::plain(arguments.lang),
        true => Project::with_sdk(arguments.lang).ok_or_else(|| {
            Failure::usage("there is no SDK for this language")
                .with_hint("`--sdk` goes with c, rust and assemblyscript")
        })?,
    };
    let Project { mut files, build, module, function, call } = project;
    if !build.is_empty() {
        files.push(("build.sh", format!("#!/bin/sh\n# Builds {module}.\ncd \"$(dirname \"$0\")\" && {build}\n")));
    }
    if let Some((there, _)) = files.iter().find(|(name, _)| folder.join(name).exists()) {
        return Err(Failure::usage(format!("`{}` is there already", arguments.folder.join(there).display()))
            .with_hint("give another folder: no file is overwritten"));
    }
    for (name, text) in &files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).map_err(|e| Failure::io(format!("cannot make `{}`", parent.display()), e))?;
        std::fs::write(&path, text).map_err(|e| Failure::io(format!("cannot write `{}`", path.display()), e))?;
        writeln!(console.out(), "{}", arguments.folder.join(name).display())?;
    }
    let shown = arguments.folder.display();
    if !build.is_empty() {
        console.hint(&format!("sh {shown}/build.sh"));
    }
    console.hint(&format!("sparklet udf test {shown}/{module} {function} {shown}/cases.csv"));
    console
        .hint(&format!("sparklet sql -c \"CREATE FUNCTION {function}() LANGUAGE wasm AS '{shown}/{module}'; {call}\""));
    Ok(())
}
