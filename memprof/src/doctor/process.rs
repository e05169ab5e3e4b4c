//! Facts about one process that might be traced.

use crate::{
    probe::plan,
    target::{
        Process, TargetError,
        hazard::{self, Hazard, Status},
        module,
    },
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
    /// What its status says.
    pub status: Status,
    /// What there is to know of it before it is probed.
    pub hazards: Vec<Hazard>,
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
        Ok(Self {
            pid,
            command_line: process.command_line(),
            allocators: modules.iter().filter_map(allocator).collect(),
            unreadable: unreadable
                .into_iter()
                .map(|file| format!("{}: {}", file.path, file.reason))
                .collect(),
            python,
            // It may have ended meanwhile; then it has no seccomp any more either.
            status: Status::of_process(pid),
            hazards: hazard::of_process(pid, &modules),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
