//! Text that is put together at compile time: the JSON of the custom section.

/// The longest description of one function, in bytes.
const MOST: usize = 4096;

/// Bytes of a constant.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; MOST],
    /// How many there are.
    pub len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Text {
    /// No text.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; MOST], len: 0 }
    }

    /// The text of `value`.
    #[must_use]
    pub const fn of(value: &str) -> Self {
        Self::new().raw(value)
    }

    /// Adds `value` as it is.
    #[must_use]
    pub const fn raw(mut self, value: &str) -> Self {
        let value = value.as_bytes();
        let mut at = 0;
        while at < value.len() {
            self.bytes[self.len] = value[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    /// Adds `value` within a JSON string.
    #[must_use]
    pub const fn escaped(mut self, value: &str) -> Self {
        let value = value.as_bytes();
        let mut at = 0;
        while at < value.len() {
            let byte = value[at];
            if byte == b'"' || byte == b'\\' {
                self.bytes[self.len] = b'\\';
                self.len += 1;
            }
            self.bytes[self.len] = if byte < 0x20 { b' ' } else { byte };
            self.len += 1;
            at += 1;
        }
        self
    }

    /// Adds another text.
    #[must_use]
    pub const fn then(mut self, other: &Self) -> Self {
        let mut at = 0;
        while at < other.len {
            self.bytes[self.len] = other.bytes[at];
            self.len += 1;
            at += 1;
        }
        self
    }

    /// Adds a comma unless the text ends with an opening bracket.
    #[must_use]
    pub const fn comma(self) -> Self {
        if self.len > 0 && self.bytes[self.len - 1] == b'[' {
            self
        } else {
            self.raw(",")
        }
    }

    /// Adds a number below 1000.
    #[must_use]
    pub const fn number(mut self, value: i16) -> Self {
        let mut rest = value.unsigned_abs();
        if value < 0 {
            self = self.raw("-");
        }
        let mut unit = 100;
        let mut begun = false;
        while unit > 0 {
            let digit = rest / unit;
            rest %= unit;
            if digit > 0 || begun || unit == 1 {
                self.bytes[self.len] = b'0' + digit as u8;
                self.len += 1;
                begun = true;
            }
            unit /= 10;
        }
        self
    }

    /// The bytes as an array; `N` is `self.len`.
    #[must_use]
    pub const fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let mut at = 0;
        while at < N {
            bytes[at] = self.bytes[at];
            at += 1;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn texts_are_put_together() {
        const TEXT: Text = Text::of("[").comma().number(-12).comma().number(0).raw("]").escaped(" \"a\\b\"\n");
        assert_eq!(std::str::from_utf8(&TEXT.array::<{ TEXT.len }>()).unwrap(), "[-12,0] \\\"a\\\\b\\\" ");
    }
}
