//! A line for each record, with the columns of `memray transform csv`.

use std::io::{self, Write};

use super::super::thread_label::thread_label;
use super::super::visible;
use crate::heap::{Namer, Profile};

pub(super) fn write(profile: &Profile, namer: &mut Namer<'_>, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(b"allocator,num_allocations,size,tid,thread_name,stack_trace\r\n")?;
    let (mut stack, mut trace) = (Vec::new(), String::new());
    for record in &profile.records {
        namer.stack(record, &mut stack);
        trace.clear();
        for &id in &stack {
            let frame = namer.frame(id);
            if !trace.is_empty() {
                trace.push('|');
            }
            trace.extend([frame.function, ";", frame.file, ";", &frame.line.to_string()]);
        }
        write!(
            out,
            "{},{},{},{},{},{}\r\n",
            record.allocator.name(),
            record.n_allocations,
            record.size,
            // memray reads the number as signed.
            record.thread as i64,
            field(&thread_label(&profile.capture.tables, record.thread)),
            field(&trace)
        )?;
    }
    Ok(())
}

/// What a spreadsheet takes for the beginning of a formula, in some languages also as wide as an ideograph.
const FORMULAS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// A text as a field: with everything in it made visible, and quoted where it has to be.
///
/// One that a spreadsheet would take for a formula gets an apostrophe in front, which makes it a text.
fn field(text: &str) -> String {
    let text = visible(text);
    let is_formula = text.starts_with(FORMULAS);
    let quote = text.contains([',', '"']);
    let mut field = String::with_capacity(text.len() + 3);
    if quote {
        field.push('"');
    }
    if is_formula {
        field.push('\'');
    }
    for character in text.chars() {
        if character == '"' {
            field.push('"');
        }
        field.push(character);
    }
    if quote {
        field.push('"');
    }
    field
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_that_need_it_are_quoted_and_formulas_are_texts() {
        assert_eq!(field("f;a.py;1"), "f;a.py;1");
        assert_eq!(field("f(int, \"x\")"), "\"f(int, \"\"x\"\")\"");
        assert_eq!(field("=HYPERLINK(1)"), "'=HYPERLINK(1)");
        assert_eq!(field("-1,2"), "\"'-1,2\"");
        assert_eq!(field("＝1"), "'＝1");
    }

    #[test]
    fn nothing_in_a_field_acts_on_a_terminal_or_ends_the_line() {
        assert_eq!(field("a\x1b[2J\r\n=1"), "a␛[2J␍␊=1");
        assert_eq!(field("\t=1"), "␉=1");
    }
}
