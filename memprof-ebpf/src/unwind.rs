//! The native walk: from a thread's registers to its first frame, by the rows that the loader has made.
//!
//! A walk is a loop over frames; for each the rule is looked up by its address, in a cache that nearly always has
//! it, and gives the caller's frame. What makes it fast: memory of the stack is read by the page (a read costs the same for
//! 8 bytes as for 2,000), and the arrays are single elements or few, reached without a helper. What makes it pass the verifier: the
//! state lies in map memory, where every value is unknown and iterations look alike; searches have no branches; and
//! the parts are global functions with scalar arguments, which are verified once and not at each call.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user},
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use memprof_common::{
    config::{MAX_NATIVE_FRAMES, MAX_PROCESSES},
    unwind::{
        CACHE, CHUNK, End, Frame, MAPPING_STEPS, MAX_MAPPINGS, MAX_WIDE, Mapping, ROW_STEPS, ReturnProbes,
        Row, Rule, Space, Wide, absent, kind, mapping_kind, wide_base, wide_form, wide_saved,
    },
};

use crate::hash;

/// The loader maps these arrays into its own memory (`BPF_F_MMAPABLE`).
const MMAPABLE: u32 = 1 << 10;

/// Walks that can be under way on one CPU at a time, one preempted by the other.
pub const WALKS: u32 = 4;

/// Bytes of stack that are kept: the words of one frame that a rule can reach, and the page they end in.
const WINDOW: usize = 8192;

/// Bytes of stack that are read at first: those of a shallow stack.
const FIRST_READ: u64 = 4096;

/// Frames of one call of [`unwind_frames`].
const BATCH: u32 = 16;

/// The stack of a function that keeps a frame pointer is no larger, where that is only guessed.
const MAX_GUESSED_FRAME: u64 = 1 << 20;

/// Return probes of nested functions that the kernel allows (`MAX_URETPROBE_DEPTH`).
const MAX_RETURN_PROBES: u32 = 64;

/// All files' rows, see [`Row`]. The loader sets the number of elements.
#[map]
static UNWIND_ROWS: Array<[u32; CHUNK]> = Array::with_max_entries(1, MMAPABLE);

/// For each bucket of each file's text, the number of its first row.
#[map]
static UNWIND_INDEX: Array<[u32; CHUNK]> = Array::with_max_entries(1, MMAPABLE);

/// Rules that do not fit a row.
#[map]
static UNWIND_WIDE: Array<[Wide; MAX_WIDE]> = Array::with_max_entries(1, MMAPABLE);

/// All processes' executable mappings.
#[map]
static UNWIND_MAPPINGS: Array<[Mapping; MAX_MAPPINGS]> = Array::with_max_entries(1, MMAPABLE);

/// Which of them are a process's, by slot: a [`Space`].
#[map]
static UNWIND_SPACES: Array<[u64; MAX_PROCESSES as usize]> = Array::with_max_entries(1, MMAPABLE);

/// Rules by address. An entry is one word, so that none can be torn: bits 0..9 the salt of the process's mappings, 9..33
/// the rule, 33..64 the address without the 16 bits that its place in the array gives.
#[map]
static UNWIND_CACHE: Array<[u64; CACHE]> = Array::with_max_entries(1, MMAPABLE);

/// Pages in which a walk found nothing, by slot and page: bits 48..64 and 0..48. The loader looks at the process's mappings
/// again.
#[map]
static UNWIND_MISSES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// State of walks under way.
#[map]
static UNWIND: PerCpuArray<Walk> = PerCpuArray::with_max_entries(WALKS, 0);

/// Set by the loader before the programs are verified.
#[unsafe(no_mangle)]
static RETURN_PROBES: ReturnProbes =
    ReturnProbes { task_utask: 0, utask_instances: 0, next: 0, stack: 0, original: 0, reserved: 0 };

/// The registers that a walk begins with, and follows.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Registers {
    /// Return address: the instruction pointer after a return. For a probe on an instruction, one more than its address.
    pub address: u64,
    /// Stack pointer.
    pub stack_pointer: u64,
    /// Frame pointer.
    pub frame_pointer: u64,
}

/// A walk. It is its caller's until the caller's set of memory is given back.
#[repr(C)]
pub struct Walk {
    /// The next frame.
    at: Registers,
    /// Mixture of the addresses so far.
    pub hash: u64,
    /// Address of the first byte in `window`.
    window_base: u64,
    /// The address after the last byte that is valid in `window`; 0: none is.
    window_end: u64,
    /// Frames so far.
    pub count: u64,
    /// Frames that were found by the frame pointer, as the last resort, where no rule was known.
    pub guessed: u64,
    /// Address of a page of a stack that was not there when it was last read.
    absent: u64,
    /// The frames, innermost first.
    pub frames: [Frame; MAX_NATIVE_FRAMES as usize],
    /// As large as the mask of a size allows; only [`WINDOW`] bytes are used.
    window: [u64; 2 * WINDOW / 8],
}

/// What a step says, if it is not an [`End`].
const NEXT: u32 = 16;

/// Bits that [`unwind_find`] adds to a rule.
const NO_MAPPING: u32 = 1 << 31;
const CACHEABLE: u32 = 1 << 30;

/// Walks the calling thread's stack in the memory `set` of this CPU, of which nobody else may have the same. The walk's
/// frames, and how it ended; the addresses are mixed into `hash`.
#[inline(always)]
pub fn walk(set: u32, slot: u16, from: Registers, hash: u64) -> Option<(&'static mut Walk, End)> {
    let walk = UNWIND.get_ptr_mut(set)?;
    // SAFETY: this CPU's element; the caller has the set to itself. No reference is kept across the calls below, which reach
    // the walk by its number.
    unsafe {
        (*walk).at = from;
        (*walk).hash = hash;
        (*walk).window_end = 0;
        (*walk).count = 0;
        (*walk).guessed = 0;
    }
    let mut end = if from.stack_pointer & 7 == 0 { NEXT } else { End::Stuck as u32 };
    let mut batch = 0;
    while batch < MAX_NATIVE_FRAMES / BATCH && end == NEXT {
        end = unwind_frames(set, u32::from(slot));
        batch += 1;
    }
    // SAFETY: as above.
    let walk = unsafe { &mut *walk };
    let end = match end {
        0 => End::Complete,
        2 => End::NoMapping,
        3 => End::NoRow,
        4 => End::Inexpressible,
        5 => End::Fault,
        6 => End::Stuck,
        7 => End::NoTable,
        _ => End::Cut,
    };
    if matches!(end, End::NoMapping | End::NoTable) {
        let page = u64::from(slot) << 48 | (walk.at.address.wrapping_sub(1) >> 12) & 0xffff_ffff_ffff;
        // SAFETY: the value is not read.
        if unsafe { UNWIND_MISSES.get(page) }.is_none() {
            let _ = UNWIND_MISSES.insert(page, 1, 0);
        }
    }
    Some((walk, end))
}

/// Walks some frames. Says [`NEXT`] when there may be more, otherwise how the walk ended.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unwind_frames(set: u32, slot: u32) -> u32 {
    let (Some(walk), Some(cache), Some(spaces)) =
        (UNWIND.get_ptr_mut(set), UNWIND_CACHE.get_ptr_mut(0), UNWIND_SPACES.get_ptr(0))
    else {
        return End::Fault as u32;
    };
    // SAFETY: the walk is the caller's of `walk`; the masked indices are in bounds.
    unsafe {
        let space = Space(*spaces.cast::<u64>().add(slot as usize & (MAX_PROCESSES as usize - 1)));
        // In registers as long as nothing odd is met.
        let mut at = (*walk).at;
        let mut result = NEXT;
        for _ in 0..BATCH {
            result = frame(walk, &mut at, set, slot, cache.cast(), space.salt());
            if result != NEXT {
                break;
            }
        }
        (*walk).at = at;
        result
    }
}

/// One frame: keeps it, and goes to its caller.
///
/// # Safety
/// `walk` is the walk of `set`, `cache` points to the element of [`UNWIND_CACHE`].
#[inline(always)]
unsafe fn frame(walk: *mut Walk, at: &mut Registers, set: u32, slot: u32, cache: *mut u64, salt: u64) -> u32 {
    const RULE: u64 = ((1 << Rule::BITS) - 1) << 9;
    // SAFETY: the pointers are valid, the indices masked. The walk is used through the pointer because `unwind_odd` changes
    // it behind the back of any reference.
    unsafe {
        let pc = at.address.wrapping_sub(1);
        let place = (pc ^ pc >> 16) as usize & (CACHE - 1);
        let key = (pc >> 16) << 33 | salt;
        let entry = *cache.add(place);
        let rule = if entry & !RULE == key && salt != 0 && pc >> 47 == 0 {
            Rule((entry >> 9) as u32 & ((1 << Rule::BITS) - 1))
        } else {
            let found = unwind_find(slot, pc);
            if found & NO_MAPPING != 0 {
                // The kernel's trampoline, in place of the return address of a function with a return probe?
                let original = unwind_original(at.stack_pointer.wrapping_sub(8));
                if original != 0 && original != at.address {
                    at.address = original;
                    return NEXT;
                }
                keep(walk, at);
                return End::NoMapping as u32;
            }
            let rule = Rule(found & ((1 << Rule::BITS) - 1));
            if found & CACHEABLE != 0 && salt != 0 && pc >> 47 == 0 {
                *cache.add(place) = key | u64::from(rule.0) << 9;
            }
            rule
        };
        keep(walk, at);
        match rule.kind() {
            kind::STACK => from_stack_pointer(walk, at, rule),
            kind::FRAME => from_frame_pointer(walk, at, rule),
            _ => {
                (*walk).at = *at;
                let result = unwind_odd(set, rule.0);
                *at = (*walk).at;
                result
            }
        }
    }
}

/// Keeps the present frame.
///
/// # Safety
/// `walk` is valid.
#[inline(always)]
unsafe fn keep(walk: *mut Walk, at: &mut Registers) {
    let frame = Frame { address: at.address, stack_pointer: at.stack_pointer };
    // SAFETY: the index is masked; a walk has no more batches than frames.
    unsafe {
        let frames = (&raw mut (*walk).frames).cast::<Frame>();
        let count = (*walk).count;
        *frames.add(count as usize & (MAX_NATIVE_FRAMES as usize - 1)) = frame;
        (*walk).count = count + 1;
        (*walk).hash = hash::mix((*walk).hash, at.address);
    }
}

/// Goes to the caller of a frame that begins a known way above the stack pointer.
///
/// Such a frame is no smaller than a word, and the saved frame pointer lies in it ([`kind::STACK`]); the stack pointer is a
/// multiple of 8, and not below the window. So only the window's end has to be looked at.
///
/// # Safety
/// `walk` is valid.
#[inline(always)]
unsafe fn from_stack_pointer(walk: *mut Walk, at: &mut Registers, rule: Rule) -> u32 {
    let caller = at.stack_pointer.wrapping_add(rule.offset());
    // SAFETY: as promised by the caller.
    unsafe {
        // One less on both sides, so that an address that has wrapped to 0 is outside of an empty window too.
        if caller.wrapping_sub(1) >= (*walk).window_end && !refill(walk, lowest(caller, rule), caller) {
            return End::Fault as u32;
        }
        to_caller(walk, at, caller, rule)
    }
}

/// Goes to the caller of a frame that begins a known way above the frame pointer, which may be anything.
///
/// # Safety
/// `walk` is valid.
#[inline(always)]
unsafe fn from_frame_pointer(walk: *mut Walk, at: &mut Registers, rule: Rule) -> u32 {
    let caller = at.frame_pointer.wrapping_add(rule.offset());
    if caller <= at.stack_pointer || caller & 7 != 0 {
        return End::Stuck as u32;
    }
    // SAFETY: as promised by the caller.
    unsafe {
        let lowest = lowest(caller, rule);
        let outside = lowest < (*walk).window_base || caller > (*walk).window_end;
        if outside && !refill(walk, lowest, caller) {
            return End::Fault as u32;
        }
        to_caller(walk, at, caller, rule)
    }
}

/// The lowest word that a rule needs: the saved frame pointer, if it is saved, or else the return address.
#[inline(always)]
fn lowest(caller: u64, rule: Rule) -> u64 {
    caller.wrapping_sub(if rule.slot() == 0 { 8 } else { rule.slot() << 3 })
}

/// Takes the caller's registers from the window, in which they are.
///
/// # Safety
/// `walk` is valid.
#[inline(always)]
unsafe fn to_caller(walk: *mut Walk, at: &mut Registers, caller: u64, rule: Rule) -> u32 {
    // SAFETY: the indices are masked.
    unsafe {
        let end = caller.wrapping_sub((*walk).window_base);
        let window = (&raw const (*walk).window).cast::<u8>();
        let word =
            |below: u64| *window.add((end.wrapping_sub(below) & (WINDOW as u64 - 8)) as usize).cast::<u64>();
        if rule.slot() != 0 {
            at.frame_pointer = word(rule.slot() << 3);
        }
        at.address = word(8);
    }
    at.stack_pointer = caller;
    if at.address == 0 { End::Complete as u32 } else { NEXT }
}

/// Reads the stack from `lowest` on, to beyond `caller`: a read costs little more for more bytes. Where a page that is
/// not needed is not there, which costs as much as several reads, the page is remembered and not asked for again.
///
/// # Safety
/// `walk` is valid.
#[inline(always)]
unsafe fn refill(walk: *mut Walk, lowest: u64, caller: u64) -> bool {
    // Every stack is read once, most no farther; the more frames there were, the more there will be.
    let size = if unsafe { (*walk).window_end } == 0 { FIRST_READ } else { WINDOW as u64 };
    let needed = (caller.wrapping_sub(1) | 0xfff).wrapping_add(1);
    // SAFETY: as promised by the caller.
    unsafe {
        let mut end = lowest.wrapping_add(size);
        let absent = (*walk).absent;
        if end > absent && lowest < absent {
            end = absent;
        }
        if end <= needed {
            return read(walk, lowest, needed);
        }
        if read(walk, lowest, end) {
            return true;
        }
        (*walk).absent = needed;
        read(walk, lowest, needed)
    }
}

/// Reads the stack into the window.
///
/// # Safety
/// `walk` is valid.
#[inline(always)]
unsafe fn read(walk: *mut Walk, lowest: u64, end: u64) -> bool {
    // SAFETY: the size is masked to what the window has room for; the helper checks the source.
    unsafe {
        let size = end.wrapping_sub(lowest) & (2 * WINDOW as u64 - 1);
        let result =
            bpf_probe_read_user((&raw mut (*walk).window).cast(), size as u32, lowest as *const c_void);
        (*walk).window_base = lowest;
        (*walk).window_end = if result == 0 { end } else { 0 };
        result == 0
    }
}

/// Goes on from a frame whose rule is none of the two usual ones.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unwind_odd(set: u32, rule: u32) -> u32 {
    let Some(walk) = UNWIND.get_ptr_mut(set) else { return End::Fault as u32 };
    // SAFETY: the walk is the caller's of `walk`.
    let walk = unsafe { &mut *walk };
    let rule = Rule(rule);
    match rule.kind() {
        kind::STOP => End::Complete as u32,
        kind::REALIGNED => realigned(walk, rule),
        kind::SIGNAL => signal(walk),
        kind::WIDE => wide(walk, rule.argument()),
        _ => guess(walk, rule.argument()),
    }
}

/// A word of the traced process's memory.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut value = 0_u64;
    // SAFETY: the destination is a local of 8 bytes; the helper checks the source.
    let result = unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const c_void) };
    (result == 0).then_some(value)
}

/// Goes to a caller's frame, of which the frame pointer is known.
#[inline(always)]
fn go_to(walk: &mut Walk, caller: u64, frame_pointer: u64) -> u32 {
    if caller <= walk.at.stack_pointer || caller & 7 != 0 {
        return End::Stuck as u32;
    }
    let Some(address) = word(caller.wrapping_sub(8)) else { return End::Fault as u32 };
    walk.at.address = address;
    walk.at.stack_pointer = caller;
    walk.at.frame_pointer = frame_pointer;
    if address == 0 { End::Complete as u32 } else { NEXT }
}

#[inline(always)]
fn realigned(walk: &mut Walk, rule: Rule) -> u32 {
    let at = walk.at.frame_pointer;
    match (word(at.wrapping_sub(rule.slot() << 3)), word(at)) {
        (Some(caller), Some(frame_pointer)) => go_to(walk, caller, frame_pointer),
        _ => End::Fault as u32,
    }
}

/// The interrupted registers: `struct ucontext` lies at the stack pointer, its `gregs` 40 bytes in, of which rbp is number 10,
/// rsp 15 and rip 16 (`arch/x86/include/uapi/asm/sigcontext.h`). The interrupted frame may be on another stack, so
/// it need not be above.
#[inline(always)]
fn signal(walk: &mut Walk) -> u32 {
    let registers = walk.at.stack_pointer.wrapping_add(40);
    let register = |number: u64| word(registers.wrapping_add(8 * number));
    let (Some(frame_pointer), Some(stack_pointer), Some(address)) =
        (register(10), register(15), register(16))
    else {
        return End::Fault as u32;
    };
    if stack_pointer & 7 != 0 {
        return End::Stuck as u32;
    }
    walk.at.address = address.wrapping_add(1);
    walk.at.stack_pointer = stack_pointer;
    walk.at.frame_pointer = frame_pointer;
    walk.window_end = 0;
    NEXT
}

#[inline(always)]
fn wide(walk: &mut Walk, number: u32) -> u32 {
    let Some(rules) = UNWIND_WIDE.get_ptr(0) else { return End::Fault as u32 };
    // SAFETY: the index is masked.
    let rule = unsafe { *rules.cast::<Wide>().add(number as usize & (MAX_WIDE - 1)) };
    let (stack_pointer, frame_pointer) = (walk.at.stack_pointer, walk.at.frame_pointer);
    let register = |base: u8| if base == wide_base::FRAME { frame_pointer } else { stack_pointer };
    let at = register(rule.base).wrapping_add(i64::from(rule.offset) as u64);
    let caller = match rule.form {
        wide_form::INDIRECT => match word(at) {
            Some(value) => value.wrapping_add(i64::from(rule.addend) as u64),
            None => return End::Fault as u32,
        },
        wide_form::LINKAGE => {
            let pushed = walk.at.address.wrapping_sub(1) & 15 >= u64::from(rule.addend as u32);
            at.wrapping_add(if pushed { 8 } else { 0 })
        }
        _ => at,
    };
    let saved_at = match rule.saved {
        wide_saved::CALLER => caller,
        wide_saved::BASE => register(rule.saved_base),
        _ => return go_to(walk, caller, frame_pointer),
    };
    match word(saved_at.wrapping_add(i64::from(rule.saved_offset) as u64)) {
        Some(frame_pointer) => go_to(walk, caller, frame_pointer),
        None => End::Fault as u32,
    }
}

/// Where no rule is known, the frame pointer is the last resort, if it looks like one.
#[inline(always)]
fn guess(walk: &mut Walk, reason: u32) -> u32 {
    let end = match reason {
        absent::NO_TABLE => return End::NoTable as u32,
        absent::INEXPRESSIBLE => End::Inexpressible,
        _ => End::NoRow,
    };
    let at = walk.at.frame_pointer;
    if at == 0 && reason == absent::NO_ROW {
        // The mark of the outermost frame (System V ABI, AMD64 supplement, 3.4.1), which C libraries without unwind
        // information set.
        return End::Complete as u32;
    }
    if at < walk.at.stack_pointer || at.wrapping_sub(walk.at.stack_pointer) > MAX_GUESSED_FRAME || at & 7 != 0
    {
        return end as u32;
    }
    let Some(frame_pointer) = word(at) else { return end as u32 };
    walk.guessed += 1;
    go_to(walk, at.wrapping_add(16), frame_pointer)
}

/// The rule for an address in a process: bits 0..24; [`NO_MAPPING`] where nothing is known to be there; [`CACHEABLE`] where the answer
/// stays right as long as the process's mappings do.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unwind_find(slot: u32, pc: u64) -> u32 {
    let (Some(spaces), Some(mappings)) = (UNWIND_SPACES.get_ptr(0), UNWIND_MAPPINGS.get_ptr(0)) else {
        return NO_MAPPING;
    };
    // SAFETY: all indices are masked.
    unsafe {
        let space = Space(*spaces.cast::<u64>().add(slot as usize & (MAX_PROCESSES as usize - 1)));
        let mappings = mappings.cast::<Mapping>();
        // The last mapping that begins at or below the address.
        let (mut base, mut left) = (space.first(), space.count());
        for _ in 0..MAPPING_STEPS {
            let half = left >> 1;
            let begin = (*mappings.add((base + half) as usize & (MAX_MAPPINGS - 1))).begin;
            base += half & at_most(begin, pc);
            left -= half;
        }
        let mapping = &*mappings.add(base as usize & (MAX_MAPPINGS - 1));
        if space.count() == 0 || pc < mapping.begin || pc >= mapping.end {
            return NO_MAPPING;
        }
        match mapping.kind {
            mapping_kind::TABLE => {
                let relative = pc.wrapping_sub(mapping.origin);
                row(u64::from(mapping.index).wrapping_add(relative >> 8), relative & 0xff) | CACHEABLE
            }
            mapping_kind::FRAME_POINTER => Rule::FRAME_POINTER.0 | CACHEABLE,
            _ => Rule::NO_TABLE.0,
        }
    }
}

/// All ones where `a` is at most `b`, else 0. The values are addresses or smaller, below 2^63.
#[inline(always)]
fn at_most(a: u64, b: u64) -> u64 {
    !((b.wrapping_sub(a) as i64 >> 63) as u64)
}

/// The rule of the last row at or below an address in a bucket.
#[inline(always)]
fn row(bucket: u64, offset: u64) -> u32 {
    let first = u64::from(element(&UNWIND_INDEX, bucket));
    let end = u64::from(element(&UNWIND_INDEX, bucket.wrapping_add(1)));
    // From the row before the bucket on, which holds where the bucket has none so low.
    let mut base = first.wrapping_sub(1);
    let mut left = end.wrapping_sub(base) & 0x1ff;
    for _ in 0..ROW_STEPS {
        let half = left >> 1;
        let row = Row(element(&UNWIND_ROWS, base.wrapping_add(half)));
        // The row before the bucket is never compared: `half` is 0 only when one row is left.
        base = base.wrapping_add(half & at_most(u64::from(row.offset()), offset));
        left -= half;
    }
    Row(element(&UNWIND_ROWS, base)).rule().0
}

/// A value of an array of chunks; 0, which is no rule, beyond the end.
#[inline(always)]
fn element(array: &Array<[u32; CHUNK]>, number: u64) -> u32 {
    match array.get_ptr((number / CHUNK as u64) as u32) {
        // SAFETY: the index is masked.
        Some(chunk) => unsafe { *chunk.cast::<u32>().add(number as usize & (CHUNK - 1)) },
        None => 0,
    }
}

/// The return address that a return probe has replaced at a place on the stack, or 0. The kernel keeps them for each thread in a
/// list, innermost first (`struct return_instance` in `include/linux/uprobes.h`).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn unwind_original(place: u64) -> u64 {
    // SAFETY: RETURN_PROBES is an initialised static; the volatile read keeps the placeholder from being folded in.
    let offsets = unsafe { core::ptr::read_volatile(&raw const RETURN_PROBES) };
    if offsets.task_utask == 0 {
        return 0;
    }
    let kernel_word = |address: u64, offset: u32| {
        let mut value = 0_u64;
        let from = address.wrapping_add(u64::from(offset)) as *const c_void;
        // SAFETY: the destination is a local of 8 bytes; the helper checks the source.
        unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, from) };
        value
    };
    // SAFETY: no arguments.
    let utask = kernel_word(unsafe { bpf_get_current_task() }, offsets.task_utask);
    if utask == 0 {
        return 0;
    }
    let mut instance = kernel_word(utask, offsets.utask_instances);
    for _ in 0..MAX_RETURN_PROBES {
        if instance == 0 {
            break;
        }
        if kernel_word(instance, offsets.stack) == place {
            return kernel_word(instance, offsets.original);
        }
        instance = kernel_word(instance, offsets.next);
    }
    0
}
