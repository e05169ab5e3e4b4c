//! Ends of threads, new programs, and changes of a process's list of loaded objects.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_get_attach_cookie},
    macros::{raw_tracepoint, uprobe},
    programs::{ProbeContext, RawTracePointContext},
};
use memprof_common::{
    counter::Counter,
    event::{Kind, Outcome},
    function::Cookie,
    process::process_flag,
};

use crate::{
    emit,
    maps::{PROCESS_STATES, PROCESSES, SLOTS, THREADS},
};

/// `sched_process_exit`: forgets a thread, and sends its last name.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn thread_exit(_ctx: RawTracePointContext) -> i32 {
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: only the thread itself uses its entry.
    if let Some(thread) = unsafe { THREADS.get(tid) } {
        if thread.announced != 0 {
            let slot = (thread.announced - 1) as u16;
            emit::thread_record(Kind::ThreadEnd, thread.thread_pointer, slot, tid);
        }
        let _ = THREADS.remove(tid);
    }
    0
}

/// `sched_process_exec`: nothing that was known of the old program holds for the new one.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    let tid = bpf_get_current_pid_tgid() as u32;
    // After an exec the only thread left is the group's leader.
    // SAFETY: the value is a word.
    let Some(slot) = (unsafe { SLOTS.get(tid) }) else { return 0 };
    let slot = *slot as u16;
    let _ = THREADS.remove(tid);
    if let Some(state) = PROCESS_STATES.get_ptr_mut(u32::from(slot)) {
        // SAFETY: no other thread of the process is left; each member is a word.
        unsafe {
            (*state).tss_key = 0;
            (*state).generation = bpf_ktime_get_ns();
        }
    }
    // TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
    let former: u32 = ctx.arg(1);
    let other_task = u8::from(former != tid);
    emit::record(
        Outcome { header: emit::header(Kind::Exec, other_task, slot, tid) },
        slot,
        Counter::LostThread,
    );
    0
}

/// `clone` flag: the new task shares the memory.
const CLONE_VM: u64 = 0x100;

/// `task_newtask`: a child with memory of its own has a copy of the breakpoints, though no program runs for it.
#[raw_tracepoint(tracepoint = "task_newtask")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    // TP_PROTO(struct task_struct *task, u64 clone_flags)
    let flags: u64 = ctx.arg(1);
    if flags & CLONE_VM != 0 {
        return 0;
    }
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: the value is a word.
    let Some(slot) = (unsafe { SLOTS.get((ids >> 32) as u32) }) else { return 0 };
    let slot = *slot as u16;
    let header = emit::header(Kind::Fork, 0, slot, ids as u32);
    emit::record(Outcome { header }, slot, Counter::LostThread);
    0
}

/// On the dynamic linker's `_dl_debug_state`: called after objects are mapped, before their constructors run.
#[uprobe]
pub fn modules_changed(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper takes the program's context.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let slot = cookie.slot();
    let Some(process) = PROCESSES.get(u32::from(slot)) else { return 0 };
    let tid = bpf_get_current_pid_tgid() as u32;
    emit::record(
        Outcome { header: emit::header(Kind::ModulesChanged, 0, slot, tid) },
        slot,
        Counter::LostThread,
    );
    if process.flags & process_flag::HOLD != 0 {
        emit::hold();
    }
    0
}
