fn main() {
    let o = std::env::var("OUT_DIR").unwrap();
    std::fs::copy("/tmp/setup/bpf-target/bpfel-unknown-none/release/memprof-ebpf", o + "/memprof-ebpf")
        .unwrap();
    println!("cargo::rerun-if-changed=/tmp/setup/bpf-target/bpfel-unknown-none/release/memprof-ebpf");
}
