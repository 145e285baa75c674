//! Which compiler builds the kernel program, found by looking only. Std only: the agent's build script includes this file, so
//! that it and `cargo xtask setup` cannot disagree.
#![allow(dead_code, reason = "the build script that includes this file uses only a part of it")]

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The name under which the packaged compiler is linked into rustup.
pub(crate) const PACKAGED: &str = "bpf";

/// The target of the kernel program; its standard library is what the packaged compiler has and stable Rust lacks.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// What to tell a person whose machine has no compiler for the kernel program.
pub(crate) const HOWTO: &str = "\
The kernel program needs a Rust compiler that can build for BPF, and `bpf-linker`. Two ways to get them:

  1. from rustup:
       rustup toolchain install nightly --component rust-src
       cargo install bpf-linker
     (bpf-linker must be built against the LLVM major of that nightly: `rustup run nightly rustc -vV`)

  2. from Debian's packages (needs root, and rustup for the name):
       apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf
       rustup toolchain link bpf /usr
       N=$(rustup run bpf rustc -vV | sed -n 's/^LLVM version: \\([0-9]*\\).*/\\1/p')
       apt-get install --no-install-recommends llvm-$N-dev libpolly-$N-dev
       PATH=/usr/lib/llvm-$N/bin:$PATH cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-$N

`cargo xtask setup` does the second by itself where it can.";

/// A compiler that can build the kernel program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelToolchain {
    /// rustup's nightly with `rust-src`: `core` is built from source with `-Z build-std`.
    Nightly,
    /// A distribution's stable compiler with a prebuilt `core` for BPF, linked into rustup under `name`. It needs
    /// `RUSTC_BOOTSTRAP` for the few unstable features in use, and no `build-std`.
    Packaged {
        /// rustup's name for it.
        name: &'static str,
    },
}

impl KernelToolchain {
    /// What `rustup run` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Packaged { name } => name,
        }
    }
}

/// The linker of BPF objects, and the LLVM it was built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BpfLinker {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// LLVM's major, where it can be told. A linker that does not say (a prebuilt, static one) is trusted.
    pub(crate) llvm_major: Option<u32>,
}

impl BpfLinker {
    /// Whether it reads what a compiler of this LLVM major writes.
    pub(crate) fn fits(&self, compiler_major: Option<u32>) -> bool {
        match (self.llvm_major, compiler_major) {
            (Some(linker), Some(compiler)) => linker == compiler,
            (None, _) | (_, None) => true,
        }
    }
}

/// The compiler to use: the first that fits the installed linker, else the first there is.
pub(crate) fn detect() -> Option<KernelToolchain> {
    let found = candidates();
    let linker = bpf_linker();
    let fits = |toolchain: &&KernelToolchain| linker.as_ref().is_some_and(|linker| linker.fits(llvm_major(**toolchain)));
    found.iter().find(fits).or(found.first()).copied()
}

/// Every usable compiler of this machine, the preferred one first.
pub(crate) fn candidates() -> Vec<KernelToolchain> {
    let names = toolchain_names();
    let has = |wanted: &str| names.iter().any(|name| name == wanted || name.starts_with(&format!("{wanted}-")));
    let mut found = Vec::new();
    if has("nightly") && sysroot("nightly").is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir()) {
        found.push(KernelToolchain::Nightly);
    }
    if has(PACKAGED) && sysroot(PACKAGED).is_some_and(|root| root.join("lib/rustlib").join(TARGET).is_dir()) {
        found.push(KernelToolchain::Packaged { name: PACKAGED });
    }
    found
}

/// The LLVM major of a compiler, from `rustc -vV`.
pub(crate) fn llvm_major(toolchain: KernelToolchain) -> Option<u32> {
    let text = output(Command::new("rustup").args(["run", toolchain.name(), "rustc", "-vV"]))?;
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.trim().parse().ok()
}

/// The `bpf-linker` on PATH, if there is one that starts.
pub(crate) fn bpf_linker() -> Option<BpfLinker> {
    let path = env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("bpf-linker")).find(|path| path.is_file())?;
    output(Command::new(&path).arg("--version"))?;
    let llvm_major = recorded_llvm(&path).or_else(|| linked_llvm(&path));
    Some(BpfLinker { path, llvm_major })
}

/// Cargo writes down the features of what it installs; `llvm-22` among them is the answer.
fn recorded_llvm(linker: &Path) -> Option<u32> {
    let record = linker.parent()?.parent()?.join(".crates2.json");
    features_llvm(&fs::read_to_string(record).ok()?)
}

fn features_llvm(record: &str) -> Option<u32> {
    let (_, entry) = record.split_once("\"bpf-linker ")?;
    let (_, features) = entry.split_once("\"features\":[")?;
    let (features, _) = features.split_once(']')?;
    features.split(',').find_map(|feature| feature.trim().trim_matches('"').strip_prefix("llvm-")?.parse().ok())
}

/// A dynamically linked one names its library: `libLLVM.so.22.1`.
fn linked_llvm(linker: &Path) -> Option<u32> {
    /// A static build is many times larger and names no library.
    const LARGEST_DYNAMIC: u64 = 32 << 20;
    if fs::metadata(linker).ok()?.len() > LARGEST_DYNAMIC {
        return None;
    }
    needed_llvm(&fs::read(linker).ok()?)
}

fn needed_llvm(binary: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-"].iter().find_map(|prefix| {
        let at = binary.windows(prefix.len()).position(|window| window == prefix.as_bytes())?;
        let digits: String =
            binary[at + prefix.len()..].iter().map(|byte| char::from(*byte)).take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

fn toolchain_names() -> Vec<String> {
    let listed = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

fn sysroot(toolchain: &str) -> Option<PathBuf> {
    let printed = output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))?;
    Some(PathBuf::from(printed.trim()))
}

/// What a command prints, if it can be started and succeeds. rustup must never fetch a toolchain because somebody looked.
fn output(command: &mut Command) -> Option<String> {
    command.env("RUSTUP_AUTO_INSTALL", OsStr::new("0")).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linker(llvm_major: Option<u32>) -> BpfLinker {
        BpfLinker { path: PathBuf::from("bpf-linker"), llvm_major }
    }

    #[test]
    fn a_linker_of_another_llvm_does_not_fit() {
        assert!(linker(Some(22)).fits(Some(22)));
        assert!(!linker(Some(21)).fits(Some(22)));
        assert!(!linker(Some(23)).fits(Some(22)));
    }

    #[test]
    fn a_linker_that_does_not_tell_is_trusted() {
        assert!(linker(None).fits(Some(22)));
    }

    #[test]
    fn the_features_of_the_linker_are_read_and_not_those_of_a_neighbour() {
        let record = r#"{"installs":{"a 1.0 (r)":{"features":["llvm-9"]},"bpf-linker 0.13.0 (r)":{"bins":["bpf-linker"],"features":["llvm-22"]}}}"#;
        assert_eq!(features_llvm(record), Some(22));
        assert_eq!(features_llvm(r#"{"installs":{"bpf-linker 0.13.0 (r)":{"features":[]}}}"#), None);
        assert_eq!(features_llvm("{}"), None);
    }

    #[test]
    fn the_library_of_a_dynamic_linker_tells_its_llvm() {
        assert_eq!(needed_llvm(b"\0libc.so.6\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(needed_llvm(b"\0libLLVM-19.so\0"), Some(19));
        assert_eq!(needed_llvm(b"\0libc.so.6\0"), None);
    }
}
