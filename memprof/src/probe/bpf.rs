//! The calls of `bpf(2)` that aya does not make: programs and links for many probes at a time
//! (`include/uapi/linux/bpf.h`, `kernel/trace/bpf_trace.c`).

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya_obj::{
    Function,
    generated::{
        bpf_attach_type::BPF_TRACE_UPROBE_MULTI,
        bpf_attr,
        bpf_cmd::{self, BPF_BTF_LOAD, BPF_LINK_CREATE, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_LOAD},
        bpf_insn, bpf_prog_info,
        bpf_prog_type::BPF_PROG_TYPE_KPROBE,
    },
};

/// `BPF_F_UPROBE_MULTI_RETURN`: the programs run at the return of the probed functions.
const RETURN: u32 = 1;

/// Bytes of the verifier's log that are kept: its end, which says what is wrong (Linux 6.4).
const LOG_SIZE: usize = 1 << 16;

/// Loads type information.
pub fn load_btf(bytes: &[u8]) -> io::Result<OwnedFd> {
    // SAFETY: for every member of the union all bits zero are a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the member that the command reads; the pointer is valid during the call.
    let load = unsafe { &mut attributes.__bindgen_anon_7 };
    load.btf = bytes.as_ptr() as u64;
    load.btf_size = bytes.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    descriptor(BPF_BTF_LOAD, &mut attributes)
}

/// Loads a program for links of many probes. With `log` the verifier writes there what it has found.
pub fn load_program(
    function: &Function,
    license: &CStr,
    btf: BorrowedFd<'_>,
    log: Option<&mut String>,
) -> io::Result<OwnedFd> {
    let functions = function.func_info.func_info_bytes();
    let lines = function.line_info.line_info_bytes();
    let mut buffer = vec![0_u8; if log.is_some() { LOG_SIZE } else { 0 }];
    let mut attributes = program(&function.instructions, license)?;
    // SAFETY: the member that the command reads; all pointers are valid during the call.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    for (place, byte) in load.prog_name.iter_mut().zip(function.name.bytes().take(15)) {
        *place = byte.cast_signed();
    }
    load.prog_btf_fd = btf.as_raw_fd().cast_unsigned();
    load.func_info = functions.as_ptr() as u64;
    load.func_info_cnt = function.func_info.len() as u32;
    load.func_info_rec_size = function.func_info_rec_size as u32;
    load.line_info = lines.as_ptr() as u64;
    load.line_info_cnt = function.line_info.len() as u32;
    load.line_info_rec_size = function.line_info_rec_size as u32;
    if log.is_some() {
        load.log_level = 1;
        load.log_buf = buffer.as_mut_ptr() as u64;
        load.log_size = buffer.len() as u32;
    }
    let loaded = descriptor(BPF_PROG_LOAD, &mut attributes);
    if let Some(log) = log {
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(buffer.len());
        *log = String::from_utf8_lossy(&buffer[..end]).into_owned();
    }
    loaded
}

/// The verifier's log has thousands of lines, of which the last before its statistics says what is wrong.
pub fn last_word(log: &str) -> &str {
    let mut lines = log.lines().rev();
    lines.find(|line| !line.is_empty() && !is_statistics(line)).unwrap_or_default().trim()
}

fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "].iter().any(|start| line.starts_with(start))
}

/// Loads a program that does nothing.
pub fn load_nothing() -> io::Result<OwnedFd> {
    // r0 = 0; exit
    let instructions = [0xb7, 0x95].map(|code| {
        // SAFETY: an instruction is eight bytes of integers.
        let mut instruction: bpf_insn = unsafe { mem::zeroed() };
        instruction.code = code;
        instruction
    });
    descriptor(BPF_PROG_LOAD, &mut program(&instructions, c"Dual MIT/GPL")?)
}

fn program(instructions: &[bpf_insn], license: &CStr) -> io::Result<bpf_attr> {
    // SAFETY: for every member of the union all bits zero are a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: plain integers.
    let load = unsafe { &mut attributes.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
    load.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    load.insns = instructions.as_ptr() as u64;
    load.insn_cnt = instructions.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    load.license = license.as_ptr() as u64;
    Ok(attributes)
}

/// Instructions that the verifier has followed.
pub fn verified_instructions(program: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: integers.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    // SAFETY: for every member of the union all bits zero are a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the member that the command reads; the pointer is valid during the call.
    let query = unsafe { &mut attributes.info };
    query.bpf_fd = program.as_raw_fd().cast_unsigned();
    query.info_len = size_of::<bpf_prog_info>() as u32;
    query.info = (&raw mut info) as u64;
    call(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info.verified_insns)
}

/// Where a link's probes are.
#[derive(Debug, Default)]
pub struct Places {
    /// Offsets in the file.
    pub offsets: Vec<u64>,
    /// What the program is told at each.
    pub cookies: Vec<u64>,
}

/// Runs a program at places of a file, at the functions' returns with `at_return`, in the process `pid` alone; or makes a
/// trial that cannot succeed, with a process id that cannot be.
pub fn link(
    program: impl AsFd,
    path: &Path,
    places: &Places,
    at_return: bool,
    pid: u32,
) -> io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = CString::new(path.as_os_str().as_bytes())?;
    if places.offsets.len() != places.cookies.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: for every member of the union all bits zero are a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the member that the command reads; all pointers are valid during the call.
    unsafe {
        let link = &mut attributes.link_create;
        link.__bindgen_anon_1.prog_fd = program.as_fd().as_raw_fd().cast_unsigned();
        link.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
        let probes = &mut link.__bindgen_anon_3.uprobe_multi;
        probes.path = path.as_ptr() as u64;
        probes.offsets = places.offsets.as_ptr() as u64;
        probes.cookies = places.cookies.as_ptr() as u64;
        probes.cnt = places.offsets.len() as u32;
        probes.flags = if at_return { RETURN } else { 0 };
        probes.pid = pid;
    }
    descriptor(BPF_LINK_CREATE, &mut attributes)
}

fn descriptor(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let descriptor = call(command, attributes)?;
    // SAFETY: the command returns a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn call(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attributes are as large as said; what their pointers point to is the callers' to keep.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as u32, &raw mut *attributes, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
