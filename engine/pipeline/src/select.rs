//! `--select`: which steps run, and which are read from what an earlier run published.

use std::collections::BTreeSet;

use crate::definition::{Output, Pipeline, Target};
use crate::diagnostic::Diagnostic;
use crate::suggest;

/// What a selection comes to. Names are in the order in which steps run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Steps that run: selected ones, and intermediate results that they need.
    pub run: Vec<String>,
    /// Steps that do not run and are read from their published outputs.
    pub published: Vec<String>,
}

/// Reads a selection: `name`, `name+` (and all that read it), `+name` (and all that it reads), `+name+`, several separated by commas;
/// none: every step. `exists` tells whether an output has been published.
///
/// A step that a selected one reads, and that is not selected itself, is read from its output; one without an output is made again.
///
/// # Errors
/// Unknown names (with a suggestion), empty parts, and outputs that are needed but do not exist: all at once.
pub fn select(
    pipeline: &Pipeline,
    text: Option<&str>,
    exists: &dyn Fn(&Output) -> bool,
) -> Result<Selection, Vec<Diagnostic>> {
    let steps = &pipeline.steps;
    let Some(text) = text else {
        return Ok(Selection { run: steps.iter().map(|s| s.name.clone()).collect(), published: Vec::new() });
    };
    let graph = Graph::of(pipeline);
    let (mut chosen, mut errors) = (BTreeSet::new(), Vec::new());
    for part in text.split(',') {
        match graph.part(part) {
            Ok(some) => chosen.extend(some),
            Err(error) => errors.push(error),
        }
    }
    let (mut run, mut published) = (chosen.clone(), BTreeSet::new());
    let mut queue: Vec<usize> = chosen.into_iter().collect();
    while let Some(at) = queue.pop() {
        for need in graph.reads(at) {
            if run.contains(&need) {
                continue;
            }
            match &steps[need].output {
                None => {
                    run.insert(need);
                    queue.push(need);
                }
                Some(output) => {
                    if published.insert(need) && !exists(output) {
                        let (name, reader) = (&steps[need].name, &steps[at].name);
                        let message = format!(
                            "step `{reader}` reads `{name}`, which is not selected and has not been published at `{}`",
                            output.location
                        );
                        errors.push(
                            Diagnostic::error("not-published", message)
                                .hint(format!("run it as well: `--select +{reader}`")),
                        );
                    }
                }
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let names = |set: BTreeSet<usize>| set.into_iter().map(|i| steps[i].name.clone()).collect();
    Ok(Selection { run: names(run), published: names(published) })
}

/// True if there is something at a local target; a remote one is found out when it is read.
pub fn is_published(output: &Output) -> bool {
    match &output.target {
        Target::Local(path) => path.exists(),
        Target::Remote(_) => true,
    }
}

/// Who reads whom, by index of the step.
struct Graph<'a> {
    names: Vec<&'a str>,
    reads: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn of(pipeline: &'a Pipeline) -> Self {
        let names: Vec<&str> = pipeline.steps.iter().map(|s| s.name.as_str()).collect();
        let index = |name: &String| names.iter().position(|n| n == name);
        let reads = pipeline.steps.iter().map(|s| s.reads.iter().filter_map(index).collect()).collect();
        Self { names, reads }
    }

    fn reads(&self, at: usize) -> Vec<usize> {
        self.reads[at].clone()
    }

    fn read_by(&self, at: usize) -> Vec<usize> {
        (0..self.reads.len()).filter(|i| self.reads[*i].contains(&at)).collect()
    }

    #[expect(clippy::result_large_err, reason = "an error is said once and ends the work")]
    fn part(&self, part: &str) -> Result<BTreeSet<usize>, Diagnostic> {
        let part = part.trim();
        let (up, rest) = part.strip_prefix('+').map_or((false, part), |rest| (true, rest));
        let (down, name) = rest.strip_suffix('+').map_or((false, rest), |rest| (true, rest));
        if name.is_empty() {
            return Err(Diagnostic::error("bad-select", format!("`{part}` in the selection names no step"))
                .hint("write `name`, `name+` (and what reads it), `+name` (and what it reads), separated by commas"));
        }
        let Some(at) = self.names.iter().position(|n| *n == name) else {
            let hint = suggest::hint(name, "steps", self.names.iter().copied());
            return Err(Diagnostic::error("unknown-step", format!("there is no step `{name}`")).maybe_hint(hint));
        };
        let mut found = BTreeSet::from([at]);
        if up {
            reach(at, &mut found, |i| self.reads(i));
        }
        if down {
            reach(at, &mut found, |i| self.read_by(i));
        }
        Ok(found)
    }
}

fn reach(from: usize, found: &mut BTreeSet<usize>, next: impl Fn(usize) -> Vec<usize>) {
    let (mut seen, mut queue) = (BTreeSet::from([from]), vec![from]);
    while let Some(at) = queue.pop() {
        for other in next(at) {
            if seen.insert(other) {
                found.insert(other);
                queue.push(other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// a → b → c, a → d, x (alone); `b` and `x` have no output.
    fn pipeline() -> Pipeline {
        let step = |name: &str, query: &str, output: bool| {
            let output = if output { format!("output.path = \"out/{name}.csv\"\n") } else { String::new() };
            format!("[[step]]\nname = \"{name}\"\nquery = \"{query}\"\n{output}")
        };
        let toml = "name = \"p\"\n".to_owned()
            + &step("a", "SELECT 1 AS n", true)
            + &step("b", "SELECT * FROM a", false)
            + &step("c", "SELECT * FROM b", true)
            + &step("d", "SELECT * FROM a", true)
            + &step("x", "SELECT 1 AS n", false);
        crate::load_text(Path::new("pipeline.toml"), Arc::from(toml), &|_| None).unwrap().pipeline
    }

    fn selected(text: &str) -> String {
        match select(&pipeline(), Some(text), &|_| true) {
            Ok(s) => format!("{} | {}", s.run.join(" "), s.published.join(" ")),
            Err(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        }
    }

    #[test]
    fn selections() {
        for (text, expected) in [
            ("a", "a | "),
            ("a+", "a b c d | "),
            ("+c", "a b c | "),
            ("c", "b c | a"),
            ("d", "d | a"),
            ("b+", "b c | a"),
            ("+b+", "a b c | "),
            ("x, d", "d x | a"),
            ("a,d", "a d | "),
            ("d,a", "a d | "),
        ] {
            assert_eq!(selected(text), expected, "{text}");
        }
        assert_eq!(select(&pipeline(), None, &|_| false).unwrap().run, ["a", "b", "c", "d", "x"]);
        for (text, expected) in [
            ("", "error[bad-select]: `` in the selection names no step"),
            ("+", "error[bad-select]: `+` in the selection names no step"),
            ("a,,b", "error[bad-select]: `` in the selection names no step"),
            ("++a", "error[unknown-step]: there is no step `+a`"),
            ("e", "error[unknown-step]: there is no step `e` / steps: `a`, `b`, `c`, `d`, `x`"),
        ] {
            assert!(selected(text).starts_with(expected), "{text}: {}", selected(text));
        }
        let errors = select(&pipeline(), Some("c,d"), &|_| false).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].message.contains("reads `a`, which is not selected"));
        assert!(errors[0].hint.as_deref().unwrap().starts_with("run it as well: `--select +"));
    }

    fn part() -> impl Strategy<Value = String> {
        ("[+]?", prop::sample::select(vec!["a", "b", "c", "d", "x"]), "[+]?").prop_map(|(u, n, d)| format!("{u}{n}{d}"))
    }

    proptest! {
        #[test]
        fn parts_add_up(parts in prop::collection::vec(part(), 1..4)) {
            let pipeline = pipeline();
            let one = |text: &str| Graph::of(&pipeline).part(text).unwrap();
            let union: BTreeSet<usize> = parts.iter().flat_map(|p| one(p)).collect();
            let all = select(&pipeline, Some(&parts.join(",")), &|_| true).unwrap();
            let index = |n: &String| pipeline.steps.iter().position(|s| s.name == *n).unwrap();
            let run: BTreeSet<usize> = all.run.iter().map(index).collect();
            let published: BTreeSet<usize> = all.published.iter().map(index).collect();
            // All chosen steps run, the others that run are intermediate, and what a running step reads runs or is published.
            prop_assert!(union.is_subset(&run));
            prop_assert!(run.difference(&union).all(|i| pipeline.steps[*i].output.is_none()));
            prop_assert!(run.is_disjoint(&published));
            let graph = Graph::of(&pipeline);
            prop_assert!(run.iter().flat_map(|i| graph.reads(*i)).all(|n| run.contains(&n) || published.contains(&n)));
            prop_assert!(published.iter().all(|i| pipeline.steps[*i].output.is_some()));
            // In order, whatever the order of the parts.
            let mut reversed = parts.clone();
            reversed.reverse();
            prop_assert_eq!(&select(&pipeline, Some(&reversed.join(",")), &|_| true).unwrap(), &all);
            prop_assert!(all.run.is_sorted_by_key(index));
        }

        #[test]
        fn any_text_is_answered(text in "[+a-d, x]{0,8}") {
            let _ = select(&pipeline(), Some(&text), &|_| true);
        }
    }
}
