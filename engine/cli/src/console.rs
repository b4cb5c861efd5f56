//! Where a command writes: data on `out`, everything else on `err`, and how each of them may look.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Result;

/// Width that text is laid out for where the terminal does not tell.
const DEFAULT_WIDTH: usize = 100;

/// How text on one stream may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// A person reads it: the stream is a terminal.
    pub terminal: bool,
    /// ANSI colours are welcome.
    pub color: bool,
    /// Box drawing and other characters beyond ASCII are welcome.
    pub unicode: bool,
    /// Columns.
    pub width: usize,
}

impl Look {
    /// No colour, not a terminal: what files and tests see.
    pub fn plain(width: usize) -> Self {
        Self { terminal: false, color: false, unicode: true, width }
    }
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColorChoice {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// From the text of the setting `color`; anything unknown is `auto` (the settings table refuses it before).
    pub fn from_setting(text: &str) -> Self {
        match text {
            "always" => Self::Always,
            "never" => Self::Never,
            _ => Self::Auto,
        }
    }
}

/// The two streams of a command.
pub struct Console {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    out_look: Look,
    err_look: Look,
}

impl Console {
    /// The streams of the process.
    pub fn of_process(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let unicode = speaks_unicode(env);
        let width_of = |size: Option<(terminal_size::Width, terminal_size::Height)>| {
            let columns = env("COLUMNS").and_then(|c| c.parse::<usize>().ok());
            size.map(|(width, _)| usize::from(width.0)).or(columns).filter(|w| *w >= 20).unwrap_or(DEFAULT_WIDTH)
        };
        let (out, err) = (io::stdout(), io::stderr());
        let out_look = Look {
            terminal: out.is_terminal(),
            color: false,
            unicode,
            width: width_of(terminal_size::terminal_size_of(&out)),
        };
        let err_look = Look {
            terminal: err.is_terminal(),
            color: false,
            unicode,
            width: width_of(terminal_size::terminal_size_of(&err)),
        };
        let mut console = Self { out: Box::new(io::BufWriter::new(out)), err: Box::new(err), out_look, err_look };
        let choice =
            if env("NO_COLOR").is_some_and(|v| !v.is_empty()) { ColorChoice::Never } else { ColorChoice::Auto };
        console.set_color(choice);
        console
    }

    /// Other streams, for tests and embedding.
    pub fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>, out_look: Look, err_look: Look) -> Self {
        Self { out, err, out_look, err_look }
    }

    /// Applies the choice to both streams.
    pub fn set_color(&mut self, choice: ColorChoice) {
        for look in [&mut self.out_look, &mut self.err_look] {
            look.color = match choice {
                ColorChoice::Auto => look.terminal,
                ColorChoice::Always => true,
                ColorChoice::Never => false,
            };
        }
    }

    /// The stream for data.
    pub fn out(&mut self) -> &mut dyn Write {
        &mut *self.out
    }

    /// Writes `value` as data: JSON over several lines.
    pub fn json(&mut self, value: &impl Serialize) -> Result {
        serde_json::to_writer_pretty(&mut *self.out, value)?;
        writeln!(self.out)?;
        Ok(())
    }

    /// How data may look.
    pub fn out_look(&self) -> Look {
        self.out_look
    }

    /// How messages may look.
    pub fn err_look(&self) -> Look {
        self.err_look
    }

    /// Writes lines for people; a message that cannot be written is lost.
    pub fn say(&mut self, text: &str) {
        // Data that was written before shows before.
        let _ = self.out.flush();
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let _ = write!(self.err, "{text}{end}");
        let _ = self.err.flush();
    }

    /// Says `hint: …`.
    pub fn hint(&mut self, text: &str) {
        let line = format!("{} {text}", self.label("hint:", "36"));
        self.say(&line);
    }

    /// Says `warning: …`.
    pub fn warn(&mut self, text: &str) {
        let line = format!("{} {text}", self.label("warning:", "33;1"));
        self.say(&line);
    }

    /// Says `note: …`.
    pub fn note(&mut self, text: &str) {
        let line = format!("{} {text}", self.label("note:", "36"));
        self.say(&line);
    }

    /// Says `error: …`.
    pub fn error(&mut self, text: &str) {
        let line = format!("{} {text}", self.label("error:", "31;1"));
        self.say(&line);
    }

    /// Pushes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn label(&self, word: &str, style: &str) -> String {
        if self.err_look.color { format!("\x1b[{style}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// Unicode unless the locale names another character set.
fn speaks_unicode(env: &dyn Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env(name).filter(|v| !v.is_empty()));
    locale.is_none_or(|l| {
        let l = l.to_ascii_lowercase();
        l.contains("utf-8") || l.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locale_decides_on_unicode() {
        let with = |value: &'static str| speaks_unicode(&move |name| (name == "LANG").then(|| value.to_owned()));
        assert!(with("en_US.UTF-8"));
        assert!(with("C.utf8"));
        assert!(with(""));
        assert!(!with("C"));
        assert!(speaks_unicode(&|_| None));
    }

    #[test]
    fn colour_follows_the_choice() {
        let look = Look::plain(80);
        let mut console =
            Console::new(Box::new(io::sink()), Box::new(io::sink()), look, Look { terminal: true, ..look });
        console.set_color(ColorChoice::Auto);
        assert!(!console.out_look().color);
        assert!(console.err_look().color);
        console.set_color(ColorChoice::Never);
        assert!(!console.err_look().color);
        console.set_color(ColorChoice::Always);
        assert!(console.out_look().color);
    }
}
