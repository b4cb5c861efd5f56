//! Canonical texts of terms: the same for every way of writing the same condition, and readable.

use datafusion::common::HashMap;
use sparklet_history::Fingerprint;

use super::intern::{Sym, Symbols};
use super::term::{Mode, Style, Term, TermId, Terms};

/// Terms above this many nodes stand in a text as a digest of their own text: shared sub-terms could make the text exponential.
const DIGEST_ABOVE: u32 = 600;

/// Writes terms of one block in one mode.
pub(crate) struct Renderer<'a> {
    pub(crate) symbols: &'a Symbols,
    pub(crate) terms: &'a Terms,
    /// Label of an occurrence by its number; occurrences of other blocks have none.
    pub(crate) labels: &'a HashMap<u32, String>,
    pub(crate) mode: Mode,
    pub(crate) digests: HashMap<TermId, Fingerprint>,
}

impl Renderer<'_> {
    /// The text of a term.
    pub(crate) fn text(&mut self, id: TermId) -> String {
        let mut out = String::new();
        self.write(id, false, &mut out);
        out
    }

    fn sym(&self, sym: Sym) -> &str {
        self.symbols.text(sym)
    }

    #[recursive::recursive]
    fn write(&mut self, id: TermId, nested: bool, out: &mut String) {
        if self.terms.size(id) > DIGEST_ABOVE {
            let digest = match self.digests.get(&id) {
                Some(known) => *known,
                None => {
                    let mut whole = String::new();
                    self.write_node(id, false, &mut whole);
                    let digest = Fingerprint::of(&whole);
                    self.digests.insert(id, digest);
                    digest
                }
            };
            out.push_str(&format!("#{digest}"));
        } else {
            self.write_node(id, nested, out);
        }
    }

    fn write_node(&mut self, id: TermId, nested: bool, out: &mut String) {
        match self.terms.get(id) {
            Term::Column { occ, key } => {
                if let Some(label) = self.labels.get(&occ.0) {
                    out.push_str(label);
                    out.push('.');
                }
                out.push_str(self.sym(key.in_mode(self.mode)));
            }
            Term::Literal { text, ty } => {
                out.push_str(if self.mode == Mode::Exact { self.sym(*text) } else { "?" });
                out.push(':');
                out.push_str(self.sym(*ty));
            }
            Term::Opaque(key) => out.push_str(self.sym(key.in_mode(self.mode))),
            Term::Apply { op, args } => {
                let (style, args) = (op.style, std::rc::Rc::clone(args));
                let name = op.name;
                let infix =
                    matches!(style, Style::Infix | Style::InfixAny | Style::Compare | Style::In | Style::Postfix);
                if nested && infix {
                    out.push('(');
                }
                self.write_apply(name, style, &args, out);
                if nested && infix {
                    out.push(')');
                }
            }
        }
    }

    fn write_apply(&mut self, name: Sym, style: Style, args: &[TermId], out: &mut String) {
        match style {
            Style::Call | Style::CallAny => {
                out.push_str(self.sym(name));
                out.push('(');
                let texts = self.texts(args, style == Style::CallAny, false);
                out.push_str(&texts.join(", "));
                out.push(')');
            }
            Style::Infix | Style::InfixAny => {
                let texts = self.texts(args, style == Style::InfixAny, true);
                let separator = format!(" {} ", self.sym(name));
                out.push_str(&texts.join(&separator));
            }
            Style::Compare => {
                let flipped = matches!(self.terms.get(args[0]), Term::Literal { .. });
                let texts = self.texts(args, false, true);
                let written = match (flipped, self.sym(name)) {
                    (true, "<") => format!("{} > {}", texts[1], texts[0]),
                    (true, "<=") => format!("{} >= {}", texts[1], texts[0]),
                    (_, name) => format!("{} {name} {}", texts[0], texts[1]),
                };
                out.push_str(&written);
            }
            Style::Postfix => {
                self.write(args[0], true, out);
                out.push(' ');
                out.push_str(self.sym(name));
            }
            Style::In => {
                self.write(args[0], true, out);
                let mut texts = self.texts(&args[1..], true, false);
                texts.dedup();
                out.push_str(&format!(" {} ({})", self.sym(name), texts.join(", ")));
            }
            Style::Cast => {
                out.push_str("cast(");
                self.write(args[0], false, out);
                out.push_str(&format!(" as {})", self.sym(name)));
            }
        }
    }

    /// Texts of arguments; in any order they are sorted, literals last.
    fn texts(&mut self, args: &[TermId], any_order: bool, nested: bool) -> Vec<String> {
        let mut texts: Vec<(bool, String)> = args
            .iter()
            .map(|&arg| {
                let mut text = String::new();
                self.write(arg, nested, &mut text);
                (matches!(self.terms.get(arg), Term::Literal { .. }), text)
            })
            .collect();
        if any_order {
            texts.sort_unstable();
        }
        texts.into_iter().map(|(_, text)| text).collect()
    }
}
