//! The compiler and the linker of the kernel program.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Error, Result, anyhow, bail};

use super::{apt, have};
use crate::{
    shell::{Root, Step, cargo, find_program},
    toolchain::{self, HOWTO, KernelToolchain, PACKAGED, TARGET},
};

/// The linker's version; its features name the LLVM majors it can be built with.
const LINKER_VERSION: &str = "0.13.0";

/// Debian's compiler with a prebuilt `core` for BPF. It installs under /usr.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Looks for a compiler and a linker that fit each other; gets what is missing.
pub(super) fn ensure(root: Root) -> Result<()> {
    if find_program("rustup").is_none() {
        bail!("`rustup` is not on PATH (https://rustup.rs); it is how the compiler of the kernel program is named.\n\n{HOWTO}");
    }
    let compiler = match toolchain::detect() {
        Some(compiler) => compiler,
        None => packaged_compiler(root).map_err(|cause| unable("compiler for the kernel program", &cause))?,
    };
    if ready(compiler) {
        return Ok(());
    }
    let Err(error) = linker(root, compiler) else { return confirm(compiler) };
    // A nightly newer than any LLVM that can be had here: the packaged compiler comes with an LLVM of its own age.
    if compiler == KernelToolchain::Nightly && apt::is_here() {
        eprintln!("  bpf-linker for the nightly compiler: {error:#}\n  trying the packaged compiler instead");
        let compiler = packaged_compiler(root).map_err(|cause| unable("compiler for the kernel program", &cause))?;
        linker(root, compiler).map_err(|cause| unable("bpf-linker", &cause))?;
        return confirm(compiler);
    }
    Err(unable("bpf-linker", &error))
}

/// What is missing, why setup could not get it, and how a person can.
fn unable(what: &str, cause: &Error) -> Error {
    anyhow!("no {what}: {cause:#}\n\n{HOWTO}")
}

/// Whether compiler and linker are there and fit; says so.
fn ready(compiler: KernelToolchain) -> bool {
    let major = toolchain::llvm_major(compiler);
    let Some(linker) = toolchain::bpf_linker().filter(|linker| linker.fits(major)) else { return false };
    let number = |major: Option<u32>| major.map_or_else(|| "unknown".to_owned(), |major| major.to_string());
    have("kernel compiler", &format!("rustup toolchain `{}`, LLVM {}", compiler.name(), number(major)));
    have("bpf-linker", &format!("{}, LLVM {}", linker.path.display(), number(linker.llvm_major)));
    true
}

fn confirm(compiler: KernelToolchain) -> Result<()> {
    if ready(compiler) {
        return Ok(());
    }
    bail!("bpf-linker was installed but is not on PATH, or does not start: put cargo's bin folder (~/.cargo/bin) on PATH");
}

fn packaged_compiler(root: Root) -> Result<KernelToolchain> {
    if !Path::new("/usr/lib/rustlib").join(TARGET).is_dir() {
        if !apt::is_here() {
            bail!("this machine has no apt-get, so setup cannot get the packaged compiler");
        }
        let packages = COMPILER_PACKAGES.map(str::to_owned);
        if !apt::offers(root, &packages)? {
            bail!("the package lists offer no {} (Debian 12 has them in bookworm-security)", COMPILER_PACKAGES.join(", "));
        }
        apt::install(
            root,
            &packages,
            "a Rust compiler with a prebuilt `core` for BPF: no nightly and no sources are needed",
            60,
        )?;
    }
    let step = Step { what: "link the packaged compiler into rustup", why: "builds call it `bpf`", about_secs: 1 };
    step.run(Command::new("rustup").args(["toolchain", "link", PACKAGED, "/usr"]))?;
    let compiler = KernelToolchain::Packaged { name: PACKAGED };
    if !toolchain::candidates().contains(&compiler) {
        bail!("/usr/bin/rustc has no {TARGET}: the packages {} do not belong together", COMPILER_PACKAGES.join(", "));
    }
    Ok(compiler)
}

/// Builds `bpf-linker` against the LLVM of `compiler`: it must read the bitcode that compiler writes.
fn linker(root: Root, compiler: KernelToolchain) -> Result<()> {
    let Some(major) = toolchain::llvm_major(compiler) else {
        bail!("`rustup run {} rustc -vV` names no LLVM version", compiler.name());
    };
    if let Some(present) = toolchain::bpf_linker() {
        let built = present.llvm_major.map_or_else(|| "an unknown".to_owned(), |built| built.to_string());
        eprintln!("  {} was built with LLVM {built}, the compiler has {major}: it is built anew", present.path.display());
    }
    let bin = format!("/usr/lib/llvm-{major}/bin");
    if !Path::new(&bin).join("llvm-config").is_file() {
        let packages = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
        if !apt::is_here() || !apt::offers(root, &packages)? {
            bail!("LLVM {major} is not at {bin}, and no package {} is offered", packages[0]);
        }
        apt::install(root, &packages, "bpf-linker links against the compiler's LLVM", 40)?;
    }
    let path = env::join_paths([bin.into()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())))
        .context("PATH cannot be extended")?;
    let feature = format!("llvm-{major}");
    let step = Step { what: "build bpf-linker", why: "it turns the compiler's output into a BPF object", about_secs: 90 };
    step.run(
        cargo().env("PATH", path).args(["install", "bpf-linker", "--force", "--locked", "--version", LINKER_VERSION]).args([
            "--no-default-features",
            "--features",
            &feature,
        ]),
    )
}
