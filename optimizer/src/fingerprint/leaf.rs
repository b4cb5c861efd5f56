//! Relations without inputs, and small terms that both lowerings share.

use super::block::AtomId;
use super::canon::{Canon, Lowered};
use super::intern::quoted;
use super::term::{Key, Style, TermId};

impl Canon {
    /// Rows of `atom` with columns called `names`.
    pub(crate) fn named_columns(&mut self, atom: AtomId, names: &[String]) -> Lowered {
        let keys: Vec<Option<Key>> = names.iter().map(|name| Some(self.plain_key(&quoted(name)))).collect();
        self.over(atom, &keys)
    }

    /// `rows` rows (0 or 1) of no source.
    pub(crate) fn no_source(&mut self, rows: usize, width: usize) -> Lowered {
        let kind = if rows == 0 { "no rows" } else { "one row" };
        let atom = self.define(kind, [kind.to_owned(), kind.to_owned()]);
        let names: Vec<String> = (1..=width).map(|i| format!("column{i}")).collect();
        self.named_columns(atom, &names)
    }

    /// Literal rows.
    pub(crate) fn values(&mut self, rows: &[Vec<TermId>], width: usize) -> Lowered {
        let mut texts = [String::from("values"), String::from("values")];
        for row in rows {
            for &cell in row {
                if let super::term::Term::Literal { text, ty } = self.terms.get(cell) {
                    let (text, ty) = (self.symbols.text(*text), self.symbols.text(*ty));
                    texts[0].push_str(&format!(" {text}:{ty}"));
                    texts[1].push_str(&format!(" ?:{ty}"));
                }
            }
            texts.iter_mut().for_each(|text| text.push(';'));
        }
        let atom = self.define("values", texts);
        let names: Vec<String> = (1..=width).map(|i| format!("column{i}")).collect();
        self.named_columns(atom, &names)
    }

    /// The rows of the previous step of the recursive query `depth` levels out.
    pub(crate) fn work_table(&mut self, depth: Option<usize>, names: &[String]) -> Lowered {
        let Some(depth) = depth else { return Lowered::unknown(names.len()) };
        let text = format!("previous step {depth}");
        let atom = self.define("previous step", [text.clone(), text]);
        self.named_columns(atom, names)
    }

    /// The name of the value of a scalar subquery.
    pub(crate) fn scalar_subquery(&mut self, mut rows: Lowered, columns: &[Option<TermId>]) -> Option<Key> {
        let sealed = self.seal(&mut rows, columns, &[])?;
        let key = sealed.keys.first().copied().flatten()?;
        let names = self.key_texts(key);
        let [exact, blind] =
            [0, 1].map(|mode| format!("value({} of {})", names[mode], self.symbols.text(sealed.described[mode])));
        Some(self.long_key(exact, blind))
    }

    /// `call` over a window.
    pub(crate) fn over_window(
        &mut self,
        call: TermId,
        partition: Vec<TermId>,
        order: Vec<TermId>,
        frame: &str,
    ) -> TermId {
        let frame = self.plain_key(&frame.to_lowercase());
        let frame = self.terms.opaque(frame);
        let parts = [
            ("partition by", Style::CallAny, partition),
            ("order by", Style::Call, order),
            ("frame", Style::Call, vec![frame]),
        ];
        self.function("over", &[call], &parts)
    }
}
