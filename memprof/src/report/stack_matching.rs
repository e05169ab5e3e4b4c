//! Names by which stacks of different builds, releases and machines are the same.
//!
//! Lines move with every change and folders differ between machines: a frame is its function and as much of its
//! file as stays the same.

use crate::heap::Frame;

/// Files that every package has: what they are is told by the folder they stand in.
const COMMON_FILES: [&str; 5] = ["__init__.py", "__main__.py", "mod.rs", "lib.rs", "main.rs"];

/// A frame without line, folders and what a linker adds.
pub(super) fn matching_name(frame: Frame<'_>) -> Frame<'_> {
    Frame { function: without_hash(frame.function), file: lasting_part(frame.file), line: 0 }
}

/// The part of a path that is the same wherever a file is installed.
pub(super) fn lasting_part(file: &str) -> &str {
    if file.starts_with('<') {
        return file;
    }
    for folder in ["/site-packages/", "/dist-packages/"] {
        if let Some((_, within)) = file.rsplit_once(folder) {
            return within;
        }
    }
    if let Some(within) = within_standard_library(file) {
        return within;
    }
    let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
    if COMMON_FILES.contains(&name) && !folder.is_empty() {
        let parent = folder.rfind('/').map_or(0, |slash| slash + 1);
        return &file[parent..];
    }
    without_version(name)
}

/// What follows the last `/python3.11/` or the like.
fn within_standard_library(file: &str) -> Option<&str> {
    file.rmatch_indices("/python").find_map(|(before, folder)| {
        let (version, within) = file[before + folder.len()..].split_once('/')?;
        let is_version = version.starts_with(|first: char| first.is_ascii_digit())
            && version.chars().all(|letter| letter.is_ascii_digit() || letter == '.' || letter == 't');
        is_version.then_some(within)
    })
}

/// `libsqlite3.so` of `libsqlite3.so.0.8.6`.
fn without_version(name: &str) -> &str {
    name.find(".so.").map_or(name, |end| &name[..end + ".so".len()])
}

/// A Rust function without the hash of its build: `::h` and sixteen digits.
fn without_hash(function: &str) -> &str {
    match function.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()) => name,
        _ => function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_match_wherever_they_are_installed() {
        for (file, lasting) in [
            ("/home/ann/shop/basket.py", "basket.py"),
            ("basket.py", "basket.py"),
            ("/srv/shop/__init__.py", "shop/__init__.py"),
            ("/shop/__init__.py", "shop/__init__.py"),
            ("/usr/lib/python3.11/json/decoder.py", "json/decoder.py"),
            ("/opt/python3.13t/lib/python3.13t/json/decoder.py", "json/decoder.py"),
            ("/usr/lib/python3/dist-packages/yaml/loader.py", "yaml/loader.py"),
            ("/venv/lib/python3.12/site-packages/numpy/core.py", "numpy/core.py"),
            ("/srv/python-shop/basket.py", "basket.py"),
            ("<frozen importlib._bootstrap>", "<frozen importlib._bootstrap>"),
            ("/usr/lib/x86_64-linux-gnu/libsqlite3.so.0.8.6", "libsqlite3.so"),
            ("", ""),
        ] {
            assert_eq!(lasting_part(file), lasting, "{file}");
        }
    }

    #[test]
    fn the_hash_of_a_build_is_no_part_of_a_name() {
        assert_eq!(without_hash("alloc::vec::Vec<T>::push::h0123456789abcdef"), "alloc::vec::Vec<T>::push");
        assert_eq!(without_hash("ns::h0123"), "ns::h0123");
        assert_eq!(without_hash("ns::hello_world_12345"), "ns::hello_world_12345");
    }
}
