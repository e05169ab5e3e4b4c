//! Code objects, read and sent when they are seen for the first time, so that a freed and reused address can
//! never name the wrong function.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns,
        generated::{bpf_get_attach_cookie, bpf_get_smp_processor_id, bpf_probe_read_user},
    },
    macros::uprobe,
    programs::ProbeContext,
};
use aya_log_ebpf::debug;
use memprof_common::{
    config::MAX_PYTHON_FRAMES,
    counter::Counter,
    event::{Chunk, Code, Kind, LONG_CHUNK, MAX_TEXT, SHORT_CHUNK, Text, field},
    function::Cookie,
    process::{Process, SeenCode},
    python::ABSENT,
};

use crate::{
    atomic,
    emit::{self, NO_WAKEUP},
    hash,
    maps::{EVENTS, PROCESS_STATES, PROCESSES, SEEN_CODE, STACK},
    user,
};

/// What stands for a code object: the address alone is used again by other processes and programs.
#[inline(always)]
fn key(slot: u32, address: u64) -> Option<u64> {
    let state = PROCESS_STATES.get(slot)?;
    Some(hash::mix(hash::mix(address, state.generation), u64::from(slot)))
}

/// Frames that are resolved by one call of [`resolve_some`].
pub const STRIDE: u32 = 32;

/// Resolves frames from `first` to before `end`, at most [`STRIDE`]. See `python::stride` for why.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn resolve_some(set: u32, slot: u32, first: u32, end: u32, tid: u32) -> u32 {
    for step in 0..STRIDE {
        let index = first.wrapping_add(step);
        if index >= end {
            break;
        }
        resolve(set, slot, index, tid);
    }
    0
}

/// Puts the id of a code object in the place of its address in frame `index` of a walk's record, sending the
/// object if it is new. Checked by the verifier on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn resolve(set: u32, slot: u32, index: u32, tid: u32) -> u32 {
    let Some(record) = STACK.get_ptr_mut(set) else { return 0 };
    // SAFETY: this CPU's element, held by this walk; masked to the array.
    let frame =
        unsafe { &mut *(*record).python.as_mut_ptr().add((index & (MAX_PYTHON_FRAMES - 1)) as usize) };
    let address = frame.code;
    if address == 0 {
        return 0;
    }
    let Some(key) = key(slot, address) else { return 0 };
    // SAFETY: an element is written once, when it is made.
    if let Some(seen) = unsafe { SEEN_CODE.get(key) } {
        frame.code = seen.id;
        return 0;
    }
    // SAFETY: no pointer is passed.
    let id = unsafe {
        hash::mix(hash::mix(bpf_ktime_get_ns(), address), u64::from(bpf_get_smp_processor_id())) | 1
    };
    frame.code = id;
    let Some(process) = PROCESSES.get(slot) else { return 0 };
    let seen = SeenCode { id, slot: u64::from(slot) };
    if send(process, id, address, slot, tid) && SEEN_CODE.insert(key, seen, 0).is_err() {
        // Whether this object dies can no longer be told from the table: no stack with it may be remembered.
        forget_stacks(slot);
    }
    0
}

#[inline(always)]
fn send(process: &Process, id: u64, address: u64, slot: u32, tid: u32) -> bool {
    let layout = &process.layout;
    let mut texts = [Text::default(); field::COUNT];
    let mut faults = 0;
    let mut lost = false;
    let offsets = [layout.code_name, layout.code_filename, layout.code_qualname, layout.code_linetable];
    for index in 0..field::COUNT {
        if offsets[index] == ABSENT {
            continue;
        }
        let object = user::read::<u64>(address.wrapping_add(u64::from(offsets[index]))).unwrap_or(0);
        let described =
            if index == field::LINETABLE { bytes(process, object) } else { unicode(process, object) };
        let Some((mut text, data)) = described else {
            faults |= 1 << index;
            continue;
        };
        let tag = u64::from(slot) | (index as u64) << 16 | u64::from(tid) << 32;
        text.sent = send_text(id, data, text.length, tag);
        lost |= text.sent == LOST;
        if text.sent < text.length && text.length <= MAX_TEXT {
            faults |= 1 << index;
        }
        texts[index] = text;
    }
    let first_line = user::read::<i32>(address.wrapping_add(u64::from(layout.code_firstlineno))).unwrap_or(0);
    let header = emit::header(Kind::Code, 0, slot as u16, tid);
    if lost {
        emit::count(slot as u16, Counter::LostCode);
        return false;
    }
    emit::record(Code { header, id, address, first_line, faults, texts }, slot as u16, Counter::LostCode)
}

/// Length and place of a bytes object's data.
#[inline(always)]
fn bytes(process: &Process, object: u64) -> Option<(Text, u64)> {
    if object == 0 {
        return None;
    }
    let length = user::read::<u64>(object.wrapping_add(u64::from(process.layout.bytes_size)))?;
    let length = if length > u64::from(u32::MAX) { u32::MAX } else { length as u32 };
    Some((Text { length, ..Text::default() }, object.wrapping_add(u64::from(process.layout.bytes_data))))
}

/// Encoding, length and place of a string's data (`Include/cpython/unicodeobject.h`).
#[inline(always)]
fn unicode(process: &Process, object: u64) -> Option<(Text, u64)> {
    if object == 0 {
        return None;
    }
    let layout = &process.layout;
    let points = user::read::<u64>(object.wrapping_add(u64::from(layout.unicode_length)))?;
    let state = user::read::<u32>(object.wrapping_add(u64::from(layout.unicode_state)))?;
    let kind = state >> (layout.unicode_kind_shift & 31) & 7;
    let compact = state >> (layout.unicode_compact_shift & 31) & 1;
    let ascii = state >> (layout.unicode_ascii_shift & 31) & 1;
    let length = points.wrapping_mul(u64::from(kind));
    if points > u64::from(u32::MAX) || length > u64::from(u32::MAX) {
        return None;
    }
    let data = if compact == 0 {
        user::read::<u64>(object.wrapping_add(u64::from(layout.unicode_data_pointer)))?
    } else if ascii != 0 {
        object.wrapping_add(u64::from(layout.unicode_ascii_data))
    } else {
        object.wrapping_add(u64::from(layout.unicode_compact_data))
    };
    Some((Text { length: length as u32, sent: 0, kind, ascii }, data))
}

/// Result of [`send_text`] where the buffer had no room.
const LOST: u32 = u32::MAX;

/// The chunk was sent.
const WHOLE: u32 = 0;
/// The memory could not be read.
const FAULT: u32 = 1;
/// The buffer had no room.
const FULL: u32 = 2;

/// Sends a string's bytes in chunks and returns how many were sent, or [`LOST`]. `tag` holds slot, field and thread.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_text(id: u64, data: u64, length: u32, tag: u64) -> u32 {
    let length = if length > MAX_TEXT { MAX_TEXT } else { length };
    if length == 0 {
        return 0;
    }
    if length as usize <= SHORT_CHUNK {
        return match send_chunk::<SHORT_CHUNK>(id, data, length, 0, tag) {
            WHOLE => length,
            FAULT => 0,
            _ => LOST,
        };
    }
    for index in 0..MAX_TEXT / LONG_CHUNK as u32 {
        let offset = index * LONG_CHUNK as u32;
        if offset >= length {
            break;
        }
        match send_long_chunk(id, data, length, index, tag) {
            WHOLE => {}
            FAULT => return offset,
            _ => return LOST,
        }
    }
    length
}

/// Sends chunk `index` of a string longer than one chunk. Checked by the verifier on its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn send_long_chunk(id: u64, data: u64, length: u32, index: u32, tag: u64) -> u32 {
    let offset = index.wrapping_mul(LONG_CHUNK as u32);
    let rest = length.wrapping_sub(offset);
    let size = if rest > LONG_CHUNK as u32 { LONG_CHUNK as u32 } else { rest };
    send_chunk::<LONG_CHUNK>(id, data.wrapping_add(u64::from(offset)), size, offset, tag)
}

#[repr(C)]
struct Piece<const SIZE: usize> {
    chunk: Chunk,
    bytes: [u8; SIZE],
}

/// Reads straight into the ring buffer: memory shared by the programs of a CPU would have to be guarded.
#[inline(always)]
fn send_chunk<const SIZE: usize>(id: u64, data: u64, size: u32, offset: u32, tag: u64) -> u32 {
    let Some(mut entry) = EVENTS.reserve::<Piece<SIZE>>(0) else { return FULL };
    let header = emit::header(Kind::Chunk, 0, tag as u16, (tag >> 32) as u32);
    let piece = entry.as_mut_ptr();
    // SAFETY: the destination is the reserved record, of SIZE bytes and no less than `size`.
    let result = unsafe {
        (*piece).chunk = Chunk { header, id, field: (tag >> 16) as u32 & 0xffff, offset };
        let size = user::at_most(size, SIZE as u32);
        bpf_probe_read_user((&raw mut (*piece).bytes).cast(), size, data as *const c_void)
    };
    if result != 0 {
        entry.discard(NO_WAKEUP);
        return FAULT;
    }
    entry.submit(NO_WAKEUP);
    WHOLE
}

/// On `PyCode_Type.tp_dealloc`: the address can be used again from now on. Whatever stack was sent with it no longer
/// stands for what it says.
#[uprobe]
pub fn code_dealloc(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper takes the program's context.
    let slot = Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }).slot();
    let address = ctx.arg::<u64>(0).unwrap_or(0);
    if key(u32::from(slot), address).is_some_and(|key| SEEN_CODE.remove(key).is_ok()) {
        forget_stacks(u32::from(slot));
        debug!(&ctx, "code object {} of thread {} destroyed", address, bpf_get_current_pid_tgid() as u32);
    }
    0
}

/// From now on every stack of the process has another name, so that it is sent again.
#[inline(always)]
fn forget_stacks(slot: u32) {
    if let Some(state) = PROCESS_STATES.get_ptr_mut(slot) {
        // SAFETY: the pointer is to a map's element.
        unsafe { atomic::add(&raw mut (*state).code_epoch, 1) };
    }
}
