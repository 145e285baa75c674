//! Tasks of one thread that wait for their connection to be told to end. One task waits for all of them: a wait of its own would be
//! most of what a silent connection holds.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
};

use slab::Slab;
use tokio::sync::watch;

use super::Leaving;

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Bells {
    wakers: RefCell<Slab<Waker>>,
    is_watched: Cell<bool>,
}

/// Somebody who waits; until it is dropped.
#[derive(Debug)]
pub(super) struct Bell {
    bells: Rc<Bells>,
    place: usize,
}

impl Bells {
    /// Wakes the task that is polled whenever `leaving` changes.
    pub(super) fn add(bells: &Rc<Self>, leaving: &watch::Receiver<Leaving>, cx: &Context<'_>) -> Bell {
        if !bells.is_watched.replace(true) {
            let (bells, mut leaving) = (Rc::downgrade(bells), leaving.clone());
            tokio::task::spawn_local(async move {
                while leaving.changed().await.is_ok() {
                    let Some(bells) = bells.upgrade() else { return };
                    bells.wakers.borrow().iter().for_each(|(_, waker)| waker.wake_by_ref());
                }
            });
        }
        let place = bells.wakers.borrow_mut().insert(cx.waker().clone());
        Bell { bells: Rc::clone(bells), place }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.bells.wakers.borrow_mut().remove(self.place);
    }
}
