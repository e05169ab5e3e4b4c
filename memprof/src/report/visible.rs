//! Names from captures, made visible: for terminals, pages and files alike.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A text with everything in it made visible: control characters and those that turn the direction of writing
/// round or have no width would make one name look like another.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            // Unicode has pictures of the control characters.
            '\0'..='\x1f' => shown.push(char::from_u32(0x2400 + letter as u32).unwrap_or('\u{fffd}')),
            '\x7f' => shown.push('\u{2421}'),
            letter if is_hidden(letter) => {
                let _ = write!(shown, "<U+{:04X}>", letter as u32);
            }
            letter => shown.push(letter),
        }
    }
    Cow::Owned(shown)
}

/// Control characters, line and paragraph separators, and marks of direction and of no width
/// (Unicode's `Bidi_Control` and `Default_Ignorable_Code_Point`, variation selectors aside).
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(letter,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn hidden_characters_become_visible() {
        assert_eq!(visible("plain ünïcödé 名前"), "plain ünïcödé 名前");
        assert_eq!(visible("a\nb\x1b[31m\x7f"), "a␊b␛[31m␡");
        assert_eq!(visible("user\u{202e}gpj.exe\u{2066}"), "user<U+202E>gpj.exe<U+2066>");
        assert_eq!(visible("a\u{200b}b\u{2028}c\u{85}"), "a<U+200B>b<U+2028>c<U+0085>");
    }
}
