//! What processes count of their own allocations (`fixtures/c/counting.c`), and what their captures hold.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use memprof::capture::{Allocator, Ending, Reader, Record, read_extension};

use tempfile::TempDir;

use crate::{
    fixture,
    left_behind::Watch,
    memprof as command,
    program::{Ended, Program},
};

/// Numbers of allocations of each program that a process ran, in order, by process id. Programs that allocated nothing are
/// left out, and so are processes without any other.
pub type Counts = BTreeMap<i32, Vec<u64>>;

/// The program and words in front of a command by which it and all its descendants count their allocations into a folder.
pub fn counting(folder: &Path) -> [OsString; 3] {
    let flags = [&fixture::C_FLAGS[..], &["-shared", "-fPIC"]].concat();
    let library = fixture::compiled("gcc", &fixture::file("c/counting.c"), &flags);
    let variable = |name: &str, value: &Path| {
        let mut word = OsString::from(name);
        word.push(value);
        word
    };
    ["env".into(), variable("LD_PRELOAD=", &library), variable("COUNTS=", folder)]
}

/// What the processes have counted.
pub fn by_the_processes(folder: &Path) -> Counts {
    let mut counts: BTreeMap<(i32, u32), u64> = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder of counts can be listed") {
        let path = entry.expect("the folder of counts can be listed").path();
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let (pid, number) = name.split_once('.').expect("a file of counts is called <pid>.<n>");
        let key = (pid.parse().expect("a process id"), number.parse().expect("a number"));
        let bytes = fs::read(&path).expect("a file of counts can be read");
        let words = bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
        counts.insert(key, words.sum());
    }
    let mut found = Counts::new();
    for ((pid, _), count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        found.entry(pid).or_default().push(count);
    }
    found
}

/// What the captures in a folder hold, by the process that each names itself; `env` of [`counting`] left out, which does not
/// count. Panics at one that is not whole.
pub fn by_the_captures(folder: &Path) -> Counts {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder can be listed").flatten().map(|entry| entry.path()).collect();
    // `x.bin` is that of the last program of a process: behind `x.bin.before-exec1`.
    paths.sort_by_key(|path| {
        let name = path.to_string_lossy().into_owned();
        (!name.contains(".before-exec"), name)
    });
    let mut found = Counts::new();
    for path in paths.into_iter().filter(|path| !path.to_string_lossy().contains("memprof-env.")) {
        let (pid, count) = allocations(&path);
        if count > 0 {
            found.entry(pid).or_default().push(count);
        }
    }
    found
}

/// The process of a whole capture, and the number of allocations by the functions that `counting.c` counts.
pub fn allocations(path: &Path) -> (i32, u64) {
    let mut reader = Reader::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut count = 0;
    loop {
        match reader.next_record().unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
            Some(Record::Call(call)) => {
                let maps = matches!(call.allocator, Allocator::Mmap | Allocator::PythonArena);
                count += u64::from(call.allocator.allocates() && !maps);
            }
            Some(_) => {}
            None => break,
        }
    }
    assert_eq!(reader.ending(), Some(&Ending::Finished), "{} is whole", path.display());
    (reader.header().pid, count)
}

/// The number of allocations that the recording of a capture has lost.
pub fn lost(path: &Path) -> u64 {
    let extension =
        read_extension(path).expect("the capture can be read").expect("memprof's have an extension");
    let lost = extension.losses.iter().filter(|loss| loss.name.starts_with("allocations lost"));
    lost.map(|loss| loss.count).sum()
}

/// A folder for captures and one for counts.
pub struct Folders {
    root: TempDir,
}

impl Folders {
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        for name in ["captures", "counts"] {
            fs::create_dir(root.path().join(name)).expect("a folder can be made in a new one");
        }
        Self { root }
    }

    /// The folder around both, in which commands are run.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn captures(&self) -> PathBuf {
        self.root.path().join("captures")
    }

    pub fn counts(&self) -> PathBuf {
        self.root.path().join("counts")
    }

    /// Runs a command under memprof, each of its processes counting. Returns what was counted.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(
        &self,
        options: &[&str],
        words: impl IntoIterator<Item = A>,
    ) -> (Ended, Counts) {
        let mut command = command::command(["run", "-o"]);
        command.arg(self.captures()).args(options).arg("--").args(counting(&self.counts())).args(words);
        let mut program = Program::start(command.current_dir(self.root.path()));
        let watch = Watch::start(program.pid());
        program.close_input();
        let ended = program.wait_for_long();
        assert!(watch.assert_nothing_left() > 0, "it had programs and links");
        assert!(ended.status.success(), "memprof failed: {}\n{}", ended.status, ended.err);
        assert!(!ended.err.contains("lost,"), "nothing is lost:\n{}", ended.err);
        let counts = self.compare(&ended);
        (ended, counts)
    }

    /// Every process's captures hold what it has counted.
    #[track_caller]
    fn compare(&self, ended: &Ended) -> Counts {
        let captured = by_the_captures(&self.captures());
        assert_eq!(captured, by_the_processes(&self.counts()), "{}", ended.err);
        captured
    }
}
