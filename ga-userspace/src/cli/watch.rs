//! `--watch`: the same view again and again, with rates, until Ctrl-C.

use std::{pin::pin, time::Duration};

use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::{Context, Exit, Failure};
use crate::status::Status;

/// The flag.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Watch {
    /// Show it again every SECS seconds (1), as rates per second, until Ctrl-C
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = seconds)]
    pub(super) watch: Option<Duration>,
}

/// What the counters of a view mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Since the maps were made.
    Total,
    /// Growth per second.
    PerSecond,
}

/// 0.1 s to an hour.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    if (0.1..=3600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err("0.1 to 3600 seconds".to_owned()) }
}

/// Growth per second over one `interval`.
pub(super) async fn rates(context: &Context, interval: Duration) -> anyhow::Result<Status> {
    let client = context.client();
    let before = client.status().await?;
    tokio::time::sleep(interval).await;
    let restarted = || Failure::new(Exit::Unreachable, "the agent was started anew meanwhile: ask again");
    Ok(client.status().await?.per_second(&before).ok_or_else(restarted)?)
}

/// Gives `show` a status every `every`: totals first, then rates. A failure ends it only when it is the first answer: an agent
/// may be started anew while we watch.
pub(super) async fn watch(
    context: &Context,
    every: Duration,
    show: impl Fn(&Status, Unit) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    let client = context.client();
    let mut stop = pin!(tokio::signal::ctrl_c());
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut previous: Option<Status> = None;
    loop {
        let next = async {
            ticks.tick().await;
            client.status().await
        };
        let answer = tokio::select! {
            stopped = &mut stop => return Ok(stopped.map(|()| Exit::Ok)?),
            answer = next => answer,
        };
        match (answer, &previous) {
            (Ok(status), last) => {
                match last.as_ref().and_then(|last| status.per_second(last)) {
                    Some(rates) => show(&rates, Unit::PerSecond)?,
                    None => show(&status, Unit::Total)?,
                }
                previous = Some(status);
            }
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(_)) => eprintln!("ga: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_sane() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "x", "99999"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
