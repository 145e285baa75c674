//! Loading: with pinned maps when they fit, with fresh ones otherwise.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel, features,
    maps::{Array, Map, MapData, MapInfo},
    programs::Xdp,
};
use ga_common::abi::{
    entry::Settings,
    limits::{ABI_VERSION, FLOW_WAYS},
};

use super::Error;

/// The programs and maps of the data path.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ga"));

/// The benchmark's programs.
#[cfg(feature = "bench")]
pub static BENCH_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ga-bench"));

/// The maps that outlive a program, by the name the kernel program gives them: they are pinned, and shared by all that run.
pub const MAPS: [&str; 31] = [
    "SETTINGS",
    "FILTER",
    "DIRECT",
    "GATEWAY",
    "ADDRESSES",
    "SERVICES",
    "LISTENERS",
    "ACTIVE",
    "TABLES",
    "DIGESTS",
    "ACLS4",
    "ACLS6",
    "MAPPINGS",
    "SHEET_DIGESTS",
    "ENDPOINTS",
    "ENDPOINT_HOPS",
    "HOPS",
    "MTUS",
    "HOSTS",
    "EGRESS",
    "FLOWS4",
    "FLOWS6",
    "TAGS4",
    "TAGS6",
    "SYNS",
    "ADMISSIONS",
    "COUNTERS",
    "SERVED",
    "DROPS",
    "PASSES",
    "EVENTS",
];

/// Slots of the flow tables; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// IPv4 slots, 64 bytes each.
    pub flows4: u32,
    /// IPv6 slots, 128 bytes each.
    pub flows6: u32,
}

impl Sizes {
    /// Makes the flow tables that large.
    pub(super) fn set(self, loader: &mut EbpfLoader<'_>) {
        loader.map_max_entries("FLOWS4", self.flows4).map_max_entries("TAGS4", self.flows4 / FLOW_WAYS);
        loader.map_max_entries("FLOWS6", self.flows6).map_max_entries("TAGS6", self.flows6 / FLOW_WAYS);
    }

    /// Room for `flows` flows of each family: two halves each, at most half full.
    pub fn for_flows(flows: u32) -> Self {
        let slots = flows.saturating_mul(4).next_power_of_two().max(64);
        Self { flows4: slots, flows6: slots }
    }
}

/// A program in the kernel, not attached yet, and its maps.
#[derive(Debug)]
pub struct Loaded {
    /// Programs and maps.
    pub ebpf: Ebpf,
    /// Whether the maps were there before, with what they hold.
    pub adopted: bool,
    /// Why pinned maps were not adopted, when there were any.
    pub rebuilt: Option<String>,
}

/// Loads the program; pinned maps under `pin_dir` are adopted when their layout and size agree. Without `pin_dir` nothing is
/// pinned: for tests.
pub fn load(pin_dir: Option<&Path>, sizes: Sizes) -> Result<Loaded, Error> {
    // Without them the verifier would go through rare paths at every call, and give up after half a minute.
    if !features().btf().is_some_and(|btf| btf.btf_func_global()) {
        let message = "it does not say that it has global functions (Linux 5.6)".to_owned();
        return Err(Error::Kernel { what: "verify functions on their own".to_owned(), message });
    }
    let mut loader = EbpfLoader::new();
    sizes.set(&mut loader);
    let (mut adopted, mut rebuilt) = (false, None);
    let paths: Vec<(&str, PathBuf)> =
        pin_dir.map(|dir| MAPS.map(|name| (name, dir.join("maps").join(name))).to_vec()).unwrap_or_default();
    if let Some(dir) = pin_dir {
        match pinned(&paths, sizes) {
            Pinned::None => {}
            Pinned::Fit => adopted = true,
            Pinned::Misfit(why) => {
                unpin_maps(dir)?;
                rebuilt = Some(why);
            }
        }
    }
    for (name, path) in &paths {
        loader.map_pin_path(name, path.as_path());
    }
    // A signal interrupts the verifier, and the library then asks again with the verifier's log. The whole log takes half a minute
    // to write, so it is asked for only when the short one came with a refusal.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let ebpf = verified(&mut loader).or_else(|_refused| {
        loader.verifier_log_level(VerifierLogLevel::default());
        verified(&mut loader)
    });
    match ebpf {
        Ok(ebpf) => Ok(Loaded { ebpf, adopted, rebuilt }),
        Err(error) => {
            if let Some(dir) = pin_dir.filter(|_| !adopted) {
                unpin_maps(dir)?;
            }
            Err(error)
        }
    }
}

/// Makes the maps, or takes the pinned ones, and has the program verified.
fn verified(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, Error> {
    let mut ebpf = loader.load(OBJECT).map_err(|error| Error::kernel("create the maps of the program", error))?;
    // The verifier reads the maps by their descriptors, so it comes before anybody takes them out.
    program(&mut ebpf)?.load().map_err(|error| Error::kernel("accept the program", error))?;
    Ok(ebpf)
}

/// The program in a loaded object.
pub fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let missing = || Error::Kernel { what: "find the program in the object".to_owned(), message: "ga is missing".to_owned() };
    ebpf.program_mut("ga").and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

/// Its number in the kernel.
pub fn id(program: &Xdp) -> Result<u32, Error> {
    program.info().map(|info| info.id()).map_err(|error| Error::kernel("describe the program", error))
}

enum Pinned {
    None,
    Fit,
    Misfit(String),
}

fn pinned(paths: &[(&str, PathBuf)], sizes: Sizes) -> Pinned {
    let present = paths.iter().filter(|(_, path)| path.exists()).count();
    if present == 0 {
        return Pinned::None;
    }
    if let Some((name, _)) = paths.iter().find(|(_, path)| !path.exists()) {
        return Pinned::Misfit(format!("the pinned map {name} is missing"));
    }
    for (name, path) in paths {
        let wanted = match *name {
            "FLOWS4" => sizes.flows4,
            "FLOWS6" => sizes.flows6,
            _ => continue,
        };
        match MapInfo::from_pin(path) {
            Ok(info) if info.max_entries() == wanted => {}
            Ok(info) => {
                return Pinned::Misfit(format!("{name} has {} slots and the configuration wants {wanted}", info.max_entries()));
            }
            Err(error) => return Pinned::Misfit(format!("{name} cannot be read: {error}")),
        }
    }
    match pinned_abi(&paths[0].1) {
        Ok(0) => Pinned::Misfit("the maps were never filled".to_owned()),
        Ok(ABI_VERSION) => Pinned::Fit,
        Ok(other) => Pinned::Misfit(format!("they have layout {other} and this version has {ABI_VERSION}")),
        Err(error) => Pinned::Misfit(error),
    }
}

fn pinned_abi(path: &Path) -> Result<u32, String> {
    let data = MapData::from_pin(path).map_err(|error| error.to_string())?;
    let map = Array::<_, Settings>::try_from(Map::Array(data)).map_err(|error| error.to_string())?;
    map.get(&0, 0).map(|settings| settings.abi).map_err(|error| error.to_string())
}

fn unpin_maps(pin_dir: &Path) -> Result<(), Error> {
    remove_all(&pin_dir.join("maps"))
}

/// Removes every pin: the program is detached and what it knew is gone.
pub fn unpin(pin_dir: &Path) -> Result<(), Error> {
    remove_all(&pin_dir.join("links"))?;
    remove_all(&pin_dir.join("maps"))?;
    for dir in [pin_dir.join("links"), pin_dir.join("maps"), pin_dir.to_owned()] {
        ignore_missing(fs::remove_dir(&dir)).map_err(|source| Error::Io { path: dir, source })?;
    }
    Ok(())
}

fn remove_all(dir: &Path) -> Result<(), Error> {
    let io = |source| Error::Io { path: dir.to_owned(), source };
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                ignore_missing(fs::remove_file(entry.map_err(io)?.path())).map_err(io)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io(error)),
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
