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
    /// With the SDK, which is put beside it: functions over texts, NULLs and the like, and aggregates; C, C++, Rust and AssemblyScript.
    /// Python and JavaScript have it always
    #[arg(long)]
    sdk: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// C, with clang and lld
    C,
    /// C++, with clang and lld
    Cpp,
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
    /// Python, with componentize-py, which is installed beside the function
    Python,
    /// JavaScript, with componentize-qjs, which is installed beside the function
    Javascript,
}

/// Name of the source file, its text, the command that builds it; none for languages that need the SDK.
fn template(language: Language) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match language {
        Language::C => (
            "margin.c",
            "double margin(double price, double cost) {\n    return price - cost;\n}\n",
            "${CC:-clang --target=wasm32} -O3 -nostdlib -fvisibility=default -Wl,--no-entry -Wl,--export-dynamic -o margin.wasm margin.c",
        ),
        Language::Cpp => (
            "margin.cpp",
            "extern \"C\" double margin(double price, double cost) {\n    return price - cost;\n}\n",
            "${CXX:-clang++ --target=wasm32} -O3 -nostdlib -fvisibility=default -Wl,--no-entry -Wl,--export-dynamic -o margin.wasm margin.cpp",
        ),
        Language::Rust => (
            "margin.rs",
            "#[no_mangle]\npub extern \"C\" fn margin(price: f64, cost: f64) -> f64 {\n    price - cost\n}\n",
            "${RUSTC:-rustc} --target wasm32-unknown-unknown --crate-type cdylib -O -o margin.wasm margin.rs",
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
        Language::Python | Language::Javascript => return None,
    })
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
    fn plain(language: Language) -> Option<Self> {
        let (source, text, build) = template(language)?;
        Some(Self {
            // Cases for `udf test`: arguments, and what is expected.
            files: vec![
                (source, text.to_owned()),
                ("cases.csv", "price,cost,expected\n10.5,4,6.5\n1,2,-1\n,4,\n".to_owned()),
            ],
            build,
            module: if build.is_empty() { source } else { "margin.wasm" },
            function: "margin",
            call: "SELECT margin(10.5, 4)",
        })
    }

    /// With the SDK; none where the language has no SDK.
    fn with_sdk(language: Language) -> Option<Self> {
        let (own, sdk, build): (&[(_, &str)], &[(_, &str)], _) = match language {
            Language::C => (
                &[("shop.c", include_str!("new/shop.c"))],
                &C_SDK,
                "${CC:-clang --target=wasm32} -O3 -ffreestanding -nostdlib -I . -Wl,--no-entry shop.c -o shop.wasm",
            ),
            Language::Cpp => (
                // Good as both.
                &[("shop.cpp", include_str!("new/shop.c"))],
                &C_SDK,
                "${CXX:-clang++ --target=wasm32} -O3 -ffreestanding -nostdlib -I . -Wl,--no-entry shop.cpp -o shop.wasm",
            ),
            Language::Rust => (
                &[("Cargo.toml", include_str!("new/shop.toml")), ("src/lib.rs", include_str!("new/shop.rs"))],
                &RUST_SDK,
                "cargo build --release --target wasm32-unknown-unknown --target-dir target && cp target/wasm32-unknown-unknown/release/shop.wasm .",
            ),
            Language::Python => (
                &[("shop.py", include_str!("new/shop.py"))],
                &PYTHON_SDK,
                "{ [ -n \"$PYTHON\" ] || [ -x .venv/bin/componentize-py ] || { python3 -m venv .venv && .venv/bin/pip install -q --disable-pip-version-check componentize-py==0.25; }; } &&\n  \"${PYTHON:-.venv/bin/python}\" -m sparklet_udf.build build shop.py -o shop.wasm",
            ),
            Language::Javascript => (
                &[("shop.js", include_str!("new/shop.js"))],
                &JAVASCRIPT_SDK,
                "{ [ -n \"$COMPONENTIZE_QJS\" ] || [ -d node_modules/componentize-qjs ] || npm install --silent --no-fund --no-audit --no-save componentize-qjs@0.4; } &&\n  node sdk/build.js build shop.js -o shop.wasm",
            ),
            Language::Assemblyscript => (
                &[("shop.ts", include_str!("new/shop.ts"))],
                &ASSEMBLYSCRIPT_SDK,
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

/// Files of the SDK: where they are put, and where they are.
macro_rules! sdk {
    ($to:literal $from:literal: $($name:literal),*) => {
        [$((concat!($to, $name), include_str!(concat!("../../../../../udf-sdk/", $from, $name)))),*]
    };
}

const C_SDK: [(&str, &str); 2] = sdk!["" "c/": "sparklet_udf.h", "sparklet_udf_impl.h"];

const ASSEMBLYSCRIPT_SDK: [(&str, &str); 3] =
    sdk!["sdk/" "assemblyscript/": "package.json", "transform.js", "assembly/index.ts"];

const WIT: &str = include_str!("../../../../../udf-sdk/wit/udf.wit");

const PYTHON_SDK: [(&str, &str); 7] = {
    let [a, b, c, d, e, f] = sdk!["sparklet_udf/" "python/sparklet_udf/":
        "__init__.py", "_columns.py", "_functions.py", "_types.py", "_world.py", "build.py"];
    [a, b, c, d, e, f, ("sparklet_udf/wit/udf.wit", WIT)]
};

const JAVASCRIPT_SDK: [(&str, &str); 5] = {
    let [a, b, c, d] = sdk!["sdk/" "js/": "package.json", "index.js", "world.js", "build.js"];
    [a, b, c, d, ("sdk/wit/udf.wit", WIT)]
};

const RUST_SDK: [(&str, &str); 12] = sdk![
    "sparklet-udf/" "rust/":
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
    let plain = if arguments.sdk { None } else { Project::plain(arguments.lang) };
    let project = plain.or_else(|| Project::with_sdk(arguments.lang)).ok_or_else(|| {
        Failure::usage("there is no SDK for this language")
            .with_hint("`--sdk` goes with c, cpp, rust, assemblyscript, python and javascript")
    })?;
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
