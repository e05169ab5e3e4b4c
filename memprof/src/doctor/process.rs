//! Facts about one process that might be traced.

use std::fs;

use crate::{
    probe::plan,
    target::{Process, TargetError, module},
    trace::recording::find_interpreter,
};

/// What was found about a process.
#[derive(Clone, Debug, Default)]
pub struct Inspected {
    /// Process id.
    pub pid: i32,
    /// Its command line.
    pub command_line: String,
    /// The files that hand out memory, as the process sees them, each with the functions that would be probed.
    pub allocators: Vec<(String, Vec<&'static str>)>,
    /// Files that could not be looked into, each with the reason.
    pub unreadable: Vec<String>,
    /// The Python interpreter's version, or why it could not be told; `None` where there is no interpreter.
    pub python: Option<Result<String, String>>,
    /// The mode of its seccomp: 0 none, 1 strict, 2 filters (`Seccomp` of proc(5)).
    pub seccomp: u32,
    /// The process that debugs it, 0 for none (`TracerPid` of proc(5)).
    pub tracer: i32,
    /// It is stopped by a signal (`State` of proc(5)).
    pub stopped: bool,
}

impl Inspected {
    /// Looks at a process as a recording would. The error says why it cannot be traced at all.
    pub fn look(pid: i32) -> Result<Self, TargetError> {
        let process = Process::open(pid)?;
        let mappings = process.mappings()?;
        let (modules, unreadable) = module::modules(&process, &mappings);
        let allocator = |module: &module::Module| {
            let plan = plan::allocators(module, &process.root());
            let names = plan.sites.iter().map(|(definition, _)| definition.name).collect();
            plan.is_allocator.then(|| (module.path.clone(), names))
        };
        let python = match find_interpreter(pid, &modules) {
            Ok(None) => None,
            Ok(Some(found)) => {
                let version = found.python.version.to_string();
                Some(found.confirmation.map(|_| version).map_err(|error| error.to_string()))
            }
            Err(error) => Some(Err(error.to_string())),
        };
        let inspected = Self {
            pid,
            command_line: process.command_line(),
            allocators: modules.iter().filter_map(allocator).collect(),
            unreadable: unreadable
                .into_iter()
                .map(|file| format!("{}: {}", file.path, file.reason))
                .collect(),
            python,
            ..Self::default()
        };
        // It may have ended meanwhile; then it has no seccomp any more either.
        Ok(inspected.with_status(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()))
    }

    /// Adds what the text of `/proc/PID/status` tells.
    fn with_status(mut self, status: &str) -> Self {
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
        };
        self.seccomp = field("Seccomp").parse().unwrap_or(0);
        self.tracer = field("TracerPid").parse().unwrap_or(0);
        self.stopped = field("State").starts_with(['T', 't']);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_tells_of_seccomp_tracer_and_state() {
        let status =
            "Name:\tSeccomp: 9\nState:\tT (stopped)\nTracerPid:\t77\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let inspected = Inspected::default().with_status(status);
        assert_eq!((inspected.seccomp, inspected.tracer, inspected.stopped), (2, 77, true));
        let inspected = Inspected::default().with_status("State:\tS (sleeping)\nSeccomp:\tx\n");
        assert_eq!((inspected.seccomp, inspected.tracer, inspected.stopped), (0, 0, false));
    }

    #[test]
    fn a_process_that_is_not_there_cannot_be_looked_at() {
        assert!(matches!(Inspected::look(i32::MAX), Err(TargetError::NoSuchProcess(i32::MAX))));
    }

    #[test]
    fn this_process_has_an_allocator_and_no_python() {
        let inspected = Inspected::look(std::process::id() as i32).unwrap();
        if inspected.unreadable.is_empty() {
            assert!(inspected.allocators.iter().any(|(file, _)| file.contains("libc")), "{inspected:?}");
        }
        assert!(inspected.python.is_none());
    }
}
