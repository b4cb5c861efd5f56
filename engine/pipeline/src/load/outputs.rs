//! Rules between outputs, sources and the files of the definition: nothing is written where something else is read or written.

use std::path::{Path, PathBuf};

use sparklet_core::source::Format;

use super::location::{Location, glob_matches, is_glob, locate, real};
use super::source::glob_base;
use super::steps::Resolved;
use super::walk::{Text, Walk};
use crate::definition::{Output, Source, Target};

/// Reports outputs that collide with each other, with a source, or with the definition.
pub(crate) fn check(walk: &Walk<'_>, steps: &[Resolved], sources: &[Source]) {
    let outputs: Vec<(&str, &Output)> =
        steps.iter().filter_map(|s| Some((s.draft.name.value.as_str(), s.draft.output.as_ref()?))).collect();
    let places: Vec<Place> = outputs.iter().map(|(_, o)| Place::of(&o.target)).collect();
    for (i, (name, output)) in outputs.iter().enumerate() {
        if !own_files(walk, output, steps) {
            continue;
        }
        for (j, (other, _)) in outputs[..i].iter().enumerate() {
            if places[i] == places[j] {
                let message = format!("steps `{other}` and `{name}` write to the same place, `{}`", output.location);
                walk.error("output-clash", output.span.clone(), message, "give each step a place of its own");
            } else if places[i].contains(&places[j]) || places[j].contains(&places[i]) {
                let message = format!("the outputs of steps `{other}` and `{name}` lie in one another");
                walk.error(
                    "output-clash",
                    output.span.clone(),
                    message,
                    "give each step a place of its own, beside the other",
                );
            }
        }
        for source in sources.iter().filter(|s| s.spec.format != Format::Tpch) {
            if reads(walk, source, output) {
                let message =
                    format!("step `{name}` writes to `{}`, which source `{}` reads", output.location, source.name);
                let hint = format!("write elsewhere; to read a step's result, name the step as a table: `FROM {name}`");
                walk.error("output-is-source", output.span.clone(), message, hint);
            }
        }
    }
}

/// A target for comparison: links followed, URLs without a last slash.
#[derive(PartialEq)]
enum Place {
    Local(PathBuf),
    Remote(String),
}

impl Place {
    fn of(target: &Target) -> Self {
        match target {
            Target::Local(path) => Self::Local(real(path)),
            Target::Remote(url) => Self::Remote(url.trim_end_matches('/').to_owned()),
        }
    }

    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(a), Self::Local(b)) => b.starts_with(a),
            (Self::Remote(a), Self::Remote(b)) => b.strip_prefix(a.as_str()).is_some_and(|rest| rest.starts_with('/')),
            _ => false,
        }
    }
}

/// Publishing replaces the target whole: it must not hold the definition, a home, or everything. True if it does not.
fn own_files(walk: &Walk<'_>, output: &Output, steps: &[Resolved]) -> bool {
    let Target::Local(target) = &output.target else { return true };
    let target = real(target);
    let what = if target.parent().is_none() {
        "it is the root of the file system".to_owned()
    } else if (walk.env)("HOME")
        .is_some_and(|home| home.starts_with('/') && real(Path::new(&home)).starts_with(&target))
    {
        "the home folder lies there".to_owned()
    } else if real(&walk.root).starts_with(&target) {
        "the pipeline itself lies there".to_owned()
    } else if target.starts_with(real(&walk.root.join(".sparklet"))) {
        "runs keep their state there".to_owned()
    } else {
        let sql = steps.iter().filter_map(|s| s.draft.sql.as_ref()).map(|sql| &sql.file);
        let lies_there = |file: &Path| std::path::absolute(file).is_ok_and(|f| real(&f).starts_with(&target));
        match std::iter::once(&walk.file).chain(sql).find(|f| lies_there(f)) {
            Some(file) => format!("`{}` of this pipeline lies there", file.display()),
            None => return true,
        }
    };
    let hint = "give a folder or file of its own, e.g. `path = \"out/name\"`";
    walk.error("bad-path", output.span.clone(), format!("an output cannot go to `{}`: {what}", output.location), hint);
    false
}

/// True if the source would read what the output writes.
fn reads(walk: &Walk<'_>, source: &Source, output: &Output) -> bool {
    let written = Text { value: source.spec.written.clone(), span: source.span.clone() };
    match (&output.target, locate(walk, &written)) {
        (Target::Local(target), Some(Location::Local(path))) => {
            let has_glob = path.components().any(|c| is_glob(&c.as_os_str().to_string_lossy()));
            let target = real(target);
            if !has_glob {
                let path = real(&path);
                return target.starts_with(&path) || path.starts_with(&target);
            }
            let base = glob_base(&path);
            let pattern = real(&base).join(path.strip_prefix(&base).unwrap_or(Path::new("")));
            let ending = output.sink.format.name();
            let (file, nested) =
                (target.join(format!("part-0.{ending}")), target.join(format!("key=value/part-0.{ending}")));
            glob_matches(&pattern, &target)
                || !output.sink.single_file && (glob_matches(&pattern, &file) || glob_matches(&pattern, &nested))
                // The whole glob lies in the folder that is replaced.
                || real(&base).starts_with(&target)
        }
        (Target::Remote(target), Some(Location::Remote(url))) => {
            let base = url.split(['*', '?', '[']).next().unwrap_or_default();
            let (base, target) = (base.trim_end_matches('/'), target.trim_end_matches('/'));
            target == base
                || target.strip_prefix(base).is_some_and(|r| r.starts_with('/')) && !url.contains(['*', '?', '['])
        }
        _ => false,
    }
}
