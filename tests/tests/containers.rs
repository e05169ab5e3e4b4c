//! Real containers, made by runc and by crun: a Debian and a musl system of Debian's packages, in namespaces of their own. Programs in
//! them are traced by the container's name, and have their names although no file of theirs can be reached by its path
//! from outside, and although the container is gone when the report is made.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use memprof::capture;
use memprof_tests::{
    fixture, memprof as command,
    program::{Program, Stream},
};
use serde_json::{Value, json};

/// Where the program finds its interpreter in the Debian system.
const SCRIPT: &str = "\
import os, sys
def keep_some():
    return [bytearray(50_000) for _ in range(40)]
def serve():
    global kept
    kept = keep_some()
print('ready', flush=True)
sys.stdin.readline()
serve()
print('served', flush=True)
sys.stdin.readline()
";

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{out}{err}");
    out.into_owned()
}

/// A Debian with Python, made once and kept.
fn debian() -> PathBuf {
    let root = fixture::workspace().join("target/test-roots/debian");
    if !root.exists() {
        let folder = root.parent().expect("it has one");
        fs::create_dir_all(folder).expect("target can be written to");
        let unfinished = folder.join(format!("unfinished.{}", process::id()));
        succeed(
            Command::new("debootstrap")
                .args(["--variant=minbase", "--include=python3-minimal", "bookworm"])
                .arg(&unfinished),
        );
        fs::rename(&unfinished, &root).expect("a folder just made can be renamed");
    }
    root
}

/// A system of musl and busybox in `root`, with the program of `fixtures/c/allocators.c` as `/bin/work`.
fn musl(root: &Path) {
    for folder in ["bin", "lib", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder can be made");
    }
    let copy = |from: &Path, to: &str| fs::copy(from, root.join(to)).expect("a file can be copied");
    copy(Path::new("/bin/busybox"), "bin/busybox");
    copy(&fs::canonicalize("/lib/ld-musl-x86_64.so.1").expect("musl is installed"), "lib/libc.musl.so");
    symlink("libc.musl.so", root.join("lib/ld-musl-x86_64.so.1")).expect("a link can be made");
    let flags: Vec<&str> = fixture::C_FLAGS.to_vec();
    copy(&fixture::compiled("musl-gcc", &fixture::file("c/allocators.c"), &flags), "bin/work");
}

/// A running container. It ends with the test.
struct Container {
    runtime: &'static str,
    name: String,
    program: Option<Program>,
    /// Its bundle; its root is only there for the container.
    folder: tempfile::TempDir,
}

impl Container {
    /// Runs `arguments` in it. Its root is mounted in a mount namespace of its own, over what is in `root`.
    fn run(runtime: &'static str, root: &Path, arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("memprof-test-{}-{number}", process::id());
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        for (path, mode) in [(folder.path().to_owned(), 0o755), (at("upper"), 0o755), (at("root"), 0o755)] {
            fs::create_dir_all(&path).expect("a folder can be made");
            // The container's root is nobody here, and has to get in.
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
        let mut config: Value = serde_json::from_str(&spec(runtime)).expect("the runtime's template is JSON");
        config["process"]["args"] = json!(arguments);
        config["process"]["terminal"] = json!(false);
        config["root"] = json!({ "path": at("root"), "readonly": true });
        let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup", "user"];
        config["linux"]["namespaces"] = json!(kinds.map(|kind| json!({ "type": kind })));
        let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
        fs::write(at("config.json"), config.to_string()).expect("a file can be written");
        let script = "umount /sys/fs/cgroup/unified 2>/dev/null; mount -t tmpfs none $1/upper && mkdir $1/upper/u $1/upper/w && \
            mount -t overlay -o lowerdir=$2,upperdir=$1/upper/u,workdir=$1/upper/w none $1/root && \
            exec $3 run --bundle $1 $4";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(folder.path())
            .arg(root)
            .args([runtime, &name]);
        Self { runtime, name, program: Some(Program::start(&mut command)), folder }
    }

    fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("it runs until it is removed")
    }

    /// Kills all that is in it, and removes every trace of it.
    fn remove(&mut self) {
        let Some(program) = self.program.take() else { return };
        let _ = Command::new(self.runtime).args(["kill", &self.name, "KILL"]).output();
        program.wait();
        let _ = Command::new(self.runtime).args(["delete", "--force", &self.name]).output();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The configuration that the runtime proposes.
fn spec(runtime: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    succeed(Command::new(runtime).arg("spec").current_dir(folder.path()));
    fs::read_to_string(folder.path().join("config.json")).expect("the runtime has written it")
}

/// Traces a container by its name until its program says `done`, ends it, and returns the capture of that program.
fn traced(container: &mut Container, folder: &Path, options: &[&str], done: &str) -> PathBuf {
    container.program().wait_for(Stream::Out, "ready");
    let mut attach = command::command(["attach", "--container", &container.name, "--output"]);
    attach.arg(folder).args(options);
    let mut memprof = Program::start(&mut attach);
    let told = memprof.wait_for(Stream::Err, "tracing process");
    assert!(told.contains("1 in its container"), "{told}");
    let inside = Path::new("/proc").join(pid(&told)).join("exe");
    let path = fs::read_link(inside).expect("the process is there");
    assert!(!container.folder.path().join("root").join(path.strip_prefix("/").unwrap_or(&path)).exists());
    container.program().send_line("begin");
    container.program().wait_for(Stream::Out, done);
    container.remove();
    let ended = memprof.wait();
    assert!(ended.status.success(), "{}", ended.err);
    let mut captures = fs::read_dir(folder).expect("the folder is there").flatten();
    let capture = captures.next().expect("there is a capture").path();
    let extension = capture::read_extension(&capture).expect("it can be read").expect("it has one");
    assert_eq!(extension.target.container.as_deref(), Some(container.name.as_str()));
    capture
}

/// The process id in `memprof: tracing process 12 (...`.
fn pid(told: &str) -> String {
    let (_, rest) = told.split_once("tracing process ").expect("it says so");
    rest.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_debian_with_python_in_a_container_of_runc_and_of_crun() {
    let script = format!("exec(bytes.fromhex('{}').decode())", hex(SCRIPT));
    for runtime in ["runc", "crun"] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut container = Container::run(runtime, &debian(), &["/usr/bin/python3", "-u", "-c", &script]);
        let capture = traced(&mut container, folder.path(), &["--native"], "served");
        let tree = command::output(["tree".as_ref(), capture.as_os_str()]);
        // The interpreter's own functions, by its dynamic symbols, and the program's.
        for name in ["serve", "keep_some", "PyByteArray_Resize"] {
            assert!(tree.contains(name), "{runtime}: no {name} in\n{tree}");
        }
    }
}

#[test]
fn a_musl_system_in_a_container_of_runc_and_of_crun() {
    for runtime in ["runc", "crun"] {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        musl(root.path());
        let mut container = Container::run(runtime, root.path(), &["/bin/work", "50"]);
        let capture = traced(&mut container, folder.path(), &["--native"], "blocks");
        let tree = command::output(["tree".as_ref(), capture.as_os_str()]);
        for name in ["round_of_all", "main"] {
            assert!(tree.contains(name), "{runtime}: no {name} in\n{tree}");
        }
    }
}

/// A program that joins the container later is traced as well.
#[test]
fn what_starts_later_in_a_group_is_traced_too() {
    let group = Group::make();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let program = fixture::c("allocators");
    let start = |text: &str| {
        let mut program =
            Program::start(Command::new("sh").args(["-c", text, "sh"]).arg(&group.0).arg(&program));
        program.wait_for(Stream::Out, "ready");
        program
    };
    let join = "echo $$ > $1/cgroup.procs && exec $2 20";
    let mut first = start(join);
    let mut attach = command::command(["attach", "--no-stacks", "--cgroup"]);
    let mut memprof = Program::start(attach.arg(&group.0).arg("--output").arg(folder.path()));
    memprof.wait_for(Stream::Err, "tracing process");
    let mut second = start(join);
    memprof.wait_for(Stream::Err, &format!("tracing process {}", second.pid()));
    for program in [&mut first, &mut second] {
        program.send_line("begin");
        program.wait_for(Stream::Out, "blocks");
    }
    let pids = [first.pid(), second.pid()];
    for mut program in [first, second] {
        program.send_line("end");
        assert!(program.wait().status.success(), "it ends as it would untraced");
    }
    memprof.signal(libc::SIGINT);
    let ended = memprof.wait();
    assert!(ended.status.success(), "{}", ended.err);
    for pid in pids {
        let mut captures = fs::read_dir(folder.path()).expect("the folder is there").flatten();
        let own =
            captures.find(|entry| entry.file_name().to_string_lossy().ends_with(&format!(".{pid}.bin")));
        let stats = command::stats(&own.expect("each has a capture").path());
        assert!(stats["total_num_allocations"].as_i64().expect("a number") > 100, "{stats}");
    }
}

#[test]
fn a_container_that_is_not_there_is_said() {
    let ended = command::finished(["attach", "--container", "no-such-container"]);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.err.contains("no running container no-such-container"), "{}", ended.err);
}

/// A control group of version 2, or of the first hierarchy where that is not mounted.
struct Group(PathBuf);

impl Group {
    fn make() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("there is one");
        let place = |kind: &str| {
            let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            mounts.find(|fields| fields[2] == kind).map(|fields| PathBuf::from(fields[1]))
        };
        let root = place("cgroup2").or_else(|| place("cgroup")).expect("control groups are mounted");
        let folder = root.join(format!("memprof-test-{}", process::id()));
        fs::create_dir(&folder).expect("root can make a control group");
        Self(folder)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
