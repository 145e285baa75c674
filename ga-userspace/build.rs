//! Compiles the kernel program and leaves the object where `program` embeds it.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script has one thread, and aya-build reads its settings from the environment"
)]

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use anyhow::{Context as _, bail};
use aya_build::{Package, Toolchain};
use toolchain::KernelToolchain;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../ga-common/src");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");
    let Some(found) = toolchain::detect() else {
        bail!("no compiler for the kernel program was found.\n{}", toolchain::HOWTO);
    };
    // The inner cargo's progress would be shown as warnings of this crate; its warnings still are.
    // SAFETY: a build script has one thread.
    unsafe { std::env::set_var("CARGO_TERM_QUIET", "true") };
    let toolchain = match &found {
        KernelToolchain::Nightly => Toolchain::Nightly,
        KernelToolchain::Packaged { name } => {
            // The packaged compiler calls itself stable; these two crates need unstable features.
            // SAFETY: a build script has one thread.
            unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,ga,ga_bench") };
            Toolchain::Custom(name)
        }
    };
    let features: &[&str] = if std::env::var_os("CARGO_FEATURE_BENCH").is_some() { &["bench"] } else { &[] };
    aya_build::build_ebpf([Package { name: "ga-ebpf", root_dir: "../ga-ebpf", features, ..Package::default() }], toolchain)
        .context("building the kernel program failed; `cargo xtask setup` installs what it needs")
}
