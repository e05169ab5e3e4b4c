//! The unwind tables as the kernel side reads them: rules, rows, mappings, and the frames a walk leaves.
//!
//! A *rule* (24 bits) says how to get from a frame to its caller. A *row* (32 bits) is a rule with the
//! address it begins at, given within a bucket of [`BUCKET`] bytes of text; an index holds the number of each
//! bucket's first row. All files' rows lie in one array, all indices in another, so that the walk needs no
//! nested map. What a rule has no room for is a [`Wide`] rule in an array of its own.

/// Bytes of text that one entry of the index stands for.
pub const BUCKET: u64 = 256;

/// Rows, and index entries, in one element of the arrays that hold them: 4 MiB, the largest value that
/// every supported kernel allows (`KMALLOC_MAX_SIZE`).
pub const CHUNK: usize = 1 << 20;

/// Mappings of all traced processes together.
pub const MAX_MAPPINGS: usize = 1 << 17;

/// Mappings of one process: what the kernel side's search can reach in [`MAPPING_STEPS`] halvings.
pub const MAX_SPACE_MAPPINGS: usize = (1 << MAPPING_STEPS) - 1;

/// Halvings of the search over a process's mappings.
pub const MAPPING_STEPS: u32 = 13;

/// Halvings of the search over a bucket's rows; a bucket has at most [`BUCKET`] rows.
pub const ROW_STEPS: u32 = 9;

/// Distinct wide rules of all files together.
pub const MAX_WIDE: usize = 1 << 14;

/// Entries of the cache of rules by address.
pub const CACHE: usize = 1 << 16;

/// Values of a rule's lowest three bits.
pub mod kind {
    /// Nothing is known here. The argument tells why: one of [`super::absent`].
    pub const NONE: u32 = 0;
    /// The caller's frame begins at the stack pointer plus an offset, which is not 0. The saved frame pointer, if any, lies between
    /// the two.
    pub const STACK: u32 = 1;
    /// The caller's frame begins at the frame pointer plus an offset.
    pub const FRAME: u32 = 2;
    /// The thread's first frame: it has no caller.
    pub const STOP: u32 = 3;
    /// The caller's frame begins where the word at the frame pointer minus 8 times the slot points to, and its frame
    /// pointer is the word at the frame pointer (functions that realign their stack).
    pub const REALIGNED: u32 = 4;
    /// A signal's return trampoline: the interrupted registers lie in the `ucontext` at the stack pointer.
    pub const SIGNAL: u32 = 5;
    /// The argument is the number of a [`super::Wide`] rule.
    pub const WIDE: u32 = 6;
}

/// Why there is no rule: argument of [`kind::NONE`].
pub mod absent {
    /// The file has no unwind information for the address.
    pub const NO_ROW: u32 = 0;
    /// It has, but no rule can express it.
    pub const INEXPRESSIBLE: u32 = 1;
    /// The file's table is not loaded.
    pub const NO_TABLE: u32 = 2;
}

/// How to get from a frame to its caller. The return address is always the word below the caller's frame.
///
/// Bits 0..3 [`kind`]; for [`kind::STACK`] and [`kind::FRAME`] bits 3..11 where the caller's frame pointer is saved (words
/// below the caller's frame; 0: it is still in its register) and 11..24 the offset in words; otherwise bits 3..24 an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rule(pub u32);

impl Rule {
    /// Bits of a rule.
    pub const BITS: u32 = 24;
    /// Largest offset, in words.
    pub const MAX_OFFSET: u64 = (1 << 13) - 1;
    /// Farthest place of a saved frame pointer, in words.
    pub const MAX_SLOT: u64 = (1 << 8) - 1;
    /// Largest argument.
    pub const MAX_ARGUMENT: u32 = (1 << 21) - 1;
    /// The thread's first frame.
    pub const STOP: Self = Self(kind::STOP);
    /// A signal's return trampoline.
    pub const SIGNAL: Self = Self(kind::SIGNAL);
    /// No unwind information.
    pub const NO_ROW: Self = Self(kind::NONE);
    /// Unwind information that no rule can express.
    pub const INEXPRESSIBLE: Self = Self::with_argument(kind::NONE, absent::INEXPRESSIBLE);
    /// No table.
    pub const NO_TABLE: Self = Self::with_argument(kind::NONE, absent::NO_TABLE);
    /// A frame that keeps its caller's frame pointer and return address at its frame pointer.
    pub const FRAME_POINTER: Self = Self::with_offset(kind::FRAME, 2, 2);

    /// A rule whose offset and slot are counted in words and within bounds.
    pub const fn with_offset(kind: u32, offset: u32, slot: u32) -> Self {
        Self(kind | slot << 3 | offset << 11)
    }

    /// A rule with an argument within bounds.
    pub const fn with_argument(kind: u32, argument: u32) -> Self {
        Self(kind | argument << 3)
    }

    /// One of [`kind`].
    pub const fn kind(self) -> u32 {
        self.0 & 7
    }

    /// From the base register to the caller's frame, in bytes.
    pub const fn offset(self) -> u64 {
        ((self.0 as u64 >> 11) & Self::MAX_OFFSET) << 3
    }

    /// Where the caller's frame pointer is, in words below the caller's frame; 0: in its register.
    pub const fn slot(self) -> u64 {
        (self.0 as u64 >> 3) & Self::MAX_SLOT
    }

    /// The argument.
    pub const fn argument(self) -> u32 {
        (self.0 >> 3) & Self::MAX_ARGUMENT
    }
}

/// A row: bits 0..24 the rule, 24..32 the address in its bucket, so that a bucket's rows are in the order of
/// their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row(pub u32);

impl Row {
    /// A row that begins at an address (of which the low 8 bits are kept).
    pub const fn new(address: u64, rule: Rule) -> Self {
        Self((address as u32 & 0xff) << Rule::BITS | rule.0)
    }

    /// The rule.
    pub const fn rule(self) -> Rule {
        Rule(self.0 & ((1 << Rule::BITS) - 1))
    }

    /// Where in its bucket it begins.
    pub const fn offset(self) -> u32 {
        self.0 >> Rule::BITS
    }
}

/// Values of [`Wide::base`] and, for the last two, of [`Wide::saved_base`].
pub mod wide_base {
    /// The stack pointer.
    pub const STACK: u8 = 0;
    /// The frame pointer.
    pub const FRAME: u8 = 1;
}

/// Values of [`Wide::form`].
pub mod wide_form {
    /// Base register plus offset.
    pub const PLAIN: u8 = 0;
    /// The word at base register plus offset, plus `addend`.
    pub const INDIRECT: u8 = 1;
    /// Base register plus offset, plus 8 from the `addend`th byte of each 16 on (entries of a procedure linkage table).
    pub const LINKAGE: u8 = 2;
}

/// Values of [`Wide::saved`]: where the caller's frame pointer is.
pub mod wide_saved {
    /// In its register.
    pub const REGISTER: u8 = 0;
    /// At the caller's frame plus `saved_offset`.
    pub const CALLER: u8 = 1;
    /// At the base register `saved_base` plus `saved_offset`.
    pub const BASE: u8 = 2;
}

/// A rule that does not fit 24 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wide {
    /// One of [`wide_form`].
    pub form: u8,
    /// One of [`wide_base`].
    pub base: u8,
    /// One of [`wide_saved`].
    pub saved: u8,
    /// One of [`wide_base`].
    pub saved_base: u8,
    /// In bytes.
    pub offset: i32,
    /// In bytes.
    pub addend: i32,
    /// In bytes.
    pub saved_offset: i32,
}

/// Values of [`Mapping::kind`].
pub mod mapping_kind {
    /// Rows of a file.
    pub const TABLE: u32 = 0;
    /// A file without a table, not made yet or not to be made.
    pub const NO_TABLE: u32 = 1;
    /// Code without a file (of a JIT compiler): frames are expected to keep a frame pointer.
    pub const FRAME_POINTER: u32 = 2;
}

/// An executable range of a process's memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address (avma).
    pub begin: u64,
    /// First address after it.
    pub end: u64,
    /// Address at which the table's first bucket would begin.
    pub origin: u64,
    /// Number of the index entry of that bucket.
    pub index: u32,
    /// One of [`mapping_kind`].
    pub kind: u32,
}

/// A process's mappings: which part of the array they are, in one word so that it changes in one store.
///
/// Bits 0..20 first, 20..36 count, 36..45 salt: a number that no other state of any process's mappings has while
/// rules that were found under it are in the cache; 0 keeps rules out of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space(pub u64);

impl Space {
    /// Salts there are, 0 included.
    pub const SALTS: usize = 1 << 9;

    /// Packs the three.
    pub const fn new(first: u32, count: u16, salt: u16) -> Self {
        Self(first as u64 & 0xf_ffff | (count as u64) << 20 | (salt as u64 & 0x1ff) << 36)
    }

    /// Number of the first mapping.
    pub const fn first(self) -> u64 {
        self.0 & 0xf_ffff
    }

    /// Number of mappings.
    pub const fn count(self) -> u64 {
        self.0 >> 20 & 0xffff
    }

    /// The salt.
    pub const fn salt(self) -> u64 {
        self.0 >> 36 & 0x1ff
    }
}

/// One frame of a walk.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Return address: one more than an address inside the call. A frame that was interrupted by a signal has one more
    /// than the address of its next instruction, so that in both cases one less is to be looked up.
    pub address: u64,
    /// Stack pointer in the frame at that address. The frame's own memory ends where the next frame's stack pointer
    /// points to.
    pub stack_pointer: u64,
}

/// How a walk ended.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// At the thread's first frame.
    Complete = 0,
    /// At the limit of frames.
    Cut = 1,
    /// At an address outside of every known mapping.
    NoMapping = 2,
    /// At an address without a row.
    NoRow = 3,
    /// At a row that no rule can express.
    Inexpressible = 4,
    /// At memory that could not be read.
    Fault = 5,
    /// At a frame that did not lie above the one it called, or was not aligned.
    Stuck = 6,
    /// In a file whose table is not loaded.
    NoTable = 7,
}

impl End {
    /// The end with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Complete,
            1 => Self::Cut,
            2 => Self::NoMapping,
            3 => Self::NoRow,
            4 => Self::Inexpressible,
            5 => Self::Fault,
            6 => Self::Stuck,
            7 => Self::NoTable,
            _ => return None,
        })
    }
}

/// Where the kernel keeps the return addresses that return probes have replaced, from its BTF. All zero: not known.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnProbes {
    /// `task_struct.utask`
    pub task_utask: u32,
    /// `uprobe_task.return_instances`
    pub utask_instances: u32,
    /// `return_instance.next`
    pub next: u32,
    /// `return_instance.stack`: address of the replaced word.
    pub stack: u32,
    /// `return_instance.orig_ret_vaddr`: the word it replaced.
    pub original: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// What the programs of the walk's tests and benchmark send.
pub mod bench {
    use super::Frame;

    /// A whole stack.
    #[repr(C)]
    #[derive(Clone, Copy, Debug)]
    pub struct Stack {
        /// The thread's id.
        pub tid: u32,
        /// A [`super::End`].
        pub end: u32,
        /// Frames that are valid.
        pub count: u32,
        /// Frames found by the frame pointer alone.
        pub guessed: u32,
        /// First argument of the probed function.
        pub argument: u64,
        /// Innermost first.
        pub frames: [Frame; 256],
    }
}

const _: () = {
    assert!(size_of::<Wide>() == 16);
    assert!(size_of::<Mapping>() == 32);
    assert!(size_of::<Frame>() == 16);
    assert!(size_of::<ReturnProbes>() == 24);
    assert!(MAX_MAPPINGS <= 1 << 20);
    assert!(MAX_SPACE_MAPPINGS <= 0xffff);
    assert!(MAX_WIDE - 1 <= Rule::MAX_ARGUMENT as usize);
    assert!(1 << (ROW_STEPS - 1) >= BUCKET);
};

#[cfg(feature = "user")]
unsafe impl aya::Pod for ReturnProbes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_its_parts() {
        let rule = Rule::with_offset(kind::STACK, Rule::MAX_OFFSET as u32, Rule::MAX_SLOT as u32);
        assert_eq!((rule.kind(), rule.offset(), rule.slot()), (kind::STACK, 65_528, 255));
        assert_eq!(rule.0 >> Rule::BITS, 0);
        let wide = Rule::with_argument(kind::WIDE, Rule::MAX_ARGUMENT);
        assert_eq!((wide.kind(), wide.argument(), wide.0 >> Rule::BITS), (kind::WIDE, Rule::MAX_ARGUMENT, 0));
    }

    #[test]
    fn a_row_keeps_its_parts() {
        let row = Row::new(0x1234_56ff, Rule::STOP);
        assert_eq!((row.offset(), row.rule()), (0xff, Rule::STOP));
    }

    #[test]
    fn a_space_keeps_its_parts() {
        let space = Space::new(0xf_ffff, 0xffff, 0x1ff);
        assert_eq!((space.first(), space.count(), space.salt()), (0xf_ffff, 0xffff, 0x1ff));
        assert_eq!(space.0 >> 45, 0);
    }
}
