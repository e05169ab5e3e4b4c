//! A process's executable mappings as the kernel side wants them: sorted, each with the table of its file.

use std::ops::Range;

use memprof_common::unwind::{BUCKET, MAX_SPACE_MAPPINGS, Mapping, mapping_kind};

use super::rows::Table;
use crate::target::maps;

/// Bytes of a page; segments are mapped in whole ones.
const PAGE: u64 = 4096;

/// What is behind an executable mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Backing {
    /// A file.
    File,
    /// The kernel's library of fast system calls.
    Vdso,
    /// No file: code that a JIT compiler has made.
    Anonymous,
}

/// What is behind a mapping; `None` for one that is not executable, or that no walk stays in.
pub(super) fn backing(mapping: &maps::Mapping) -> Option<Backing> {
    if !mapping.executable {
        return None;
    }
    match mapping.path.as_str() {
        "[vdso]" => Some(Backing::Vdso),
        "[vsyscall]" | "[uprobes]" | "[uprobes-trampoline]" => None,
        _ if mapping.inode == 0 => Some(Backing::Anonymous),
        _ => Some(Backing::File),
    }
}

/// Where a file's table has been placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'t> {
    /// The table, of which only addresses and segments are used.
    pub layout: &'t Layout,
    /// Number of its first index entry.
    pub index: u32,
}

/// What a placed table's addresses are.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Address (svma) at which the first bucket begins.
    pub origin: u64,
    /// First address (svma) after the text.
    pub end: u64,
    /// Executable segments.
    pub segments: Vec<super::Segment>,
}

impl From<&Table> for Layout {
    fn from(table: &Table) -> Self {
        Self { origin: table.origin, end: table.end, segments: table.segments.clone() }
    }
}

/// The entry of a mapping without a table.
pub(super) fn plain(range: Range<u64>, kind: u32) -> Mapping {
    Mapping { begin: range.start, end: range.end, kind, ..Mapping::default() }
}

/// The entries of a mapping that shows a part of a file: the part that the table covers, and what lies beyond.
pub(super) fn with_table(
    range: Range<u64>,
    file_offset: u64,
    placed: Placed,
) -> impl Iterator<Item = Mapping> {
    let covered = covered(&range, file_offset, placed);
    let end = covered.map_or(range.start, |mapping| mapping.end);
    let rest = (end < range.end).then(|| plain(end..range.end, mapping_kind::NO_TABLE));
    covered.into_iter().chain(rest)
}

fn covered(range: &Range<u64>, file_offset: u64, placed: Placed) -> Option<Mapping> {
    let layout = placed.layout;
    let segment = layout.segments.iter().find(|segment| {
        let first = segment.file_offset - segment.file_offset % PAGE;
        (first..segment.file_offset.saturating_add(segment.size)).contains(&file_offset)
    })?;
    // The address that the file states for the mapping's first byte, which may lie before the segment in its page.
    let svma = segment.svma.wrapping_add(file_offset).wrapping_sub(segment.file_offset);
    let bias = range.start.wrapping_sub(svma);
    let origin = bias.wrapping_add(layout.origin);
    let end = bias.wrapping_add(layout.end).min(range.end);
    // A file that states other addresses than it is mapped at covers nothing.
    let sensible = origin <= range.start.max(origin) && range.start < end && origin < end;
    let begin = range.start.max(origin);
    let buckets = (end.checked_sub(origin)?).div_ceil(BUCKET);
    let known = (layout.end - layout.origin).div_ceil(BUCKET);
    (sensible && buckets <= known).then_some(Mapping {
        begin,
        end,
        origin,
        index: placed.index,
        kind: mapping_kind::TABLE,
    })
}

/// Sorts entries, joins those that continue each other, and cuts at the limit. Returns how many were cut.
pub(super) fn arrange(entries: &mut Vec<Mapping>) -> usize {
    entries.sort_unstable_by_key(|entry| entry.begin);
    entries.dedup_by(|next, entry| {
        let same = (entry.kind, entry.origin, entry.index) == (next.kind, next.origin, next.index);
        let joined = same && entry.end == next.begin;
        if joined {
            entry.end = next.end;
        }
        joined
    });
    let cut = entries.len().saturating_sub(MAX_SPACE_MAPPINGS);
    entries.truncate(MAX_SPACE_MAPPINGS);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::Segment;

    #[test]
    fn a_shared_object_is_found_by_its_bias() {
        let segments = vec![Segment { file_offset: 0x2040, svma: 0x4040, size: 0x1000 }];
        let layout = Layout { origin: 0x4000, end: 0x5040, segments };
        let range = 0x7f00_0000_0000..0x7f00_0000_2000;
        let entries: Vec<_> = with_table(range, 0x2000, Placed { layout: &layout, index: 7 }).collect();
        let [table, rest] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((table.begin, table.end, table.index), (0x7f00_0000_0000, 0x7f00_0000_1040, 7));
        assert_eq!(table.origin, 0x7f00_0000_0000);
        assert_eq!(
            (rest.begin, rest.end, rest.kind),
            (0x7f00_0000_1040, 0x7f00_0000_2000, mapping_kind::NO_TABLE)
        );
    }

    #[test]
    fn a_file_that_contradicts_its_mapping_covers_nothing() {
        for segment in [
            Segment { file_offset: 0, svma: u64::MAX - 0x2000, size: 0x1000 },
            Segment { file_offset: 0x9000, svma: 0x9000, size: 0x1000 },
        ] {
            let layout = Layout { origin: 0x9000, end: 0xa000, segments: vec![segment] };
            let placed = Placed { layout: &layout, index: 0 };
            let entries: Vec<_> = with_table(0x1000..0x2000, 0, placed).collect();
            assert_eq!(entries, [plain(0x1000..0x2000, mapping_kind::NO_TABLE)]);
        }
    }

    #[test]
    fn neighbours_of_one_table_are_joined() {
        let entry = |begin, end, origin| Mapping { begin, end, origin, index: 1, kind: mapping_kind::TABLE };
        let mut entries =
            vec![entry(0x3000, 0x4000, 0x1000), entry(0x1000, 0x3000, 0x1000), entry(0x4000, 0x5000, 0)];
        assert_eq!(arrange(&mut entries), 0);
        assert_eq!(entries, [entry(0x1000, 0x4000, 0x1000), entry(0x4000, 0x5000, 0)]);
    }
}
