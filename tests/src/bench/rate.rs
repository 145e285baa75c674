//! Requests at a constant rate over connections that are kept. A request's time counts from when it was due, not from when a connection
//! was free for it: one answer that is late makes those behind it late too.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::thread::set_current_timer_slack;

use super::stats::short;
use crate::{lab::Namespace, traffic::stay_on};

const PATIENCE: Duration = Duration::from_secs(10);
/// Before the first one is due.
const RUN_UP: Duration = Duration::from_millis(100);

/// What is asked, and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Who is asked, for `/small`.
    pub(super) to: SocketAddr,
    /// Requests.
    pub(super) per_second: f64,
    /// For how long.
    pub(super) lasts: Duration,
    /// Over so many connections.
    pub(super) connections: usize,
}

/// How long answers took.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    sorted: Vec<Duration>,
    /// Requests that were not answered by 200.
    pub(super) failed: usize,
}

impl Times {
    /// So many of a hundred took no longer, in µs.
    pub(super) fn percentile(&self, of_hundred: f64) -> f64 {
        let place = (self.sorted.len() as f64 * of_hundred / 100.0).ceil() as usize;
        self.sorted.get(place.saturating_sub(1)).map_or(f64::INFINITY, |time| short(time.as_secs_f64() * 1e6))
    }
}

impl Rate {
    /// Asks from CPU 1.
    pub(super) fn run(self, namespace: &Namespace) -> Result<Times> {
        let (begin, next) = (Instant::now() + RUN_UP, Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..self.connections)
            .map(|_| {
                let next = Arc::clone(&next);
                namespace.thread(move || self.ask(begin, &next))
            })
            .collect::<Result<_>>()?;
        let mut all = Times::default();
        for client in clients {
            let Ok(times) = client.join() else { bail!("a client panicked") };
            let times = times?;
            all.sorted.extend(times.sorted);
            all.failed += times.failed;
        }
        all.sorted.sort_unstable();
        Ok(all)
    }

    fn ask(self, begin: Instant, next: &AtomicU64) -> Result<Times> {
        stay_on(1)?;
        // It sleeps no longer than it says.
        set_current_timer_slack(NonZero::new(1))?;
        let (mut times, mut kept) = (Times::default(), None);
        loop {
            let after = Duration::from_secs_f64(next.fetch_add(1, Relaxed) as f64 / self.per_second);
            if after >= self.lasts {
                return Ok(times);
            }
            let due = begin + after;
            sleep(due.saturating_duration_since(Instant::now()));
            match self.one(kept.take()) {
                Ok(stream) => kept = Some(stream),
                Err(_) => times.failed += 1,
            }
            times.sorted.push(due.elapsed());
        }
    }

    fn one(self, kept: Option<TcpStream>) -> Result<TcpStream> {
        let mut stream = match kept {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: site.example\r\n\r\n")?;
        let (mut answer, mut got) = ([0; 1024], 0);
        while !answer[..got].ends_with(&[b'x'; 128]) {
            let read = stream.read(&mut answer[got..])?;
            ensure!(read > 0, "{} closed a connection", self.to);
            got += read;
        }
        answer.starts_with(b"HTTP/1.1 200").then_some(stream).context("an answer is not 200")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_time_that_was_seen() {
        let sorted = (1..=1000).map(Duration::from_micros).collect();
        let times = Times { sorted, failed: 0 };
        assert_eq!([50.0, 99.0, 99.9, 100.0].map(|of| times.percentile(of)), [500.0, 990.0, 999.0, 1000.0]);
    }
}
