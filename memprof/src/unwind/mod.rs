//! `.eh_frame` made into compact rows, and the kernel's tables of them kept filled.
