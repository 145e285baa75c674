//! What the kernel programs ask of the kernel's limits.
//!
//! Stack is read from the instructions: the deepest place below the frame pointer that a function touches, rounded as the
//! kernel rounds it, summed along the deepest chain of calls. The verifier computes the same, but tells it only in a log that
//! takes minutes to write.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::Xdp;
use aya_obj::{Object, generated::bpf_insn};
use ga::program::{OBJECT, Sizes, load};
use rustix::process::geteuid;

/// Instructions that the verifier goes through before it gives up.
pub const VERIFIED: u32 = 1_000_000;
/// Bytes of stack over a chain of calls.
pub const STACK: u32 = 512;

/// What one program asks for.
#[derive(Clone, Debug)]
pub struct Demand {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier went through; of [`VERIFIED`].
    pub verified: u32,
    /// Bytes of stack; of [`STACK`].
    pub stack: u32,
    /// Bytes of instructions after the verifier.
    pub translated: u32,
    /// Bytes of machine code.
    pub jitted: u32,
    /// How long loading took, the verifier included.
    pub load: Duration,
}

/// Loads every program of the object, without attaching any, and says what each asked for. Needs root.
pub fn demands() -> Result<Vec<Demand>> {
    ensure!(geteuid().is_root(), "programs are loaded into the kernel: run this as root (`cargo xtask test`)");
    let mut stacks = stacks()?;
    let mut object = load(None, Sizes::for_flows(1024))?.ebpf;
    let mut demands = Vec::new();
    for (name, program) in object.programs_mut() {
        let program: &mut Xdp = program.try_into()?;
        if program.info().is_ok() {
            program.unload()?;
        }
        let start = Instant::now();
        program.load().with_context(|| format!("the kernel refuses program {name}"))?;
        let took = start.elapsed();
        let info = program.info()?;
        demands.push(Demand {
            name: name.to_owned(),
            verified: info.verified_instruction_count().context("this kernel does not count verified instructions")?,
            stack: stacks.remove(name).with_context(|| format!("the object has no program {name}"))?,
            translated: info.size_translated().context("this kernel does not tell the size of a program")?,
            jitted: info.size_jitted(),
            load: took,
        });
    }
    demands.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(demands)
}

/// Bytes of stack that each program of the object takes.
#[expect(clippy::disallowed_methods, reason = "what comes in any order is put in order at once")]
fn stacks() -> Result<BTreeMap<String, u32>> {
    let mut object = Object::parse(OBJECT).context("the object cannot be read")?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&text).map_err(|error| anyhow::anyhow!("calls of the object: {error}"))?;
    let stack = |(name, program): (&String, &aya_obj::Program)| {
        let function = object.functions.get(&program.function_key()).with_context(|| format!("{name} has no code"))?;
        Ok((name.clone(), Calls::of(&function.instructions).deepest(0)))
    };
    object.programs.iter().map(stack).collect()
}

const FRAME_POINTER: u8 = 10;
const LD_IMM64: u8 = 0x18;
const CALL: u8 = 0x85;
const ADD64_IMM: u8 = 0x07;
const MOV64_REG: u8 = 0xbf;
/// In the source register of a call or of a 64-bit constant: it is a function of the program.
const PSEUDO_CALL: u8 = 1;
const PSEUDO_FUNC: u8 = 4;

/// Functions of a program by the place of their first instruction: stack of their own, and whom they call.
struct Calls(BTreeMap<usize, (u32, BTreeSet<usize>)>);

impl Calls {
    fn of(code: &[bpf_insn]) -> Self {
        let called = |(at, one): (usize, &bpf_insn)| callee(at, one);
        let starts: BTreeSet<usize> = code.iter().enumerate().filter_map(called).chain([0]).collect();
        let ends = starts.iter().copied().skip(1).chain([code.len()]);
        let function = |(start, end): (usize, usize)| {
            let callees = (start..end).filter_map(|at| callee(at, &code[at])).collect();
            (start, (own(&code[start..end]), callees))
        };
        Self(starts.iter().copied().zip(ends).map(function).collect())
    }

    /// Of the chain of calls from the function at `start` that takes most. The kernel forbids recursion.
    fn deepest(&self, start: usize) -> u32 {
        let Some((own, callees)) = self.0.get(&start) else { return 0 };
        own + callees.iter().filter(|callee| **callee != start).map(|callee| self.deepest(*callee)).max().unwrap_or_default()
    }
}

fn callee(at: usize, one: &bpf_insn) -> Option<usize> {
    let is_function = match one.code {
        CALL => one.src_reg() == PSEUDO_CALL,
        LD_IMM64 => one.src_reg() == PSEUDO_FUNC,
        _ => false,
    };
    is_function.then(|| at.checked_add_signed(one.imm as isize + 1)).flatten()
}

/// Bytes below the frame pointer that a function touches, directly or by a pointer that it makes.
fn own(code: &[bpf_insn]) -> u32 {
    let mut deepest = 0;
    // Registers that hold the frame pointer and how far they are from it.
    let mut known: BTreeMap<u8, i32> = BTreeMap::from([(FRAME_POINTER, 0)]);
    for one in code {
        let (dst, src) = (one.dst_reg(), one.src_reg());
        let touched = match one.code & 0x07 {
            1 => known.get(&src).map(|base| base + i32::from(one.off)),
            2 | 3 => known.get(&dst).map(|base| base + i32::from(one.off)),
            _ => None,
        };
        deepest = deepest.min(touched.unwrap_or_default());
        match (one.code, known.get(&src).copied(), known.get(&dst).copied()) {
            (MOV64_REG, Some(base), _) => drop(known.insert(dst, base)),
            (ADD64_IMM, _, Some(base)) => {
                deepest = deepest.min(base + one.imm);
                known.insert(dst, base + one.imm);
            }
            // Stores and jumps leave registers alone; a call changes 0 to 5; all else writes its destination.
            (CALL, _, _) => known.retain(|register, _| *register > 5),
            (code, _, _) if matches!(code & 0x07, 2 | 3 | 5 | 6) => {}
            _ => drop(known.remove(&dst)),
        }
    }
    // As the kernel does where it compiles to machine code.
    deepest.unsigned_abs().max(1).next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use ga::program::MAPS;

    use super::*;

    /// What a program has for itself: room while a packet is on its way, how many senders were told lately, what the programs of
    /// `ga trace` and `ga capture` are asked and say, and what a library brings along.
    const OWN: [&str; 13] = [
        "AYA_LOGS",
        "BUDGET",
        "CAPTURE",
        "PIECES",
        "RECORDS",
        "ROOM4",
        "ROOM6",
        "SEEN",
        "TOLD",
        "TRACE",
        "TRACE_ROOM4",
        "TRACE_ROOM6",
        "WATCH",
    ];

    #[test]
    fn every_map_of_the_object_is_pinned_or_a_programs_own() {
        let object = Object::parse(OBJECT).unwrap();
        let maps: BTreeMap<String, _> = object.maps.into_iter().collect();
        let has: BTreeSet<&str> = maps.keys().map(String::as_str).filter(|name| !name.starts_with('.')).collect();
        let known: BTreeSet<&str> = MAPS.into_iter().chain(OWN).collect();
        assert_eq!(has, known);
        assert_eq!(known.len(), MAPS.len() + OWN.len(), "a map is named twice");
    }

    fn one(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> bpf_insn {
        let mut insn = bpf_insn { code, _bitfield_align_1: [], _bitfield_1: Default::default(), off, imm };
        insn.set_dst_reg(dst);
        insn.set_src_reg(src);
        insn
    }

    #[test]
    fn stack_is_the_deepest_chain_of_calls() {
        let code = [
            // r2 = r10 - 40; *(r10 - 8) = r1; call +1; exit
            one(MOV64_REG, 2, FRAME_POINTER, 0, 0),
            one(ADD64_IMM, 2, 0, 0, -40),
            one(0x7b, FRAME_POINTER, 1, -8, 0),
            one(CALL, 0, PSEUDO_CALL, 0, 1),
            one(0x95, 0, 0, 0, 0),
            // r1 = *(r10 - 100); exit
            one(0x79, 1, FRAME_POINTER, -100, 0),
            one(0x95, 0, 0, 0, 0),
        ];
        assert_eq!(Calls::of(&code).deepest(0), 48 + 112);
    }
}
