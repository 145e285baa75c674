//! Compiles the kernel program and leaves the object where `program` embeds it.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, bail, ensure};
use toolchain::{KernelToolchain, TARGET};

/// Version 3 of the kernel's instructions (Linux 5.12): 32-bit arithmetic and atomic operations. The verifier allows packets to
/// be read at any address wherever the processor does, which is where XDP runs.
const FLAGS: [&str; 5] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Ctarget-feature=+allows-misaligned-mem-access",
    // The compiler passes the feature on, and says that it does not know what it is.
    "-Awarnings",
];

fn main() -> anyhow::Result<()> {
    for watched in ["../ga-common", "../ga-ebpf", "../xtask/src/toolchain.rs", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    let Some(found) = toolchain::detect() else {
        bail!("no compiler for the kernel program was found.\n{}", toolchain::HOWTO);
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    let target_dir = out.join("kernel");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").context("cargo sets CARGO_CFG_TARGET_ARCH")?;
    let mut flags = vec![format!("--cfg=bpf_target_arch=\"{architecture}\"")];
    flags.extend(FLAGS.map(str::to_owned));

    let mut cargo = Command::new("rustup");
    cargo.args(["run", found.name(), "cargo", "build", "--quiet", "--package", "ga-ebpf", "--bins", "--release"]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(&target_dir).current_dir("../ga-ebpf");
    match found {
        KernelToolchain::Nightly => cargo.args(["-Z", "build-std=core"]),
        // The packaged compiler calls itself stable; these two crates need unstable features.
        KernelToolchain::Packaged { .. } => cargo.env("RUSTC_BOOTSTRAP", "aya_ebpf,ga,ga_bench"),
    };
    if env::var_os("CARGO_FEATURE_BENCH").is_some() {
        cargo.args(["--features", "bench"]);
    }
    // What the outer cargo says about the host's compiler is not meant for this one.
    for variable in ["RUSTC", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(variable);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let status = cargo.status().context("rustup cannot be started")?;
    ensure!(status.success(), "building the kernel program failed; `cargo xtask setup` installs what it needs");
    for name in ["ga", "ga-bench"] {
        let object = target_dir.join(TARGET).join("release").join(name);
        if object.exists() {
            std::fs::copy(&object, out.join(name)).with_context(|| format!("copying {}", object.display()))?;
        }
    }
    Ok(())
}
