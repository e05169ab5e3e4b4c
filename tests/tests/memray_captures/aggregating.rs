//! memray's captures with all allocations, aggregated by memprof's writer: memray reads them, and they say the same.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;

use memprof::capture::{
    AggregatingWriter, AllocatorKind, CodeId, CodeObject, Extension, Module, NativeId, PythonFrame, Reader,
    Record, Sink, StackId,
};
use memprof::heap::{Namer, Profile, Question, Threads, View, native_names};
use memprof_tests::memray::Release;

use super::compare_reports;

/// Path, load bias, and the segments with their sizes.
type Mapped = (String, u64, Vec<(u64, u64)>);

/// What a reader knows when it gives the events of a capture to a sink.
struct Feeder {
    sink: Box<dyn Sink>,
    codes: HashMap<u32, CodeId>,
    stacks: HashMap<u64, Vec<PythonFrame>>,
    /// The return addresses of each native stack, the outermost first, by its number.
    natives: Vec<Vec<u64>>,
    /// The maps of the generation that is being read.
    maps: Vec<Mapped>,
    maps_changed: bool,
}

impl Feeder {
    fn take(&mut self, record: &Record<'_>) {
        match *record {
            Record::MapStart => {
                self.maps.clear();
                self.maps_changed = true;
            }
            Record::Module { path, load_bias, .. } => {
                self.maps.push((String::from_utf8_lossy(path).into(), load_bias, Vec::new()));
            }
            Record::Segment { address, size } => {
                self.maps.last_mut().expect("a module").2.push((address, size));
            }
            _ => {
                self.write_maps();
                self.take_other(record);
            }
        }
    }

    fn write_maps(&mut self) {
        if std::mem::take(&mut self.maps_changed) {
            let modules: Vec<Module<'_>> = self
                .maps
                .iter()
                .map(|(path, load_bias, segments)| Module { path, load_bias: *load_bias, segments })
                .collect();
            self.sink.map_modules(&modules).expect("the file takes everything");
        }
    }

    fn take_other(&mut self, record: &Record<'_>) {
        match *record {
            Record::Code(code) => {
                let text = |bytes| std::str::from_utf8(bytes).expect("memray writes UTF-8");
                let object = CodeObject {
                    function: text(code.function),
                    file: text(code.file),
                    first_line: code.first_line,
                    line_table: code.line_table,
                };
                self.codes
                    .insert(code.id, self.sink.define_code(&object).expect("the file takes everything"));
            }
            Record::FramePush { thread, frame } => {
                let code = self.codes[&frame.code];
                let frame = PythonFrame { code, offset: frame.offset, is_entry: frame.is_entry };
                self.stacks.entry(thread).or_default().push(frame);
            }
            Record::FramePop { thread, count } => {
                let stack = self.stacks.get_mut(&thread).expect("frames were pushed");
                stack.truncate(stack.len() - count as usize);
            }
            Record::NativeFrame { ip, parent } => {
                let mut stack = self.natives[parent as usize].clone();
                stack.push(ip);
                self.natives.push(stack);
            }
            Record::ThreadName { thread, name } => {
                let name = std::str::from_utf8(name).expect("memray writes UTF-8");
                self.sink.name_thread(thread, name).expect("the file takes everything");
            }
            Record::Memory { rss, at_ms } => {
                self.sink.sample_memory(rss, at_ms).expect("the file takes everything");
            }
            Record::Call(call) => {
                let written = match call.allocator.kind() {
                    AllocatorKind::SimpleDeallocation => {
                        self.sink.free(call.thread, call.allocator, call.address)
                    }
                    AllocatorKind::RangedDeallocation => {
                        self.sink.unmap(call.thread, call.address, call.size)
                    }
                    _ => {
                        let frames = self.stacks.get(&call.thread).map_or(&[][..], Vec::as_slice);
                        let stack = self.sink.intern_stack(frames).expect("the file takes everything");
                        let ips = &self.natives[call.native as usize];
                        let native = self.sink.intern_native(ips).expect("the file takes everything");
                        self.allocate(&call, stack, native)
                    }
                };
                written.expect("the file takes everything");
            }
            _ => {}
        }
    }

    fn allocate(
        &mut self,
        call: &memprof::capture::Call,
        stack: StackId,
        native: NativeId,
    ) -> Result<(), memprof::capture::WriteError> {
        self.sink.allocate(call.thread, call.allocator, call.address, call.size, stack, native)
    }
}

/// Aggregates a capture with all allocations.
fn aggregate(from: &Path, to: &Path, compress: bool) {
    let mut reader = Reader::open(from).expect("memray has written it");
    let file = File::options().read(true).write(true).create_new(true).open(to).expect("a new file");
    let header = reader.header().clone();
    let end_ms = header.end_ms;
    let mut feeder = Feeder {
        sink: Box::new(AggregatingWriter::create(file, to, header).expect("the folder is writable")),
        codes: HashMap::new(),
        stacks: HashMap::new(),
        natives: vec![Vec::new()],
        maps: Vec::new(),
        maps_changed: false,
    };
    while let Some(record) = reader.next_record().expect("memray has written it") {
        feeder.take(&record);
    }
    feeder.sink.finish(end_ms, Extension::default(), compress).expect("the file takes everything");
}

/// By thread and stack: bytes.
type Bytes = BTreeMap<(u64, Vec<String>), u64>;

/// What a view of a capture says, and the number of allocations and the peak.
fn bytes_by_stack(capture: &Path, view: View) -> (Bytes, u64) {
    let question = Question { view, threads: Threads::Split, ..Question::default() };
    let profile = Profile::read(capture, &question, &mut |_, _| {}).expect("it was written");
    let mut namer = Namer::new(&profile.capture, native_names(&profile.capture));
    let mut sums = Bytes::new();
    let mut stack = Vec::new();
    for record in &profile.records {
        namer.stack(record, &mut stack);
        let names = stack.iter().map(|&frame| {
            let frame = namer.frame(frame);
            format!("{} {}:{}", frame.function, frame.file, frame.line)
        });
        *sums.entry((record.thread, names.collect())).or_default() += record.size;
    }
    sums.retain(|_, bytes| *bytes > 0);
    (sums, profile.peak_memory)
}

/// The numbers of allocations at the peak and at the end, which memray's reports on aggregated captures do not sum up.
fn counts(aggregated: &Path) -> (u64, u64) {
    let mut reader = Reader::open(aggregated).expect("it was written");
    let (mut at_peak, mut at_end) = (0, 0);
    while let Some(record) = reader.next_record().expect("it was written") {
        if let Record::Aggregate(aggregate) = record {
            at_peak += aggregate.high_water_count;
            at_end += aggregate.leaked_count;
        }
    }
    (at_peak, at_end)
}

fn count(capture: &Path, view: View) -> u64 {
    let question = Question { view, ..Question::default() };
    let profile = Profile::read(capture, &question, &mut |_, _| {}).expect("memray has written it");
    profile.records.iter().map(|record| record.n_allocations).sum()
}

#[test]
fn captures_aggregated_by_memprof_are_read_by_memray_and_say_the_same() {
    for (release, options, program) in [
        (Release::V1_20, &[][..], "allocate.py"),
        (Release::V1_20, &["--native"], "allocate.py"),
        (Release::V1_19, &["--trace-python-allocators"], "fork.py"),
    ] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (all, aggregated) = (folder.path().join("all.bin"), folder.path().join("aggregated.bin"));
        release.record(options, &[program], &all);
        aggregate(&all, &aggregated, options.is_empty());
        compare_reports(release, &aggregated, true);
        for view in [View::HighWater, View::Leaks] {
            let (expected, found) = (bytes_by_stack(&all, view), bytes_by_stack(&aggregated, view));
            for (stack, bytes) in &expected.0 {
                assert_eq!(found.0.get(stack), Some(bytes), "{options:?} {view:?} {stack:?}");
            }
            assert_eq!(found, expected, "{options:?} {view:?}");
        }
        assert_eq!(
            counts(&aggregated),
            (count(&all, View::HighWater), count(&all, View::Leaks)),
            "{options:?}"
        );
    }
}
