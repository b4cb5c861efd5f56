//! A folder to work in and the binary to run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A folder of its own for one test; the binary runs in it with an environment of its own.
pub(crate) struct Place {
    folder: TempDir,
}

/// What a finished process said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("sparklet-it-").tempdir().unwrap() }
    }

    /// Absolute path of `name` in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with its parents.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Copies a folder of the repository, outputs and state left out.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join(from), &self.path(to));
    }

    /// The binary with `args`, not started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparklet"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("SPARKLET_") || name.starts_with("AWS_") {
                command.env_remove(name.as_ref());
            }
        }
        command.env("XDG_CONFIG_HOME", self.path("config-home")).env("NO_COLOR", "1").env("COLUMNS", "100");
        command
    }

    /// Runs the binary with `args` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        finish(self.command(args))
    }

    /// Runs it and insists on success.
    pub(crate) fn ok(&self, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, 0, "sparklet {}\n{}\n{}", args.join(" "), said.out, said.err);
        said
    }

    /// Starts it with its standard output and error kept.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The only row and column of a query, by the binary itself.
    pub(crate) fn ask(&self, sql: &str) -> String {
        let said = self.ok(&["sql", "--learning", "off", "--format", "csv", "-c", sql]);
        said.out.lines().nth(1).unwrap_or_default().to_owned()
    }

    /// Names in a folder below this one, hidden ones included, sorted; empty if it does not exist.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(name)) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// `text` without what changes from place to place.
    pub(crate) fn neutral(&self, text: &str) -> String {
        text.replace(self.folder.path().to_str().unwrap(), "<place>")
    }
}

/// Runs `command` to its end.
pub(crate) fn finish(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if name == "out" || name == ".sparklet" {
            continue;
        }
        let target = to.join(&name);
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Folder with the query texts of `benches/fetch-queries`; none, said loudly, where they were not fetched (an error in CI).
pub(crate) fn query_texts(suite: &str) -> Option<PathBuf> {
    let home = std::env::var_os("SPARKLET_BENCH_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/sparklet/bench")))?;
    let folder = home.join("queries").join(suite);
    if folder.join("q01.sql").exists() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing: run benches/fetch-queries", folder.display());
    eprintln!("SKIPPED: {} is missing: run benches/fetch-queries", folder.display());
    None
}
