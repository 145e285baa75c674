//! The benchmark's own kernel programs: loaded, told what to do, run.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData, PerCpuArray, ProgramArray},
    programs::{self, ProgramFd, TestRunAttrs, XdpMode},
};
use ga_common::bench::{Listed, Load, WORDS, order, target};

/// What one run of many packets came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Nanoseconds a packet, as the kernel says.
    pub ns: f64,
    /// What the last packet was answered with.
    pub action: u32,
    /// Packets that a floor did not find or nobody took.
    pub misses: u64,
}

/// Programs that are attached to interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Xdp {
    /// Counts UDP and drops it.
    Sink,
    /// Rewrites the MAC addresses and redirects.
    Redirect,
}

/// The programs and their maps.
pub(super) struct Kernel {
    ebpf: Ebpf,
    load: Array<MapData, Load>,
    list: Array<MapData, Listed>,
    targets: ProgramArray<MapData>,
    arrived: PerCpuArray<MapData, u64>,
}

impl Kernel {
    /// Loads everything; lists and tables hold `flows`.
    pub(super) fn new(flows: u32) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("LIST", flows).map_max_entries("TABLE", flows);
        let mut ebpf = loader.load(ga::program::BENCH_OBJECT).context("the benchmark's programs do not load")?;
        for name in ["short", "long", "same", "swap", "lookup", "insert", "redirect", "out", "sink"] {
            program(&mut ebpf, name)?.load().with_context(|| format!("the kernel refuses program {name}"))?;
        }
        let mut take = |name: &'static str| ebpf.take_map(name).with_context(|| format!("there is no map {name}"));
        let (load, list, targets, arrived) = (take("LOAD")?, take("LIST")?, take("TARGETS")?, take("ARRIVED")?);
        let mut kernel = Self {
            load: load.try_into()?,
            list: list.try_into()?,
            targets: targets.try_into()?,
            arrived: arrived.try_into()?,
            ebpf,
        };
        for (place, name) in [
            (target::SWAP, "swap"),
            (target::LOOKUP, "lookup"),
            (target::INSERT, "insert"),
            (target::REDIRECT, "redirect"),
            (target::OUT, "out"),
        ] {
            let fd = kernel.program(name)?.fd()?.try_clone()?;
            kernel.aim(place, &fd)?;
        }
        Ok(kernel)
    }

    /// One of the programs.
    pub(super) fn program(&mut self, name: &str) -> Result<&mut programs::Xdp> {
        program(&mut self.ebpf, name)
    }

    /// Makes `place` mean a program.
    pub(super) fn aim(&mut self, place: u32, fd: &ProgramFd) -> Result<()> {
        self.targets.set(place, fd, 0).context("the program cannot be called by the benchmark's")
    }

    /// Writes the list of tuples.
    pub(super) fn set_list(&mut self, tuples: &[Listed]) -> Result<()> {
        for (index, tuple) in tuples.iter().enumerate() {
            self.list.set(index as u32, *tuple, 0)?;
        }
        Ok(())
    }

    /// Tells the programs what to do.
    pub(super) fn set_load(&mut self, load: Load) -> Result<()> {
        self.load.set(0, load, 0).context("the load cannot be set")
    }

    /// Attaches a program, natively, to an interface of the namespace that this thread is in.
    pub(super) fn attach(&mut self, program: Xdp, device: &str) -> Result<()> {
        let name = match program {
            Xdp::Sink => "sink",
            Xdp::Redirect => "redirect",
        };
        self.program(name)?.attach(device, XdpMode::Driver).with_context(|| format!("cannot attach to {device}"))?;
        Ok(())
    }

    /// UDP packets that the sink counted.
    pub(super) fn arrived(&self) -> Result<u64> {
        Ok(self.arrived.get(&0, 0)?.iter().sum())
    }

    /// Sends `packets` frames of `load` out of an interface of the namespace that this thread is in.
    pub(super) fn live(&mut self, load: &mut Load, packets: u32, ifindex: u32) -> Result<()> {
        self.set_load(*load)?;
        let frame: Vec<u8> = load.frame[..WORDS - 2].iter().flat_map(|word| word.to_ne_bytes()).collect();
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> = [0, frame.len() as u32, 0, ifindex, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        self.program("short")?.test_run(options).context("frames cannot be sent")?;
        *load = self.load.get(&0, 0)?;
        ensure!(load.misses == 0, "{} frames were not sent", load.misses);
        Ok(())
    }

    /// Runs `packets` packets of `load` and returns what became of them; `load` counts on.
    pub(super) fn run(&mut self, load: &mut Load, packets: u32) -> Result<Run> {
        load.misses = 0;
        self.set_load(*load)?;
        let is_long = load.frame[1] >> 32 & 0xffff == 0xdd86;
        let (name, words) = match load.order {
            order::FIXED => ("same", WORDS),
            _ if is_long => ("long", WORDS),
            _ => ("short", WORDS - 2),
        };
        let frame: Vec<u8> = load.frame[..words].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let options = TestRunOptions { data_in: Some(&frame), repeat: packets, ..TestRunOptions::new() };
        let result = self.program(name)?.test_run(options).context("the test run failed")?;
        let after = self.load.get(&0, 0)?;
        *load = after;
        Ok(Run { ns: result.duration.as_nanos() as f64, action: result.return_value, misses: after.misses })
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut programs::Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("there is no program {name}"))?.try_into()?)
}
