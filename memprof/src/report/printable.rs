//! Names from captures, made fit for a terminal.

use std::fmt::{self, Write};

/// A text in which control characters are written as escapes, so that a name can neither move the cursor
/// nor break a line.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_harmful(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

/// Control characters, and those that change the direction of what follows.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

#[cfg(test)]
mod tests {
    use super::Printable;

    #[test]
    fn escape_sequences_and_line_breaks_are_shown_and_not_obeyed() {
        assert_eq!(Printable("a\u{1b}[2J\nb\u{202e}").to_string(), "a\\u{1b}[2J\\u{a}b\\u{202e}");
        assert_eq!(Printable("größe <b>").to_string(), "größe <b>");
    }
}
