//! Paths and URLs of sources and outputs.

use std::path::{Component, Path, PathBuf};

use super::walk::{Text, Walk};
use crate::suggest;

const SCHEMES: [&str; 7] = ["file", "s3", "gs", "az", "abfss", "http", "https"];

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// An absolute path, `.` and `..` taken out, possibly with glob characters.
    Local(PathBuf),
    /// A URL.
    Remote(String),
}

/// Reads a path or URL; relative paths start at the pipeline's folder.
pub(crate) fn locate(walk: &Walk<'_>, text: &Text) -> Option<Location> {
    let written = text.value.as_str();
    if written.contains('\0') {
        walk.error("bad-path", text.span.clone(), "the path contains a NUL character", "remove it");
        return None;
    }
    if written == "~" || written.starts_with("~/") {
        let hint = format!("write `${{HOME}}{}`", &written[1..]);
        walk.error("bad-path", text.span.clone(), format!("`~` in `{written}` is not expanded"), hint);
        return None;
    }
    let Some((scheme, rest)) = written.split_once("://") else {
        return Some(Location::Local(normal(&walk.root.join(written))));
    };
    let lower = scheme.to_ascii_lowercase();
    if !SCHEMES.contains(&lower.as_str()) {
        let hint = match lower.as_str() {
            "s3a" | "s3n" => "write `s3://…`".to_owned(),
            "gcs" => "write `gs://…`".to_owned(),
            _ => suggest::hint(&lower, "known schemes", SCHEMES).unwrap_or_default(),
        };
        walk.error("bad-path", text.span.clone(), format!("unknown scheme `{scheme}://`"), hint);
        return None;
    }
    if lower == "file" {
        return match url::Url::parse(written).ok().and_then(|u| u.to_file_path().ok()) {
            Some(path) => Some(Location::Local(normal(&path))),
            None => {
                walk.error(
                    "bad-path",
                    text.span.clone(),
                    format!("`{written}` is not a file URL"),
                    "write a plain path, or `file:///folder/file`",
                );
                None
            }
        };
    }
    // Braces and stars of a glob are no URL; the host must be there in any case.
    if rest.split('/').next().unwrap_or_default().is_empty() {
        let what = if lower.starts_with("http") { "host" } else { "bucket" };
        walk.error(
            "bad-path",
            text.span.clone(),
            format!("`{written}` names no {what}"),
            format!("write `{lower}://{what}/path`"),
        );
        return None;
    }
    Some(Location::Remote(written.to_owned()))
}

/// True if a component has a glob character.
pub(crate) fn is_glob(component: &str) -> bool {
    component.contains(['*', '?', '['])
}

/// The path without `.` and `..`, by its text alone.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// The path with symbolic links of the part that exists followed.
pub(crate) fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path.to_path_buf();
    loop {
        if let Ok(found) = std::fs::canonicalize(&existing) {
            return missing.iter().rev().fold(found, |path, name| path.join(name));
        }
        match existing.file_name() {
            Some(name) => missing.push(name.to_os_string()),
            None => return path.to_path_buf(),
        }
        existing.pop();
    }
}

/// True if `pattern` (a path with glob characters) matches `path`: `*`, `?` and `[…]` stay within a component, `**` crosses them.
pub(crate) fn glob_matches(pattern: &Path, path: &Path) -> bool {
    fn parts(path: &Path) -> Vec<String> {
        path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
    }
    fn components(pattern: &[String], path: &[String]) -> bool {
        match (pattern.split_first(), path.split_first()) {
            (None, None) => true,
            (Some((p, rest)), _) if p == "**" => {
                components(rest, path) || path.split_first().is_some_and(|(_, tail)| components(pattern, tail))
            }
            (Some((p, rest)), Some((name, tail))) => {
                component(&p.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>()) && components(rest, tail)
            }
            _ => false,
        }
    }
    // Goes back to the last `*` only, so that no pattern takes more than pattern × name steps.
    fn component(pattern: &[char], name: &[char]) -> bool {
        let (mut p, mut n, mut star) = (0, 0, None);
        while n < name.len() {
            let step = match pattern.get(p) {
                Some('*') => {
                    star = Some((p, n));
                    p += 1;
                    continue;
                }
                Some('?') => Some(1),
                Some('[') => match pattern[p + 1..].iter().skip(1).position(|x| *x == ']') {
                    Some(end) => in_class(&pattern[p + 1..=p + 1 + end], name[n]).then_some(end + 3),
                    None => (name[n] == '[').then_some(1),
                },
                Some(c) => (*c == name[n]).then_some(1),
                None => None,
            };
            match (step, star) {
                (Some(step), _) => {
                    p += step;
                    n += 1;
                }
                (None, Some((at, taken))) => {
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
                (None, None) => return false,
            }
        }
        pattern[p..].iter().all(|c| *c == '*')
    }
    fn in_class(class: &[char], c: char) -> bool {
        let (negated, class) = match class.split_first() {
            Some(('!' | '^', rest)) => (true, rest),
            _ => (false, class),
        };
        let mut found = false;
        let mut i = 0;
        while i < class.len() {
            if class.get(i + 1) == Some(&'-') && i + 2 < class.len() {
                found |= (class[i]..=class[i + 2]).contains(&c);
                i += 3;
            } else {
                found |= class[i] == c;
                i += 1;
            }
        }
        found != negated
    }
    components(&parts(pattern), &parts(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, path, expected) in [
            ("/a/*.csv", "/a/b.csv", true),
            ("/a/*.csv", "/a/b/c.csv", false),
            ("/a/**/*.csv", "/a/b/c.csv", true),
            ("/a/**/*.csv", "/a/c.csv", true),
            ("/a/b?[0-9].csv", "/a/bx7.csv", true),
            ("/a/b[!0-9].csv", "/a/b7.csv", false),
            ("/a/[]", "/a/[]", true),
            ("/a/month=*/x", "/a/month=3/x", true),
        ] {
            assert_eq!(glob_matches(Path::new(pattern), Path::new(path)), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn dots_are_taken_out() {
        assert_eq!(normal(Path::new("/a/./b/../c/")), Path::new("/a/c"));
        assert_eq!(normal(Path::new("/../..")), Path::new("/"));
    }
}
