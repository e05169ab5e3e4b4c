//! Writing pages.

use anyhow::Context;

use super::destination::Destination;
use crate::report::page::PageError;

/// Writes a page where one was made; otherwise says what can be done about it.
pub(super) fn write_page(destination: &Destination, page: Result<String, PageError>) -> anyhow::Result<()> {
    let too_large = matches!(page, Err(PageError::TooLarge { .. }));
    let page = if too_large { page.context("add --force-large to write it all the same")? } else { page? };
    destination.write(|out| out.write_all(page.as_bytes()))
}
