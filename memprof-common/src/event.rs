//! The records of the ring buffer. All begin with a [`Header`]; the length of a record is the ring
//! buffer's. Order in the buffer is causal order: an allocation's record is reserved before its caller can
//! see the pointer, a release's before the memory can be handed out again.

/// What a record is. The number is the first byte of its header.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Allocation`]
    Allocation = 1,
    /// [`Release`]: a block is certainly given back.
    Free = 2,
    /// [`Release`]: a block will be given back unless the call fails ([`Outcome`] follows on the thread).
    ReleaseBegin = 3,
    /// [`Outcome`]: the call that began a release failed, so the block stays.
    ReleaseFailed = 4,
    /// [`Outcome`]: the call that began a release succeeded and made no new block.
    ReleaseDone = 5,
    /// [`Stack`] and its frames.
    Stack = 6,
    /// [`Code`]
    Code = 7,
    /// [`Chunk`] and its bytes.
    Chunk = 8,
    /// [`Thread`]
    Thread = 9,
    /// A bare header: the dynamic linker has changed the list of loaded objects.
    ModulesChanged = 10,
    /// [`Thread`]: the thread has ended, under this name.
    ThreadEnd = 12,
    /// A bare header: the process runs another program from here on. Its `function` is 0 where the process's first thread
    /// called exec, and 1 where another did, which has taken the first one's place and id.
    Exec = 13,
    /// A bare header: the process has a child that has inherited its breakpoints.
    Fork = 14,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Allocation,
            2 => Self::Free,
            3 => Self::ReleaseBegin,
            4 => Self::ReleaseFailed,
            5 => Self::ReleaseDone,
            6 => Self::Stack,
            7 => Self::Code,
            8 => Self::Chunk,
            9 => Self::Thread,
            10 => Self::ModulesChanged,
            12 => Self::ThreadEnd,
            13 => Self::Exec,
            14 => Self::Fork,
            _ => return None,
        })
    }
}

/// The beginning of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u8,
    /// A [`crate::function::Function`], or 0.
    pub function: u8,
    /// The process's slot.
    pub slot: u16,
    /// The thread's id in the initial PID namespace.
    pub tid: u32,
}

/// A call that made a block.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    /// Kind and origin.
    pub header: Header,
    /// The block's address.
    pub address: u64,
    /// Bytes asked for.
    pub size: u64,
    /// The stack's id, or 0 where none was taken.
    pub stack: u64,
}

/// A call that gives a block back.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Kind and origin.
    pub header: Header,
    /// The block's address.
    pub address: u64,
    /// Bytes, for `munmap` and `mremap`; else 0.
    pub size: u64,
}

/// The end of a call that began a release.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Kind and origin.
    pub header: Header,
}

/// A stack that is seen for the first time. `python` [`PythonFrame`]s follow, then `native`
/// [`crate::unwind::Frame`]s, each innermost first.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Kind and origin.
    pub header: Header,
    /// The id that allocations refer to: a hash over everything below and the process's slot.
    pub id: u64,
    /// Number of Python entries, boundary markers included.
    pub python: u16,
    /// Number of native frames.
    pub native: u16,
    /// How the walks ended: [`stack_flag`].
    pub flags: u32,
}

/// Bits of [`Stack::flags`].
pub mod stack_flag {
    /// The Python stack is longer than [`crate::config::MAX_PYTHON_FRAMES`]: its outer end is missing.
    pub const PYTHON_CUT: u32 = 1;
    /// A Python frame could not be read: what lies beyond it is missing.
    pub const PYTHON_FAULT: u32 = 1 << 1;
    /// The native stack did not end at the thread's first frame.
    pub const NATIVE_CUT: u32 = 1 << 2;
}

/// One Python frame of a [`Stack`], or the boundary of an evaluation loop's activation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PythonFrame {
    /// The [`Code::id`]; 0 marks a boundary whose address is in `position`.
    pub code: u64,
    /// Position as the interpreter keeps it, made relative to the first instruction: bytes (3.8, 3.9 and
    /// from 3.11), code units (3.10); negative before the first instruction. For a boundary: the address of
    /// the marker on the C stack (3.12+: the shim frame, 3.11: the `_PyCFrame`), to be compared with native frames.
    pub position: i64,
    /// Bits of [`frame_flag`].
    pub flags: u64,
}

/// Bits of [`PythonFrame::flags`].
pub mod frame_flag {
    /// The frame was entered by a fresh C call of the evaluation loop.
    pub const ENTRY: u64 = 1;
}

/// A code object that is seen for the first time. [`Chunk`]s with the bytes of its strings come before it, so that
/// when this record is read everything is there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// Kind and origin.
    pub header: Header,
    /// The id that frames refer to.
    pub id: u64,
    /// Address of the code object.
    pub address: u64,
    /// `co_firstlineno`.
    pub first_line: i32,
    /// Non-zero where one of the reads failed and a field is missing.
    pub faults: u32,
    /// The strings, by [`field`].
    pub texts: [Text; field::COUNT],
}

/// Indices of [`Code::texts`], and values of [`Chunk::field`].
pub mod field {
    /// `co_name`
    pub const NAME: usize = 0;
    /// `co_filename`
    pub const FILENAME: usize = 1;
    /// `co_qualname` (3.11+)
    pub const QUALNAME: usize = 2;
    /// `co_linetable`, or `co_lnotab` before 3.10: raw bytes
    pub const LINETABLE: usize = 3;
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// How a string of a [`Code`] is encoded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// Bytes in the target.
    pub length: u32,
    /// Bytes sent in chunks; less than `length` where the string is longer than [`MAX_TEXT`] or could not be
    /// read.
    pub sent: u32,
    /// Bytes per code point: 1, 2 or 4; 0 for raw bytes.
    pub kind: u32,
    /// 1 where every character is ASCII.
    pub ascii: u32,
}

/// Bytes of a string that the kernel side sends; what is longer is cut and marked.
pub const MAX_TEXT: u32 = 64 * LONG_CHUNK as u32;

/// Bytes of a [`Chunk`] of a string that fits in one of this size, as most do.
pub const SHORT_CHUNK: usize = 256;

/// Bytes of a [`Chunk`] of a longer string.
pub const LONG_CHUNK: usize = 4096;

/// A piece of a string of the code object `id`; [`SHORT_CHUNK`] or [`LONG_CHUNK`] bytes follow, of which the last
/// ones of a string's last chunk mean nothing ([`Text::sent`] says how many do).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Kind and origin.
    pub header: Header,
    /// The [`Code::id`].
    pub id: u64,
    /// Index of the string.
    pub field: u32,
    /// Where in the string the bytes belong.
    pub offset: u32,
}

/// A thread that is seen for the first time, or whose name has changed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Kind and origin.
    pub header: Header,
    /// The thread pointer (`pthread_self()` on x86-64).
    pub thread_pointer: u64,
    /// The kernel's name of the thread, ended by NUL.
    pub name: [u8; 16],
}

const _: () = {
    assert!(size_of::<Header>() == 8);
    assert!(size_of::<Allocation>() == 32);
    assert!(size_of::<Release>() == 24);
    assert!(size_of::<Outcome>() == 8);
    assert!(size_of::<Stack>() == 24);
    assert!(size_of::<PythonFrame>() == 24);
    assert!(size_of::<Text>() == 16);
    assert!(size_of::<Code>() == 32 + 16 * field::COUNT);
    assert!(size_of::<Chunk>() == 24);
    assert!(size_of::<Thread>() == 32);
};
