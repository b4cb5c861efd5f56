//! `${VAR}` and `${VAR:-default}` in strings; `$${` stands for `${`.

/// Something wrong with a variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The characters in question, e.g. `${HOME`.
    pub(crate) source: String,
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: String,
}

/// Replaces variables by their values. What cannot be replaced stays as it is and is in the list.
pub(crate) fn substitute(text: &str, env: &dyn Fn(&str) -> Option<String>) -> (String, Vec<Problem>) {
    let (mut out, mut problems, mut rest) = (String::with_capacity(text.len()), Vec::new(), text);
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let Some(end) = rest[at..].find('}').map(|i| at + i) else {
            problems.push(Problem {
                source: rest[at..].to_owned(),
                message: "`${` has no `}`".to_owned(),
                hint: "write `${NAME}` or `${NAME:-default}`; `$${` stands for a plain `${`".to_owned(),
            });
            out.push_str(&rest[at..]);
            return (out, problems);
        };
        let source = &rest[at..=end];
        let inner = &rest[at + 2..end];
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(n, d)| (n, Some(d)));
        let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !valid {
            problems.push(Problem {
                source: source.to_owned(),
                message: format!("`{}` is not the name of a variable", name.escape_debug()),
                hint: "write `${NAME}` or `${NAME:-default}`; `$${` stands for a plain `${`".to_owned(),
            });
            out.push_str(source);
        } else {
            // As in a shell: with `:-` an empty variable takes the default too.
            match (env(name), default) {
                (Some(value), Some(default)) if value.is_empty() => out.push_str(default),
                (Some(value), _) => out.push_str(&value),
                (None, Some(default)) => out.push_str(default),
                (None, None) => {
                    problems.push(Problem {
                        source: source.to_owned(),
                        message: format!("the environment variable `{name}` is not set"),
                        hint: format!("set it, or give a default: `${{{name}:-…}}`"),
                    });
                    out.push_str(source);
                }
            }
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    (out, problems)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/ada".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables() {
        for (text, expected) in [
            ("plain $x $", "plain $x $"),
            ("${HOME}/x", "/home/ada/x"),
            ("a${NONE:-b}c", "abc"),
            ("${EMPTY:-b}|${EMPTY}", "b|"),
            ("$${HOME}", "${HOME}"),
            ("${HOME}${HOME}", "/home/ada/home/ada"),
            ("${NONE:-}", ""),
        ] {
            assert_eq!(substitute(text, &env), (expected.to_owned(), vec![]), "{text}");
        }
        for (text, message) in [
            ("a ${NONE} b", "the environment variable `NONE` is not set"),
            ("${", "`${` has no `}`"),
            ("${a b}", "`a b` is not the name of a variable"),
            ("${}", "`` is not the name of a variable"),
        ] {
            let (out, problems) = substitute(text, &env);
            assert_eq!((out.as_str(), problems[0].message.as_str()), (text, message));
            assert!(text.contains(&problems[0].source));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[${}a-zé:-]{0,24}") {
            let _ = substitute(&text, &env);
        }

        #[test]
        fn text_without_dollar_is_unchanged(text in "[^$]*") {
            prop_assert_eq!(substitute(&text, &env), (text.clone(), vec![]));
        }
    }
}
