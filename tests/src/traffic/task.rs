//! Work in a namespace, and its end.

use std::{
    thread::{JoinHandle, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tokio::{runtime, sync::watch, time::timeout};

use crate::lab::Namespace;

/// Nothing that is stopped may take longer to end.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Tells work to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Whether it is time.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub async fn wait(&mut self) {
        // A sender that is gone is a stop too.
        drop(self.0.wait_for(|&stop| stop).await);
    }

    /// Waits, but not longer than `patience`; whether it is time.
    pub async fn within(&mut self, patience: Duration) -> bool {
        timeout(patience, self.wait()).await.is_ok()
    }
}

/// Something that runs in a namespace until it is told to stop, or dropped.
#[derive(Debug)]
pub struct Task<T> {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<T>>>,
}

impl<T: Send + 'static> Task<T> {
    /// Starts it. The future is made in the namespace, and so are its sockets.
    pub fn start<F: Future<Output = Result<T>>>(
        namespace: &Namespace,
        work: impl FnOnce(Stop) -> F + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let thread = namespace.thread(move || runtime()?.block_on(work(Stop(stopped))))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Tells it to stop and waits for what it has to say.
    pub fn finish(mut self) -> Result<T> {
        self.stop.send_replace(true);
        let thread = self.thread.take().context("this task was finished before")?;
        let start = Instant::now();
        until("the end of a task", LAST_WORDS, || Ok(thread.is_finished().then_some(())))
            .with_context(|| format!("it was told to stop {:?} ago", start.elapsed()))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn runtime() -> Result<runtime::Runtime> {
    runtime::Builder::new_current_thread().enable_all().build().context("no runtime")
}

/// Runs a future in a namespace to its end, which must come within `patience`.
pub fn block_in<T: Send + 'static, F: Future<Output = Result<T>>>(
    namespace: &Namespace,
    patience: Duration,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<T> {
    namespace.within(move || runtime()?.block_on(async { timeout(patience, work()).await.context("it took too long")? }))?
}

/// Asks again and again until there is an answer.
pub fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() >= patience {
            bail!("{what} did not come within {patience:?}");
        }
        sleep(Duration::from_millis(5));
    }
}
