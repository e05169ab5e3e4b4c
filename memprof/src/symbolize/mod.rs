//! Addresses made into functions, files and lines, on files kept open since they were first seen.
