//! Which frames belong to the interpreter or to its import system.
//!
//! The rules are memray's (`memray/reporters/frame_tools.py`), so that the same frames are hidden here
//! and there: a frame *internal* to CPython is left out of flame graphs and trees altogether, frames of the
//! *import system* and of `runpy` can be shown or hidden by the reader of a report.

/// What a frame is to the reader of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The program, its libraries, native code.
    Program,
    /// The import system: `<frozen importlib…>` and the interpreter's `import_name` and its kin.
    ImportSystem,
    /// `runpy`, which starts scripts and modules.
    Runner,
    /// A C function with which CPython calls and evaluates; left out of trees.
    Internal,
}

/// C functions of the interpreter whose names do not tell it by their prefix.
const INTERNAL_FUNCTIONS: [&str; 19] = [
    "PyObject_Call",
    "call_function",
    "classmethoddescr_call",
    "cmpwrapper_call",
    "do_call_core",
    "fast_function",
    "function_call",
    "function_code_fastcall",
    "instance_call",
    "instancemethod_call",
    "methoddescr_call",
    "proxy_call",
    "slot_tp_call",
    "trace_call_function",
    "type_call",
    "weakref_call",
    "wrap_call",
    "wrapper_call",
    "wrapperdescr_call",
];

/// Folders of CPython's sources, one of which stands in the path of an internal function.
const CPYTHON_FOLDERS: [&str; 5] = ["Include", "Objects", "Modules", "Python", "cpython"];

/// The kind of a frame, from its function and the file of its source.
///
/// Without debug information the file of a native frame is `<unknown>`: then nothing is internal.
pub fn frame_kind(function: &str, file: &str) -> FrameKind {
    if is_internal(function, file) {
        FrameKind::Internal
    } else if file.contains("frozen importlib")
        || (matches!(function, "import_name" | "import_from" | "import_all_from")
            && file.ends_with("ceval.c"))
    {
        FrameKind::ImportSystem
    } else if file.ends_with("runpy.py") || file == "<frozen runpy>" {
        FrameKind::Runner
    } else {
        FrameKind::Program
    }
}

fn is_internal(function: &str, file: &str) -> bool {
    let named = function.contains("PyEval_EvalFrameEx")
        || function.contains("_PyEval_EvalFrameDefault")
        || (function.starts_with("_TAIL_CALL_") && function.contains(".llvm."))
        || function.starts_with("PyEval")
        || function.starts_with("_Py")
        || function.to_lowercase().contains("vectorcall")
        || INTERNAL_FUNCTIONS.contains(&function)
        || file.contains("Objects/call.c");
    named && is_cpython_source(file)
}

/// Whether a file is a C source of CPython.
///
/// memray searches for `(Include|Objects|Modules|Python|cpython).*\.[c|h]$` in the path as the compiler was given
/// it, most often `Python/ceval.c` or `../Parser/pegen.c`. Here paths are full, and a folder such as
/// `/build/Python-3.11.7` above all of them must not count: folders have to have exactly these names.
fn is_cpython_source(file: &str) -> bool {
    let Some((folders, name)) = file.rsplit_once('/') else { return false };
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(extension, Some("c" | "h")) && folders.split('/').any(|folder| CPYTHON_FOLDERS.contains(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_of_the_interpreter_is_internal_where_its_source_is_known() {
        assert_eq!(frame_kind("_PyEval_EvalFrameDefault", "./Python/ceval.c"), FrameKind::Internal);
        assert_eq!(frame_kind("_PyEval_EvalFrameDefault", "<unknown>"), FrameKind::Program);
        assert_eq!(frame_kind("type_call", "Objects/typeobject.c"), FrameKind::Internal);
        assert_eq!(
            frame_kind("cfunction_VectorCall_FASTCALL", "Objects/methodobject.c"),
            FrameKind::Internal
        );
        assert_eq!(frame_kind("anything", "Objects/call.c"), FrameKind::Internal);
        assert_eq!(frame_kind("anything", "Objects/call.cpp"), FrameKind::Program);
        assert_eq!(frame_kind("type_call", "/src/mine/type.c"), FrameKind::Program);
        assert_eq!(frame_kind("_PyPegen_parse", "/build/Python-3.11.7/Parser/parser.c"), FrameKind::Program);
        assert_eq!(frame_kind("_PyEval_Vector", "/build/Python-3.11.7/Python/ceval.c"), FrameKind::Internal);
    }

    #[test]
    fn importlib_and_the_import_opcodes_are_the_import_system() {
        assert_eq!(frame_kind("_load", "<frozen importlib._bootstrap>"), FrameKind::ImportSystem);
        assert_eq!(frame_kind("import_name", "Python/ceval.c"), FrameKind::ImportSystem);
        assert_eq!(frame_kind("import_name", "other.py"), FrameKind::Program);
    }

    #[test]
    fn runpy_is_the_runner() {
        assert_eq!(frame_kind("_run_code", "<frozen runpy>"), FrameKind::Runner);
        assert_eq!(frame_kind("run_path", "/usr/lib/python3.11/runpy.py"), FrameKind::Runner);
    }
}
