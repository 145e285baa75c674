//! Where the program is attached, and that it stays so: an interface that comes back is attached again, a pin that was removed is
//! made again.

use std::collections::BTreeMap;

use aya::{Ebpf, programs::Xdp};

use super::Error;
use crate::{
    model::{Node, XdpMode},
    net::{Interface, Net},
    program::{self, Attached, Pins, Tool},
};

/// A configured interface.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    /// None while the interface is not there, or refuses.
    pub(super) attached: Option<Attached>,
    /// How it was attached last.
    pub(super) native: bool,
    /// How often it was attached again since the start.
    pub(super) reattached: u64,
    /// Why it is not attached.
    pub(super) trouble: Option<String>,
}

/// The program, its pins and its interfaces.
pub(super) struct Attachments {
    ebpf: Ebpf,
    pins: Pins,
    slots: Vec<Slot>,
    pins_restored: u64,
    pin_trouble: Option<String>,
    /// What the interfaces run in the place of the program.
    tool: Option<(Ebpf, Tool)>,
}

impl Attachments {
    pub(super) fn new(ebpf: Ebpf, pins: Pins) -> Self {
        Self { ebpf, pins, slots: Vec::new(), pins_restored: 0, pin_trouble: None, tool: None }
    }

    /// Lets another agent take the pins.
    pub(super) fn unlock(&self) -> Result<(), Error> {
        Ok(self.pins.unlock()?)
    }

    /// The configured interfaces, in file order.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What interfaces that the program is on are called, by index.
    pub(super) fn names(&self) -> BTreeMap<u32, String> {
        self.slots.iter().filter_map(|slot| Some((slot.attached.as_ref()?.ifindex, slot.name.clone()))).collect()
    }

    /// Pins that were removed by somebody and made again since the start.
    pub(super) fn pins_restored(&self) -> u64 {
        self.pins_restored
    }

    /// Attaches to every interface or to none; all must exist.
    pub(super) async fn attach(&mut self, node: &Node, net: &Net) -> Result<(), Error> {
        let interfaces = interfaces(node, net).await?;
        let program = program::program(&mut self.ebpf)?;
        for interface in &interfaces {
            match program::attach(program, interface, node.xdp_mode, Some(self.pins.dir())) {
                Ok(attached) => {
                    tell(&attached);
                    let (name, native) = (attached.name.clone(), attached.native);
                    self.slots.push(Slot { name, attached: Some(attached), native, reattached: 0, trouble: None });
                }
                Err(error) => {
                    let adopted =
                        self.slots.iter().filter(|slot| slot.attached.as_ref().is_some_and(|attached| attached.adopted));
                    program::detach_stale(self.pins.dir(), &adopted.map(|slot| slot.name.clone()).collect::<Vec<_>>())?;
                    return Err(error.into());
                }
            }
        }
        for name in program::detach_stale(self.pins.dir(), &node.interfaces)? {
            tracing::info!(interface = name, "detached: it is not in the configuration any more");
        }
        Ok(())
    }

    /// Looks at every interface and every pin, and mends what is not as it was. What cannot be mended now is tried again.
    pub(super) async fn keep(&mut self, mode: XdpMode, net: &Net) {
        self.keep_pins();
        let dir = self.pins.dir().to_owned();
        let current = current(&mut self.ebpf, &mut self.tool);
        let (ours, program) = match current.and_then(|program| Ok((program::id(program)?, program))) {
            Ok(program) => program,
            Err(error) => return tracing::error!("{error}"),
        };
        for slot in &mut self.slots {
            let interface = match net.interface(&slot.name).await {
                Ok(interface) => interface,
                Err(error) => {
                    tracing::error!(interface = slot.name, "{error}");
                    continue;
                }
            };
            let Some(interface) = interface else {
                slot.lose("there is no such interface");
                continue;
            };
            let same = slot.attached.as_ref().is_some_and(|attached| attached.ifindex == interface.ifindex);
            if same && interface.xdp.is_some_and(|xdp| xdp.program == ours) {
                continue;
            }
            if slot.attached.take().is_some() {
                tracing::warn!(interface = slot.name, "the program is not attached any more; it is attached again");
            }
            match program::attach(program, &interface, mode, Some(&dir)) {
                Ok(attached) => {
                    tell(&attached);
                    slot.native = attached.native;
                    slot.reattached += 1;
                    (slot.attached, slot.trouble) = (Some(attached), None);
                }
                Err(error) => slot.lose(&error.to_string()),
            }
        }
    }

    /// Gives every interface the program of `tool`, or none of them. An interface that comes back gets it too.
    pub(super) fn attach_tool(&mut self, tool: Ebpf, which: Tool) -> Result<(), Error> {
        self.tool = Some((tool, which));
        let replaced = self.replace();
        if replaced.is_err() {
            self.attach_usual()?;
        }
        replaced
    }

    /// Gives every interface the usual program back; tries all, and tells of the first that failed. That one is tried again by
    /// [`Self::keep`].
    pub(super) fn attach_usual(&mut self) -> Result<(), Error> {
        // Not dropped before the last interface has left it.
        let tool = self.tool.take();
        let replaced = self.replace();
        drop(tool);
        replaced
    }

    /// Gives the pinned links the program that is to run now.
    fn replace(&mut self) -> Result<(), Error> {
        self.keep_pins();
        let program = current(&mut self.ebpf, &mut self.tool)?;
        let attached = self.slots.iter().filter(|slot| slot.attached.is_some());
        let results: Vec<_> = attached.map(|slot| program::replace(program, self.pins.dir(), &slot.name)).collect();
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    fn keep_pins(&mut self) {
        let links = |slots: &mut [Slot]| {
            let mut held = slots.iter_mut().filter_map(|slot| slot.attached.as_mut());
            held.try_fold(0, |count, attached| Ok::<_, program::Error>(count + usize::from(attached.pin_again()?)))
        };
        // The maps first: where these cannot be pinned, links are not touched.
        match self.pins.restore().and_then(|maps| Ok(maps + links(&mut self.slots)?)) {
            Ok(0) => self.pin_trouble = None,
            Ok(restored) => {
                self.pin_trouble = None;
                self.pins_restored += restored as u64;
                tracing::warn!(restored, "somebody removed pins; they are made again");
            }
            Err(error) => {
                let trouble = error.to_string();
                if self.pin_trouble.as_ref() != Some(&trouble) {
                    tracing::error!("pins are missing, and the data path ends with this agent: {trouble}");
                }
                self.pin_trouble = Some(trouble);
            }
        }
    }
}

impl Slot {
    /// Takes note of a loss, and says so once.
    fn lose(&mut self, why: &str) {
        self.attached = None;
        if self.trouble.as_deref() != Some(why) {
            tracing::error!(interface = self.name, "not attached, and tried again every second: {why}");
            self.trouble = Some(why.to_owned());
        }
    }
}

/// The program that the interfaces are to run.
fn current<'a>(usual: &'a mut Ebpf, tool: &'a mut Option<(Ebpf, Tool)>) -> Result<&'a mut Xdp, program::Error> {
    match tool {
        Some((tool, which)) => program::tool_program(tool, *which),
        None => program::program(usual),
    }
}

fn tell(attached: &Attached) {
    if let Some(why) = &attached.fallback {
        tracing::warn!(interface = attached.name, "generic XDP, which is slower: {why}");
    }
    tracing::info!(interface = attached.name, native = attached.native, adopted = attached.adopted, "attached");
}

/// The configured interfaces, all of which must exist.
pub(super) async fn interfaces(node: &Node, net: &Net) -> Result<Vec<Interface>, Error> {
    let mut all = net.interfaces().await?;
    let find = |name: &String| all.remove(name).ok_or_else(|| program::Error::NoInterface { name: name.clone() }.into());
    node.interfaces.iter().map(find).collect()
}
