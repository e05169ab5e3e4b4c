//! Ends of threads, and changes of a process's list of loaded objects.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_attach_cookie, bpf_send_signal_thread},
    },
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
    maps::{PROCESSES, THREADS},
};

/// Ignored by default by whoever is not traced by the loader, so that nothing happens should the loader be
/// gone; a tracer sees the thread stop before the signal would be delivered.
const SIGURG: u32 = 23;

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

/// On the dynamic linker's `_dl_debug_state`: called after objects are mapped, before their constructors run.
#[uprobe]
pub fn modules_changed(ctx: ProbeContext) -> u32 {
    // SAFETY: the helper takes the program's context.
    let cookie = Cookie(unsafe { bpf_get_attach_cookie(ctx.as_ptr()) });
    let slot = cookie.slot();
    let Some(process) = PROCESSES.get(u32::from(slot)) else { return 0 };
    let tid = bpf_get_current_pid_tgid() as u32;
    emit::record(Outcome { header: emit::header(Kind::ModulesChanged, 0, slot, tid) }, slot, Counter::LostThread);
    if process.flags & process_flag::HOLD != 0 {
        // SAFETY: no pointer is passed.
        unsafe { bpf_send_signal_thread(SIGURG) };
    }
    0
}
