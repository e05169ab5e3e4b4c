//! The 64-bit hash that names a stack.

/// Mixes one word in. Multiplication by an odd constant and a fold of the high half are enough to keep the few
/// million stacks of a process apart: the chance of any two meeting is about n²/2⁶⁵.
#[inline(always)]
pub fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    product ^ (product >> 29)
}
