//! `cargo xtask test-kernels`: the same object on other kernels, in machines of their own.
//!
//! Debian's kernels are downloaded and unpacked, not installed, and booted by qemu in software with a file system that holds
//! memprof and a few programs. What they print comes back over the serial line and is judged here.

mod initramfs;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{
    shell::{cargo, quietly},
    workspace,
};
use initramfs::Initramfs;

/// Test that programs can be traced on Debian's kernels 6.1 and 6.12, and the modes that look at a whole host, in machines of
/// qemu.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print all that the machines say
    #[arg(short, long)]
    verbose: bool,
}

/// Debian's meta packages for kernels, and how the releases begin that they stand for.
const KERNELS: [(&str, &str); 2] =
    [("linux-image-cloud-amd64", "6.1."), ("linux-image-6.12-cloud-amd64", "6.12.")];

/// Seconds that a machine is given; on an idle host it takes a minute.
const PATIENCE: &str = "600";

/// What the machine runs after booting; each step's outcome stands between lines of its own.
const INIT: &str = include_str!("init.sh");

const PYTHON: &str = "/usr/bin/python3";

pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = workspace().join("target/test-kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Two of these may run at a time.
    let work = tempfile::tempdir_in(&folder)?;
    let archive = work.path().join("initramfs");
    fs::write(&archive, file_system(work.path())?).context("cannot write the file system of the machines")?;
    for (package, release) in KERNELS {
        let begin = Instant::now();
        let kernel = kernel(&folder, package)?;
        let said = boot(&kernel, &archive)?;
        if arguments.verbose {
            println!("{said}");
        }
        let outcome =
            judge(&said, release).with_context(|| format!("with {package}; the machine said:\n{said}"))?;
        println!("{outcome}, in {:.0} s", begin.elapsed().as_secs_f64());
    }
    println!("{} passed, 0 failed", KERNELS.len());
    Ok(())
}

/// The kernel of a package, downloaded if need be.
fn kernel(folder: &Path, meta: &str) -> anyhow::Result<PathBuf> {
    let text = quietly(Command::new("apt-cache").args(["depends", meta]))?;
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| format!("apt knows no kernel by {meta}: run apt-get update"))?;
    let unpacked = folder.join(package);
    if !unpacked.exists() {
        let work = tempfile::tempdir_in(folder)?;
        let sandbox = ["-o", "APT::Sandbox::User=root"];
        quietly(
            Command::new("apt-get").args(sandbox).args(["--quiet", "download", package]).current_dir(&work),
        )?;
        let archive = only_file(work.path())?;
        let whole = work.path().join("whole");
        quietly(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&whole))?;
        fs::rename(whole.join("boot"), &unpacked).context("cannot keep the kernel")?;
    }
    let mut files = fs::read_dir(&unpacked)?.flatten().map(|entry| entry.path());
    let is_kernel =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    files.find(is_kernel).with_context(|| format!("{package} holds no kernel"))
}

fn only_file(folder: &Path) -> anyhow::Result<PathBuf> {
    let first = fs::read_dir(folder)?.next().context("apt-get has downloaded nothing")?;
    Ok(first?.path())
}

/// The file system of the machines.
fn file_system(folder: &Path) -> anyhow::Result<Vec<u8>> {
    quietly(cargo().current_dir(workspace()).args(["build", "--quiet", "--package", "memprof"]))?;
    let memprof = folder.join("memprof");
    let built = workspace().join("target/debug/memprof");
    quietly(Command::new("strip").arg("-o").arg(&memprof).arg(&built))?;

    let mut files = Initramfs::default();
    for empty in ["/proc", "/sys", "/dev", "/tmp", "/captures"] {
        files.folder(Path::new(empty))?;
    }
    files.add(Path::new("/init"), 0o755, INIT.as_bytes())?;
    files.copy(Path::new("/bin/busybox"), Path::new("/bin/busybox"))?;
    files.program(&memprof, Path::new("/bin/memprof"))?;
    for name in ["ledger", "allocators", "faults"] {
        let program = folder.join(name);
        let source = workspace().join(format!("tests/fixtures/c/{name}.c"));
        let flags = ["-g", "-O1", "-w", "-fno-builtin", "-pthread", "-o"];
        quietly(Command::new("gcc").args(flags).arg(&program).arg(source))?;
        files.program(&program, &Path::new("/bin").join(name))?;
    }
    let python = fs::canonicalize(PYTHON).with_context(|| format!("cannot find {PYTHON}"))?;
    files.program(&python, Path::new("/usr/bin/python3"))?;
    // All else that starting takes is within the interpreter.
    let name = python.file_name().context("an interpreter has a name")?;
    files.copy_folder(&Path::new("/usr/lib").join(name).join("encodings"))?;
    files.finish()
}

/// Boots a machine, and returns what it has said when it has switched itself off.
fn boot(kernel: &Path, archive: &Path) -> anyhow::Result<String> {
    let mut qemu = Command::new("timeout");
    qemu.args([PATIENCE, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(archive);
    quietly(&mut qemu)
}

/// What a machine has said, judged.
fn judge(said: &str, release: &str) -> anyhow::Result<String> {
    let said = said.replace('\r', "");
    let kernel = section(&said, "kernel")?.trim().to_owned();
    ensure!(kernel.starts_with(release), "it runs {kernel}, not {release}");
    ensure!(section(&said, "doctor")?.contains("memprof can record."), "the doctor is not content");

    let ledger = section(&said, "ledger")?;
    let account = parsed(line_with(ledger, "\"functions\"")?)?;
    let stats: Value =
        serde_json::from_str(section(&said, "ledger stats")?).context("the statistics are no JSON")?;
    ensure!(stats["total_num_allocations"] == account["total"]["blocks"], "the ledger's blocks differ");
    ensure!(stats["total_bytes_allocated"] == account["total"]["bytes"], "the ledger's bytes differ");
    ensure!(stats["metadata"]["peak_memory"] == account["peak_bytes"], "the ledger's peak differs");

    let table = section(&said, "python")?;
    for name in ["outer", "inner", "work.py"] {
        ensure!(table.contains(name), "no {name} in the tree of the Python program");
    }
    let host = section(&said, "host")?;
    let lines: Vec<&str> = host.lines().filter(|line| line.starts_with('{')).collect();
    ensure!(lines.len() == 6, "of three processes it told {} of six lines", lines.len());
    for (number, pair) in lines.chunks(2).enumerate() {
        let (account, stats) = (parsed(pair[0])?, parsed(pair[1])?);
        // Of the one that came later something is seen that was before its account: but no call of this function.
        let aligned = &stats["allocator_type_distribution"]["POSIX_MEMALIGN"];
        let same = *aligned == account["functions"]["posix_memalign"]["blocks"]
            && (number == 2 || stats["total_num_allocations"] == account["total"]["blocks"]);
        ensure!(same, "process {number} of the host made {account}, but was seen to make {stats}");
    }
    let own = line_with(host, "own: ")?.split(' ').skip(1).collect::<Vec<_>>();
    for pid in own {
        ensure!(
            !host.contains(&format!(".{pid}.bin")),
            "memprof has traced itself or its parent, process {pid}"
        );
    }
    judge_choices(&said)?;
    judge_sandbox(section(&said, "sandbox")?, &kernel)?;
    let blocks = &account["total"]["blocks"];
    Ok(format!("Linux {kernel}: {blocks} allocations counted exactly, Python named, the whole host traced"))
}

/// The captures are those of the processes that were chosen.
fn judge_choices(said: &str) -> anyhow::Result<()> {
    for (choice, has_first) in [("uid", false), ("comm", true)] {
        let line = line_with(section(said, choice)?, "first ")?;
        let words: Vec<&str> = line.split(' ').collect();
        let ["first", first, "second", second, "chosen", ref chosen @ ..] = words[..] else {
            bail!("step {choice:?} said: {line}");
        };
        let expected = chosen.contains(&second) && chosen.contains(&first) == has_first;
        let count = 1 + usize::from(has_first);
        ensure!(expected && chosen.len() == count, "by {choice} these were chosen: {line}");
    }
    Ok(())
}

/// The process lives, and was traced where that does it no harm.
fn judge_sandbox(said: &str, kernel: &str) -> anyhow::Result<()> {
    ensure!(said.contains("it lives"), "a process with filters of system calls was killed");
    // Before these probes were a system call, there was nothing to fear (Linux 6.11).
    let expected = if kernel.starts_with("6.1.") { "nothing lost" } else { "could kill it" };
    ensure!(said.contains(expected), "of a process with filters memprof did not say {expected:?}: {said}");
    Ok(())
}

/// What stands between the lines `==== NAME` and `====`.
fn section<'s>(said: &'s str, name: &str) -> anyhow::Result<&'s str> {
    let begin = format!("==== {name}\n");
    let Some((_, rest)) = said.split_once(&begin) else { bail!("it came to no step {name:?}") };
    let (section, _) = rest.split_once("\n====").with_context(|| format!("step {name:?} has no end"))?;
    Ok(section)
}

fn line_with<'t>(text: &'t str, part: &str) -> anyhow::Result<&'t str> {
    text.lines().find(|line| line.contains(part)).with_context(|| format!("no line with {part:?}"))
}

fn parsed(line: &str) -> anyhow::Result<Value> {
    serde_json::from_str(line).with_context(|| format!("this is no JSON: {line}"))
}
