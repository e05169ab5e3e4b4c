//! The native walk on the real kernel: its programs loaded, probes on a running process, stacks received.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::maps::RingBuf;
use aya::programs::UProbe;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::{Ebpf, EbpfLoader};
use memprof::target::{Process, module};
use memprof::unwind::Tables;
use memprof::unwind::table::{Descriptors, Limits, Update};
use memprof_common::unwind::bench::Stack;
use memprof_common::unwind::{End, ReturnProbes};

use crate::fixture::workspace;

/// Bytes of the tables' arrays: as much as `memprof` has where nothing else is said.
pub const MEMORY: u64 = 48 << 20;

/// The slot that a probed process has.
pub const SLOT: u16 = 5;

/// The programs and tables of the walk.
pub struct Walker {
    /// The loaded object.
    pub ebpf: Ebpf,
    /// What the kernel knows of files and processes.
    pub tables: Tables,
}

/// The object with the walk's programs, built from this tree when it is first asked for.
pub fn object() -> anyhow::Result<Vec<u8>> {
    static OBJECT: Mutex<Option<Vec<u8>>> = Mutex::new(None);
    let mut object = OBJECT.lock().unwrap_or_else(PoisonError::into_inner);
    if object.is_none() {
        *object = Some(build()?);
    }
    object.clone().context("it was just built")
}

fn build() -> anyhow::Result<Vec<u8>> {
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(workspace())
        .args(["xtask", "build-ebpf", "--bench"])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the walk's programs do not compile: {errors}");
    let path = String::from_utf8(output.stdout)?;
    Ok(fs::read(path.trim_end())?)
}

impl Walker {
    /// Loads the object.
    pub fn load(return_probes: ReturnProbes) -> anyhow::Result<Self> {
        let limits = Limits::of_bytes(MEMORY);
        let object = object()?;
        let mut loader = EbpfLoader::new();
        limits.set(&mut loader);
        let ebpf = loader.override_global("RETURN_PROBES", &return_probes, true).load(&object)?;
        let tables = Tables::new(Descriptors::of(&ebpf)?, limits)?;
        Ok(Self { ebpf, tables })
    }

    /// Makes the tables of a process as it is now.
    pub fn update(&mut self, pid: u32, slot: u16) -> anyhow::Result<Update> {
        let process = Process::open(pid.try_into()?)?;
        let mappings = process.mappings()?;
        let (modules, _) = module::modules(&process, &mappings);
        Ok(self.tables.update(slot, &mappings, |id| {
            modules.iter().find(|module| module.id == *id).map(|module| module.file.clone())
        }))
    }

    /// Puts a program on a place in a file, in one process.
    pub fn attach(
        &mut self,
        program: &str,
        offset: u64,
        path: &Path,
        pid: u32,
        slot: u16,
    ) -> anyhow::Result<()> {
        let found = self.ebpf.program_mut(program).ok_or_else(|| anyhow!("no program {program}"))?;
        let probe: &mut UProbe = found.try_into()?;
        if probe.fd().is_err() {
            probe.load()?;
        }
        let location = UProbeAttachLocation::AbsoluteOffset(offset);
        let point = UProbeAttachPoint { location, cookie: Some(u64::from(slot)) };
        let pid = NonZeroU32::new(pid).context("process 0")?;
        probe.attach(point, path, UProbeScope::OneProcess(pid))?;
        Ok(())
    }

    /// Takes the ring buffer.
    pub fn events(&mut self) -> anyhow::Result<RingBuf<aya::maps::MapData>> {
        Ok(RingBuf::try_from(self.ebpf.take_map("BENCH_EVENTS").context("no ring buffer")?)?)
    }
}

/// One received stack.
#[derive(Clone, Debug)]
pub struct Received {
    /// First argument of the probed function.
    pub argument: u64,
    /// How the walk ended.
    pub end: End,
    /// Frames found by the frame pointer alone.
    pub guessed: u32,
    /// Addresses, innermost first.
    pub addresses: Vec<u64>,
}

/// Everything in the ring buffer.
pub fn receive(events: &mut RingBuf<aya::maps::MapData>) -> Vec<Received> {
    let mut received = Vec::new();
    while let Some(item) = events.next() {
        assert_eq!(item.len(), size_of::<Stack>());
        // SAFETY: the record has the struct's size, and any bytes make one.
        let stack = unsafe { item.as_ptr().cast::<Stack>().read_unaligned() };
        received.push(Received {
            argument: stack.argument,
            end: End::from_number(stack.end).expect("an end that is known"),
            guessed: stack.guessed,
            addresses: stack.frames[..stack.count as usize].iter().map(|frame| frame.address).collect(),
        });
    }
    received
}

/// Where in its file a function begins.
pub fn symbol_offset(path: &Path, name: &str) -> anyhow::Result<u64> {
    use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};
    let bytes = fs::read(path)?;
    let file = object::File::parse(bytes.as_slice())?;
    let symbol = file
        .symbols()
        .chain(file.dynamic_symbols())
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
        .with_context(|| format!("{} has no symbol {name}", path.display()))?;
    file.segments()
        .find_map(|segment| {
            let within = symbol.address().checked_sub(segment.address())?;
            let (offset, size) = segment.file_range();
            (within < size).then_some(offset + within)
        })
        .context("the symbol lies in no segment")
}

/// A program of `fixtures/native`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/native").join(name)
}

/// Runs a command that must succeed; the error has what it printed.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Makes a command run its program at the same addresses each time, as gdb does.
pub fn without_randomization(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}

/// Waits until a child has stopped itself.
pub fn wait_stopped(child: &Child) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        match stat.rsplit(") ").next().and_then(|rest| rest.chars().next()) {
            Some('T') => return Ok(()),
            Some('Z') | None => bail!("the program ended before it was ready"),
            Some(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    bail!("the program did not stop itself")
}

/// Lets a stopped child go on.
pub fn go_on(child: &Child) -> anyhow::Result<()> {
    // SAFETY: a signal to our own child.
    let result = unsafe { libc::kill(child.id().try_into()?, libc::SIGCONT) };
    ensure!(result == 0, std::io::Error::last_os_error());
    Ok(())
}
