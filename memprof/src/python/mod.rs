//! CPython: version and offsets of an interpreter, code objects, line tables, strings.
