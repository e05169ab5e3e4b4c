//! The `memprof` command.

fn main() -> std::process::ExitCode {
    memprof::cli::main()
}
