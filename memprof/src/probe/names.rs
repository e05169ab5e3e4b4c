//! Under which names allocator functions are defined, and what each is.
//!
//! Sources: the headers of glibc, musl, jemalloc 5 (`jemalloc.h`), gperftools (`tcmalloc.h`) and mimalloc 2 (`mimalloc.h`); the
//! Itanium C++ ABI for the operators; `library/alloc/src/alloc.rs` of Rust.

use std::{collections::HashMap, sync::LazyLock};

use memprof_common::function::Function;

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// An allocator's own function.
    Allocator,
    /// An inner name of a C library, of use only where the plain one was left out.
    Inner,
    /// A language's function that mostly hands on to an allocator's, and is probed only where it does not.
    Language,
}

/// What a name means. Of several names for one address the one that compares least is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meaning {
    /// What stands behind it.
    pub layer: Layer,
    /// Its place in the list.
    place: usize,
    /// What it does.
    pub function: Function,
}

/// The functions of C. Where several names stand for one address (glibc: `memalign` and `aligned_alloc` up to 2.37) calls by
/// either look alike.
const C: [(&str, Function); 13] = [
    ("malloc", Function::Malloc),
    ("calloc", Function::Calloc),
    ("realloc", Function::Realloc),
    ("reallocarray", Function::Reallocarray),
    ("posix_memalign", Function::PosixMemalign),
    ("aligned_alloc", Function::AlignedAlloc),
    ("memalign", Function::Memalign),
    ("valloc", Function::Valloc),
    ("pvalloc", Function::Pvalloc),
    ("free", Function::Free),
    ("cfree", Function::Free),
    ("free_sized", Function::Free),
    ("free_aligned_sized", Function::Free),
];

/// Before the names of C and of jemalloc, where a library does not take the plain names: as jemalloc is usually configured,
/// as Rust's crate of it is, gperftools, mimalloc.
const PREFIXES: [&str; 5] = ["", "je_", "_rjem_", "tc_", "mi_"];

/// Mappings. They have no prefixes.
const MAPPINGS: [(&str, Function); 4] = [
    ("mmap", Function::Mmap),
    ("mmap64", Function::Mmap),
    ("mremap", Function::Mremap),
    ("munmap", Function::Munmap),
];

/// What jemalloc has besides. The first argument of the allocating ones is the size, of the others the block.
const JEMALLOC: [(&str, Function); 4] = [
    ("mallocx", Function::Malloc),
    ("rallocx", Function::Realloc),
    ("dallocx", Function::Free),
    ("sdallocx", Function::Free),
];

/// What gperftools and mimalloc have besides.
const OTHERS: [(&str, Function); 38] = [
    ("tc_malloc_skip_new_handler", Function::Malloc),
    ("tc_new", Function::Malloc),
    ("tc_new_nothrow", Function::Malloc),
    ("tc_new_aligned", Function::Malloc),
    ("tc_new_aligned_nothrow", Function::Malloc),
    ("tc_newarray", Function::Malloc),
    ("tc_newarray_nothrow", Function::Malloc),
    ("tc_newarray_aligned", Function::Malloc),
    ("tc_newarray_aligned_nothrow", Function::Malloc),
    ("tc_delete", Function::Free),
    ("tc_delete_sized", Function::Free),
    ("tc_delete_nothrow", Function::Free),
    ("tc_delete_aligned", Function::Free),
    ("tc_delete_sized_aligned", Function::Free),
    ("mi_malloc_small", Function::Malloc),
    ("mi_zalloc", Function::Malloc),
    ("mi_zalloc_small", Function::Malloc),
    ("mi_malloc_aligned", Function::Malloc),
    ("mi_zalloc_aligned", Function::Malloc),
    ("mi_new", Function::Malloc),
    ("mi_new_nothrow", Function::Malloc),
    ("mi_new_aligned", Function::Malloc),
    ("mi_new_aligned_nothrow", Function::Malloc),
    ("mi_mallocn", Function::Calloc),
    ("mi_calloc_aligned", Function::Calloc),
    ("mi_new_n", Function::Calloc),
    ("mi_rezalloc", Function::Realloc),
    ("mi_rezalloc_aligned", Function::Realloc),
    ("mi_realloc_aligned", Function::Realloc),
    ("mi_new_realloc", Function::Realloc),
    ("mi_reallocf", Function::Realloc),
    ("mi_reallocn", Function::Reallocarray),
    ("mi_recalloc", Function::Reallocarray),
    ("mi_recalloc_aligned", Function::Reallocarray),
    ("mi_new_reallocn", Function::Reallocarray),
    ("mi_free_size", Function::Free),
    ("mi_free_size_aligned", Function::Free),
    ("mi_free_aligned", Function::Free),
];

/// A static glibc has these where the plain names are only weak and were left out.
const INNER: [(&str, Function); 5] = [
    ("__libc_malloc", Function::Malloc),
    ("__libc_calloc", Function::Calloc),
    ("__libc_realloc", Function::Realloc),
    ("__libc_memalign", Function::Memalign),
    ("__libc_free", Function::Free),
];

/// Operators `new`, `new[]`, `delete` and `delete[]`: of a size, of an alignment, that throw nothing.
const OPERATORS: [(&str, Function); 20] = [
    ("_Znwm", Function::Malloc),
    ("_ZnwmRKSt9nothrow_t", Function::Malloc),
    ("_ZnwmSt11align_val_t", Function::Malloc),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", Function::Malloc),
    ("_Znam", Function::Malloc),
    ("_ZnamRKSt9nothrow_t", Function::Malloc),
    ("_ZnamSt11align_val_t", Function::Malloc),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", Function::Malloc),
    ("_ZdlPv", Function::Free),
    ("_ZdlPvm", Function::Free),
    ("_ZdlPvRKSt9nothrow_t", Function::Free),
    ("_ZdlPvSt11align_val_t", Function::Free),
    ("_ZdlPvmSt11align_val_t", Function::Free),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", Function::Free),
    ("_ZdaPv", Function::Free),
    ("_ZdaPvm", Function::Free),
    ("_ZdaPvRKSt9nothrow_t", Function::Free),
    ("_ZdaPvSt11align_val_t", Function::Free),
    ("_ZdaPvmSt11align_val_t", Function::Free),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", Function::Free),
];

/// What every allocation of a Rust program goes through, whatever its allocator is.
const RUST: [(&str, Function); 4] = [
    ("__rust_alloc", Function::Malloc),
    ("__rust_alloc_zeroed", Function::Malloc),
    ("__rust_realloc", Function::RustRealloc),
    ("__rust_dealloc", Function::Free),
];

/// Rust 1.87 and newer put the four into a crate of the name `__rustc`, whose hash stands before it.
const RUST_CRATE: (&[u8], &[u8]) = (b"_RNvCs", b"_7___rustc");

static NAMES: LazyLock<HashMap<String, Meaning>> = LazyLock::new(|| {
    let prefixed = PREFIXES.iter().flat_map(|prefix| {
        C.iter().chain(&JEMALLOC).map(move |(name, function)| (format!("{prefix}{name}"), *function))
    });
    let plain = |list: &'static [(&'static str, Function)]| {
        list.iter().map(|(name, function)| ((*name).to_owned(), *function))
    };
    let own = prefixed.chain(plain(&MAPPINGS)).chain(plain(&OTHERS)).map(|entry| (Layer::Allocator, entry));
    let inner = plain(&INNER).map(|entry| (Layer::Inner, entry));
    let language = plain(&OPERATORS).chain(plain(&RUST)).map(|entry| (Layer::Language, entry));
    let all = own.chain(inner).chain(language);
    all.enumerate()
        .map(|(place, (layer, (name, function)))| (name, Meaning { layer, place, function }))
        .collect()
});

/// What a symbol of this name is, if it is an allocator function; with the name as the list has it.
pub fn meaning(name: &[u8]) -> Option<(&'static str, Meaning)> {
    let name = str::from_utf8(rust_name(name).unwrap_or(name)).ok()?;
    NAMES.get_key_value(name).map(|(name, meaning)| (name.as_str(), *meaning))
}

/// The name within Rust's crate of shims: `_RNvCs1234_7___rustc12___rust_alloc` is `__rust_alloc`.
fn rust_name(name: &[u8]) -> Option<&[u8]> {
    let (before, krate) = RUST_CRATE;
    let rest = name.strip_prefix(before)?;
    let hash = rest.iter().position(|byte| !byte.is_ascii_alphanumeric())?;
    let rest = rest[hash..].strip_prefix(krate)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // An underscore separates the length from a name that begins with one.
    rest[digits..].strip_prefix(b"_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Option<Function> {
        meaning(name.as_bytes()).map(|(_, meaning)| meaning.function)
    }

    #[test]
    fn names_with_and_without_prefix_are_known() {
        for name in ["malloc", "je_malloc", "_rjem_mallocx", "tc_new", "mi_zalloc_aligned", "_Znwm"] {
            assert_eq!(function(name), Some(Function::Malloc), "{name}");
        }
        for name in ["free", "sdallocx", "_rjem_sdallocx", "mi_free", "tc_cfree", "_ZdaPvm"] {
            assert_eq!(function(name), Some(Function::Free), "{name}");
        }
        for name in ["je_mmap", "xmalloc", "malloc_", "", "_RNvCs", "_RNvCs1_7___rustc"] {
            assert_eq!(function(name), None, "{name}");
        }
    }

    #[test]
    fn shims_of_rust_are_known_in_both_manglings() {
        assert_eq!(function("__rust_realloc"), Some(Function::RustRealloc));
        assert_eq!(function("_RNvCsdBezzDwma51_7___rustc14___rust_realloc"), Some(Function::RustRealloc));
        assert_eq!(function("_RNvCsdBezzDwma51_7___rustc12___rust_alloc"), Some(Function::Malloc));
        assert_eq!(function("_RNvCsdBezzDwma51_7___rustc11___rdl_alloc"), None);
    }

    #[test]
    fn an_allocators_own_name_is_preferred() {
        let order = |name: &[u8]| meaning(name).unwrap().1;
        assert!(order(b"malloc") < order(b"tc_malloc"));
        assert!(order(b"tc_new") < order(b"_Znwm"));
        assert!(order(b"free") < order(b"__libc_free"));
    }
}
