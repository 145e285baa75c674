//! Programs beside `ga` that share its maps: loaded when somebody wants an explanation, and gone after it.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{
        TestRun as _, TestRunOptions, Xdp,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};

use super::{Error, Sizes, load::MAPS, load::OBJECT};

/// A program that can be loaded beside `ga`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Says what `ga` would do, and does nothing.
    Trace,
    /// Does what `ga` does and tells of some packets.
    Watch,
}

impl Tool {
    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "ga_trace",
            Self::Watch => "ga_watch",
        }
    }

    /// Bytes of room for captured frames.
    const fn ring(self) -> u32 {
        match self {
            Self::Trace => 4096,
            Self::Watch => 4 << 20,
        }
    }
}

/// Loads a tool with the maps pinned under `pin_dir`, which `ga` runs with; without `pin_dir`, with maps of its own, for tests.
/// It takes the kernel's verifier a second or so.
pub fn load_tool(pin_dir: Option<&Path>, sizes: Sizes, tool: Tool) -> Result<Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    sizes.set(&mut loader);
    loader.map_max_entries("CAPTURE", tool.ring());
    let paths: Vec<_> = pin_dir.map(|dir| MAPS.map(|name| (name, dir.join("maps").join(name))).to_vec()).unwrap_or_default();
    for (name, path) in &paths {
        // Made anew, a map would be empty, and pinned under the name of the one that packets use.
        if !path.exists() {
            return Err(Error::Kernel {
                what: format!("load {}", tool.name()),
                message: format!("the pinned map {name} is missing"),
            });
        }
        loader.map_pin_path(name, path.as_path());
    }
    // The verifier's whole log takes half a minute to write, and nobody reads it here.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let mut ebpf = loader.load(OBJECT).map_err(|error| Error::kernel("open the maps of the program", error))?;
    tool_program(&mut ebpf, tool)?.load().map_err(|error| Error::kernel(format!("accept {}", tool.name()), error))?;
    Ok(ebpf)
}

/// The tool's program in its object.
pub fn tool_program(ebpf: &mut Ebpf, tool: Tool) -> Result<&mut Xdp, Error> {
    let missing =
        || Error::Kernel { what: "find the program in the object".to_owned(), message: format!("{} is missing", tool.name()) };
    ebpf.program_mut(tool.name()).and_then(|program| program.try_into().ok()).ok_or_else(missing)
}

/// What became of a packet in a test run: the XDP action, and the frame.
pub type Ran = (u32, Vec<u8>);

/// Runs a tool on a frame that comes in by `ifindex`, once and nowhere else (`BPF_PROG_TEST_RUN`).
pub fn run_once(program: &Xdp, frame: &[u8], ifindex: u32) -> Result<Ran, Error> {
    // `struct xdp_md` of linux/bpf.h: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context: Vec<u8> = [0, frame.len() as u32, 0, ifindex, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut out = vec![0; frame.len() + 256];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ctx_in: Some(&context), ..TestRunOptions::new() };
    let result = program.test_run(options).map_err(|error| Error::kernel("run the packet", error))?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}

/// Gives the pinned link of `interface` another program, between two packets.
pub fn replace(program: &mut Xdp, pin_dir: &Path, interface: &str) -> Result<(), Error> {
    let pin = pin_dir.join("links").join(interface);
    let what = || format!("replace the program of {interface}");
    let link: FdLink = PinnedLink::from_pin(&pin).map_err(|error| Error::kernel(what(), error))?.into();
    let link = XdpLink::try_from(link).map_err(|error| Error::kernel(what(), error))?;
    let id = program.attach_to_link(link).map_err(|error| Error::kernel(what(), error))?;
    // The pin holds the link; without a copy here, replacing again and again costs no descriptors.
    drop(program.take_link(id).map_err(|error| Error::kernel(what(), error))?);
    Ok(())
}
