//! Pages: reports as single HTML files that fetch nothing.
//!
//! A page is put together from the sources in `html/`, `css/` and `js/` and the data of the report as JSON.
//! A Content-Security-Policy allows the page its own script and style, by their hashes, and nothing else: what
//! a name in a capture might smuggle in would not run. Names reach the page as JSON strings and the document as
//! text nodes only.

mod data;
pub mod flamegraph;
mod heading;
pub mod table;
pub mod text;

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use super::sources::Confidential;
use super::visible;
pub use data::{Loss, Totals};
pub use heading::Heading;

/// Larger pages open slowly everywhere and not at all in some browsers.
pub const LARGEST_PAGE: usize = 20_000_000;

/// Why a page was not made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The page is larger than [`LARGEST_PAGE`], and that was not asked for.
    #[error("the page would have {} MB, and browsers are slow with more than {} MB", size / 1_000_000, LARGEST_PAGE / 1_000_000)]
    TooLarge {
        /// The size of the page in bytes.
        size: usize,
    },
    /// The data could not be written as JSON.
    #[error("cannot write the data of the page")]
    Json(#[from] serde_json::Error),
    /// What was written is no text: cannot be, as all that goes into it is.
    #[error("the page is no text")]
    Text(#[from] std::string::FromUtf8Error),
}

/// The parts of a page that are the same for every capture.
struct Template {
    html: &'static str,
    styles: &'static [&'static str],
    scripts: &'static [&'static str],
}

impl Template {
    /// The whole page.
    fn fill(&self, title: &str, data: &impl Serialize, allow_large: bool) -> Result<String, PageError> {
        let style = self.styles.concat();
        // One scope for all files, apart from that of the page.
        let script = format!("\"use strict\";\n{{\n{}}}\n", self.scripts.concat());
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
            integrity(&script),
            integrity(&style),
        );
        let title = text::escape_html(&visible(title));
        let mut page = Vec::new();
        let mut rest = self.html;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            page.extend(before.as_bytes());
            match name {
                "policy" => page.extend(policy.as_bytes()),
                "version" => page.extend(env!("CARGO_PKG_VERSION").as_bytes()),
                "title" => page.extend(title.as_bytes()),
                "style" => page.extend(style.as_bytes()),
                "script" => page.extend(script.as_bytes()),
                "data" => text::write_json_in_html(data, &mut page)?,
                other => unreachable!("the template asks for {other}"),
            }
            rest = after;
        }
        page.extend(rest.as_bytes());
        if page.len() > LARGEST_PAGE && !allow_large {
            return Err(PageError::TooLarge { size: page.len() });
        }
        Ok(String::from_utf8(page)?)
    }
}

/// A hash as Content-Security-Policy writes it.
fn integrity(source: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut written = String::from("sha256-");
    for group in Sha256::digest(source).chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            if digit <= group.len() {
                written.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
            } else {
                written.push('=');
            }
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_written_in_base64() {
        // printf '' | openssl dgst -sha256 -binary | base64
        assert_eq!(integrity(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }
}
