//! The row maker: an ELF file's call frame information becomes a sorted table of rules.
//!
//! Input is hostile. Time and memory are bounded by limits on bytes that are looked at and rows that are made; what is
//! broken or beyond a limit is left without a rule and counted.

use std::collections::HashMap;
use std::ops::Range;

use gimli::{
    BaseAddresses, CommonInformationEntry, DebugFrame, EhFrame, EhFrameHdr, LittleEndian, UnwindContext,
    UnwindSection,
};
use memprof_common::unwind::{BUCKET, Row, Rule, Wide, kind, wide_base, wide_form};

use super::elf::{Elf, MAX_PART, ReadAt, Section, Segment, word32, word64};
use super::rule::{Bytes, Encoded, Storage, encode};
use super::{Error, machine};

/// Bytes from the first executable address to the last. The largest browsers have 200 MiB.
const MAX_TEXT: u64 = 1 << 30;

/// Rows of one file. A compiler of 120 MiB has two million.
const MAX_ROWS: usize = 16 << 20;

/// Wide rules of one file; real files have a dozen.
const MAX_FILE_WIDE: usize = 512;

/// Bytes of call frame instructions that are run for one file, the common ones counted for each function.
const MAX_WORK: usize = 64 << 20;

/// Bytes of a common information entry; real ones have about 30.
const MAX_CIE: usize = 256;

/// Bytes without a function between two functions that are taken for padding.
const PADDING: u64 = 16;

/// What stands in place of an FDE's reference to its CIE in a CIE.
const EH_FRAME_CIE: u32 = 0;
const DEBUG_FRAME_CIE: u32 = u32::MAX;

/// Functions in `.eh_frame` below which `.debug_frame` is looked at too: what the C runtime's start files bring along.
const FEW_FUNCTIONS: usize = 8;

/// Bytes from the program's first instruction on in which it calls the C library's first function (`_start` of musl has no
/// unwind information).
const ENTRY_CODE: u64 = 64;

/// Bytes of a segment that are searched for a signal's return trampoline, and how many are taken.
const MAX_SEARCHED: u64 = 16 << 20;
const MAX_TRAMPOLINES: usize = 16;

/// A file's rows.
#[derive(Debug, Default)]
pub struct Table {
    /// Address (svma) at which the first bucket begins.
    pub origin: u64,
    /// First address (svma) after the text.
    pub end: u64,
    /// Executable segments, to find the load bias by.
    pub segments: Vec<Segment>,
    /// Rows ([`Row`]) by address. The first one comes before the first bucket.
    pub rows: Vec<u32>,
    /// For each bucket the number of its first row, and at the end the number of rows.
    pub index: Vec<u32>,
    /// The file's wide rules, by the arguments of its rows.
    pub wide: Vec<Wide>,
    /// GNU build id.
    pub build_id: Option<Vec<u8>>,
    /// What was found.
    pub statistics: Statistics,
}

/// What the row maker found in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Functions with unwind information.
    pub functions: usize,
    /// Functions whose information is broken or beyond a limit: some of their rows are missing.
    pub broken: usize,
    /// Rows made, those that only say that nothing is known included.
    pub rows: usize,
    /// Rows that no rule can express.
    pub inexpressible: usize,
    /// Functions, trampolines and stubs without information whose rules are known from elsewhere.
    pub supplied: usize,
}

impl Table {
    /// Makes the table of a file.
    pub fn make<R: ReadAt + ?Sized>(source: &R) -> Result<Self, Error> {
        let elf = Elf::parse(source)?;
        let text = elf.text().ok_or(Error::NoText)?;
        if text.end - text.start > MAX_TEXT {
            let size = text.end - text.start;
            return Err(Error::TooLarge { what: "executable memory", size, limit: MAX_TEXT });
        }
        let mut statistics = Statistics::default();
        let (eh_bytes, eh_bases) = eh_frame_bytes(&elf)?;
        let mut eh_frame =
            Frames::new(EhFrame::new(&eh_bytes, LittleEndian), &eh_bytes, &eh_bases, EH_FRAME_CIE);
        let mut functions = eh_frame.functions(&text, Origin::EhFrame, &mut statistics);
        let debug_bytes = match elf.section(".debug_frame") {
            Some(section) if functions.len() < FEW_FUNCTIONS => elf.section_bytes(section)?,
            _ => Vec::new(),
        };
        let debug_bases = BaseAddresses::default();
        let section = DebugFrame::new(&debug_bytes, LittleEndian);
        let mut debug_frame = Frames::new(section, &debug_bytes, &debug_bases, DEBUG_FRAME_CIE);
        functions.extend(debug_frame.functions(&text, Origin::DebugFrame, &mut statistics));
        functions.sort_by_key(|function| function.start);
        functions.dedup_by_key(|function| function.start);
        let supplied = supplied(&elf, &text, &functions);
        statistics.functions = functions.len();
        statistics.supplied = supplied.len();
        functions.extend(supplied);
        functions.sort_by_key(|function| function.start);

        let mut writer = Writer::new(text.clone(), statistics);
        let mut covered = text.start;
        for (number, function) in functions.iter().enumerate() {
            if covered.saturating_add(PADDING) <= function.start {
                writer.push(covered, Encoded::Rule(Rule::NO_ROW));
            }
            let next = functions.get(number + 1).map_or(text.end, |next| next.start);
            let end = function.end.min(next);
            writer.gap = covered < function.start;
            match function.origin {
                Origin::EhFrame(offset) => eh_frame.write(offset, function.start..end, &mut writer),
                Origin::DebugFrame(offset) => debug_frame.write(offset, function.start..end, &mut writer),
                Origin::Supplied(encoded) => writer.push(function.start, encoded),
            }
            covered = end;
        }
        writer.push(covered, Encoded::Rule(Rule::NO_ROW));
        let mut table = writer.finish();
        table.segments.clone_from(&elf.executable);
        table.build_id = elf.build_id();
        Ok(table)
    }

    /// The rule for an address (svma), as the kernel side finds it.
    pub fn rule(&self, svma: u64) -> Rule {
        let Some(relative) = svma.checked_sub(self.origin) else { return Rule::NO_ROW };
        let bucket = (relative / BUCKET) as usize;
        let (Some(&first), Some(&end)) = (self.index.get(bucket), self.index.get(bucket + 1)) else {
            return Rule::NO_ROW;
        };
        let rows = &self.rows[first as usize..end as usize];
        let before = rows.partition_point(|&row| u64::from(Row(row).offset()) <= relative % BUCKET);
        Row(self.rows[first as usize + before - 1]).rule()
    }

    /// Bytes of the rows and the index.
    pub fn bytes(&self) -> usize {
        4 * (self.rows.len() + self.index.len())
    }
}

/// Where a function's rules come from; the numbers are offsets in the section.
#[derive(Clone, Copy)]
enum Origin {
    EhFrame(usize),
    DebugFrame(usize),
    Supplied(Encoded),
}

/// A range of text with one source of rules.
#[derive(Clone, Copy)]
struct Function {
    start: u64,
    end: u64,
    origin: Origin,
}

/// The call frame information of one section.
struct Frames<'b, S> {
    section: S,
    bytes: &'b [u8],
    bases: &'b BaseAddresses,
    cie_id: u32,
    cies: HashMap<usize, Option<Cie<'b>>>,
    context: Box<UnwindContext<usize, Storage>>,
    work: usize,
}

type Cie<'b> = CommonInformationEntry<Bytes<'b>>;

impl<'b, S: UnwindSection<Bytes<'b>>> Frames<'b, S> {
    fn new(section: S, bytes: &'b [u8], bases: &'b BaseAddresses, cie_id: u32) -> Self {
        let context = Box::new(UnwindContext::new_in());
        Self { section, bytes, bases, cie_id, cies: HashMap::new(), context, work: 0 }
    }

    /// Lists the functions that begin in the text.
    fn functions(
        &mut self,
        text: &Range<u64>,
        origin: fn(usize) -> Origin,
        statistics: &mut Statistics,
    ) -> Vec<Function> {
        let mut functions = Vec::new();
        let mut offset = 0_usize;
        // Entries are stepped over by their own lengths, so that one that cannot be parsed does not hide the rest.
        while let Some(length) = self.bytes.get(offset..).and_then(word32) {
            let (length, header) = match length {
                // Ends `.eh_frame`; in `.debug_frame` some assemblers write it as padding.
                0 if self.cie_id == EH_FRAME_CIE => break,
                0 => {
                    offset += 4;
                    continue;
                }
                u32::MAX => match self.bytes.get(offset + 4..).and_then(word64) {
                    Some(length) => (length, 12),
                    None => break,
                },
                length => (u64::from(length), 4),
            };
            let id = self.bytes.get(offset + header..).and_then(word32);
            let next = usize::try_from(length).ok().and_then(|length| (offset + header).checked_add(length));
            let Some(next) = next.filter(|&next| next <= self.bytes.len()) else {
                statistics.broken += 1;
                break;
            };
            if id != Some(self.cie_id) {
                match self.function(offset) {
                    Some((start, end)) if text.contains(&start) && start != 0 && end > start => {
                        functions.push(Function { start, end: end.min(text.end), origin: origin(offset) });
                    }
                    Some(_) => {}
                    None => statistics.broken += 1,
                }
            }
            offset = next;
        }
        functions
    }

    /// First address and end of the function whose entry is at an offset.
    fn function(&mut self, offset: usize) -> Option<(u64, u64)> {
        let fde = self.entry(offset)?;
        Some((fde.initial_address(), fde.initial_address().saturating_add(fde.len())))
    }

    fn entry(&mut self, offset: usize) -> Option<gimli::FrameDescriptionEntry<Bytes<'b>>> {
        let partial = self.section.partial_fde_from_offset(self.bases, offset.into()).ok()?;
        let cie_offset = gimli::UnwindOffset::into(partial.cie_offset());
        let (section, bases) = (&self.section, self.bases);
        let cie = self
            .cies
            .entry(cie_offset)
            .or_insert_with(|| section.cie_from_offset(bases, cie_offset.into()).ok())
            .as_ref()
            .filter(|cie| cie.entry_len() <= MAX_CIE)?;
        partial.parse(|_, _, _| Ok(cie.clone())).ok()
    }

    /// Writes the rows of the function whose entry is at an offset, as far as they lie in the range.
    fn write(&mut self, offset: usize, range: Range<u64>, writer: &mut Writer) {
        let Some(fde) = self.entry(offset) else { return };
        self.work = self.work.saturating_add(fde.entry_len() + fde.cie().entry_len());
        if self.work > MAX_WORK {
            writer.push(range.start, Encoded::Rule(Rule::NO_ROW));
            writer.statistics.broken += 1;
            return;
        }
        let signal = fde.is_signal_trampoline();
        let mut last = range.start;
        let mut broken = true;
        if let Ok(mut table) = fde.rows(&self.section, self.bases, &mut self.context) {
            loop {
                match table.next_row() {
                    Ok(Some(row)) if row.start_address() < range.end => {
                        last = row.start_address().max(range.start);
                        let encoded = encode(&self.section, row, signal);
                        writer.push(last - u64::from(writer.is_returned_to(last, &range, encoded)), encoded);
                    }
                    Ok(_) => {
                        broken = false;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        if broken {
            writer.push(last, Encoded::Rule(Rule::INEXPRESSIBLE));
            writer.statistics.broken += 1;
        }
    }
}

/// The bytes of `.eh_frame` and the addresses that its pointers are relative to; empty where the file has none.
fn eh_frame_bytes<R: ReadAt + ?Sized>(elf: &Elf<R>) -> Result<(Vec<u8>, BaseAddresses), Error> {
    let address = |name| elf.section(name).map_or(0, |section| section.svma);
    let bases = BaseAddresses::default().set_text(address(".text")).set_got(address(".got"));
    if let Some(section) = elf.section(".eh_frame") {
        return Ok((elf.section_bytes(section)?, bases.set_eh_frame(section.svma)));
    }
    // Without section headers, what the C++ runtime uses at run time: a segment that points to the section, which
    // ends with a zero.
    let Some((svma, size)) = elf.eh_frame_hdr else { return Ok((Vec::new(), bases)) };
    let header = elf.loaded_bytes(svma, size)?;
    let bases = bases.set_eh_frame_hdr(svma);
    let header = EhFrameHdr::new(&header, LittleEndian)
        .parse(&bases, 8)
        .map_err(|_| Error::Malformed("PT_GNU_EH_FRAME"))?;
    let svma = header.eh_frame_ptr().direct().map_err(|_| Error::Malformed("PT_GNU_EH_FRAME"))?;
    Ok((elf.loaded_bytes(svma, MAX_PART)?, bases.set_eh_frame(svma)))
}

/// Rules for code that has no unwind information but a known form, where no function covers it: the program's
/// first instructions, linkage stubs, signal trampolines.
fn supplied<R: ReadAt + ?Sized>(elf: &Elf<R>, text: &Range<u64>, functions: &[Function]) -> Vec<Function> {
    let mut supplied = Vec::new();
    let mut supply = |start: u64, size: u64, encoded| {
        let after = functions.partition_point(|function| function.start <= start);
        let covered = after.checked_sub(1).is_some_and(|before| functions[before].end > start);
        if text.contains(&start) && !covered {
            let end = start.saturating_add(size).min(text.end);
            supplied.push(Function { start, end, origin: Origin::Supplied(encoded) });
        }
    };
    if elf.entry != 0 {
        supply(elf.entry, ENTRY_CODE, Encoded::Rule(Rule::STOP));
    }
    for section in &elf.sections {
        if let Some(encoded) = linkage(section) {
            supply(section.svma, section.size, encoded);
        }
    }
    // C libraries depend on nothing, nor do programs that contain one.
    if !elf.has_dependencies {
        for segment in &elf.executable {
            let Ok(bytes) = elf.loaded_bytes(segment.svma, MAX_SEARCHED) else { continue };
            for at in memchr::memmem::find_iter(&bytes, &machine::SIGNAL_RETURN).take(MAX_TRAMPOLINES) {
                // A return address is looked up by the byte before it, which is not part of the trampoline.
                let start = (segment.svma + at as u64).saturating_sub(1);
                supply(start, 1 + machine::SIGNAL_RETURN.len() as u64, Encoded::Rule(Rule::SIGNAL));
            }
        }
    }
    supplied.sort_by_key(|function| function.start);
    supplied.dedup_by_key(|function| function.start);
    supplied
}

/// The rules of a section of linkage stubs that linkers leave without unwind information.
fn linkage(section: &Section) -> Option<Encoded> {
    match section.name.as_slice() {
        // Entries of 16 bytes that push a number after 6 or 11 bytes, before they jump to the resolver.
        b".plt" => Some(Encoded::Wide(Wide {
            form: wide_form::LINKAGE,
            base: wide_base::STACK,
            offset: 8,
            addend: 11,
            ..Wide::default()
        })),
        b".plt.got" | b".plt.sec" => Some(Encoded::Rule(Rule::with_offset(kind::STACK, 1, 0))),
        _ => None,
    }
}

/// Collects rows in the order of their addresses.
struct Writer {
    origin: u64,
    end: u64,
    rows: Vec<u32>,
    index: Vec<u32>,
    wide: Vec<Wide>,
    wide_numbers: HashMap<Wide, u32>,
    last: Option<(u64, Rule)>,
    /// The function that is written does not follow the one before without a gap.
    gap: bool,
    statistics: Statistics,
}

impl Writer {
    fn new(text: Range<u64>, statistics: Statistics) -> Self {
        Self {
            origin: text.start - text.start % BUCKET,
            end: text.end,
            rows: vec![Row::new(0, Rule::NO_ROW).0],
            index: Vec::new(),
            wide: Vec::new(),
            wide_numbers: HashMap::new(),
            last: None,
            gap: false,
            statistics,
        }
    }

    /// Whether a function is entered by a return to its first byte, as a signal's trampoline and the first frame of a second
    /// stack are. Such a return address is looked up by the byte before it, in the padding.
    fn is_returned_to(&self, svma: u64, function: &Range<u64>, encoded: Encoded) -> bool {
        let is_end = matches!(encoded, Encoded::Rule(Rule::STOP | Rule::SIGNAL));
        self.gap && svma == function.start && is_end
    }

    /// Says that a rule holds from an address on. An address that was passed already is taken for the last one.
    fn push(&mut self, svma: u64, encoded: Encoded) {
        let mut rule = match encoded {
            Encoded::Rule(rule) => rule,
            Encoded::Wide(wide) => self.wide_rule(wide),
        };
        if self.rows.len() >= MAX_ROWS {
            rule = Rule::NO_ROW;
        }
        let svma = match self.last {
            Some((last, _)) => svma.max(last),
            None => svma.max(self.origin),
        };
        if svma >= self.end {
            return;
        }
        match self.last {
            Some((_, last)) if last == rule => return,
            Some((last, _)) if last == svma => {
                self.rows.pop();
            }
            _ => {}
        }
        let bucket = ((svma - self.origin) / BUCKET) as usize;
        while self.index.len() <= bucket {
            self.index.push(self.rows.len() as u32);
        }
        self.rows.push(Row::new(svma - self.origin, rule).0);
        self.last = Some((svma, rule));
    }

    /// The rule that refers to a wide rule.
    fn wide_rule(&mut self, wide: Wide) -> Rule {
        if let Some(&number) = self.wide_numbers.get(&wide) {
            return Rule::with_argument(kind::WIDE, number);
        }
        if self.wide.len() == MAX_FILE_WIDE {
            return Rule::INEXPRESSIBLE;
        }
        let number = self.wide.len() as u32;
        self.wide.push(wide);
        self.wide_numbers.insert(wide, number);
        Rule::with_argument(kind::WIDE, number)
    }

    fn finish(mut self) -> Table {
        let buckets = (self.end - self.origin).div_ceil(BUCKET) as usize;
        self.index.resize(buckets + 1, self.rows.len() as u32);
        self.statistics.rows = self.rows.len();
        self.statistics.inexpressible =
            self.rows.iter().filter(|&&row| Row(row).rule() == Rule::INEXPRESSIBLE).count();
        Table {
            origin: self.origin,
            end: self.end,
            rows: self.rows,
            index: self.index,
            wide: self.wide,
            statistics: self.statistics,
            ..Table::default()
        }
    }
}
