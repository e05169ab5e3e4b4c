//! Names from captures, made safe in HTML.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// A text as the content of an HTML element or of a quoted attribute.
pub fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Appends JSON as the content of a script element: nothing in it can end the element or begin a comment.
pub fn write_json_in_html(data: &impl Serialize, out: &mut Vec<u8>) -> serde_json::Result<()> {
    data.serialize(&mut Serializer::with_formatter(out, InScript))
}

/// Writes `<` and the separators, which stand in strings only, by the escapes that JSON allows for each.
struct InScript;

impl Formatter for InScript {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '\u{2028}', '\u{2029}']) {
            out.write_all(&rest.as_bytes()[..at])?;
            let mut after = rest[at..].chars();
            let letter = after.next().map_or(0, u32::from);
            write!(out, "\\u{letter:04x}")?;
            rest = after.as_str();
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_cannot_leave_its_script_element() {
        let name = "</script><!--\u{2028}\u{2029}\"\\ü<";
        let mut written = Vec::new();
        write_json_in_html(&name, &mut written).unwrap();
        let embedded = String::from_utf8(written).unwrap();
        assert!(!embedded.contains(['<', '\u{2028}', '\u{2029}']), "{embedded}");
        assert_eq!(serde_json::from_str::<String>(&embedded).unwrap(), name);
    }
}
