//! `ga drops`: which packets were dropped or passed, and why.

use std::time::Duration;

use clap::Args;
use comfy_table::{Cell, CellAlignment};

use super::{
    Context, Exit,
    output::Style,
    units::count,
    watch::{Unit, Watch, rates, seconds, watch},
};
use crate::status::{DropCount, Drops, PassCount};

pub(super) const EXAMPLES: &str = "Examples:
  ga drops            every reason that dropped or passed packets
  ga drops --watch    packets per second by reason, again and again
  ga drops --interval 10 --listener shop/web    what was dropped for a listener, per second, over 10 seconds
  ga drops --output json | jq '.drops[] | select(.packets > 0)'";

/// Arguments of `ga drops`.
#[derive(Clone, Debug, Args)]
pub(super) struct DropsArgs {
    #[command(flatten)]
    watch: Watch,
    /// Watch for SECS seconds and show rates per second once
    #[arg(long, value_name = "SECS", conflicts_with = "watch", value_parser = seconds)]
    interval: Option<Duration>,
    /// Only drops of this listener: instance/listener, or listener
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,
}

/// Runs `ga drops`.
pub(super) async fn run(args: &DropsArgs, context: &Context) -> anyhow::Result<Exit> {
    let output = &context.output;
    match (args.watch.watch, args.interval) {
        (Some(every), _) => {
            watch(context, every, |status, unit| {
                let drops = only(Drops::of(status), args.listener.as_deref());
                output.repeated(&drops, |style| render(&drops, style, unit))
            })
            .await
        }
        (None, Some(interval)) => {
            let drops = only(Drops::of(&rates(context, interval).await?), args.listener.as_deref());
            output.view(&drops, |style| render(&drops, style, Unit::PerSecond))?;
            Ok(Exit::Ok)
        }
        (None, None) => {
            let drops = only(context.client().drops().await?, args.listener.as_deref());
            output.view(&drops, |style| render(&drops, style, Unit::Total))?;
            Ok(Exit::Ok)
        }
    }
}

/// Passes are no listener's.
fn only(mut drops: Drops, listener: Option<&str>) -> Drops {
    if let Some(wanted) = listener {
        drops.drops.retain(|row| match (&row.instance, &row.listener) {
            (Some(instance), Some(name)) => name == wanted || format!("{instance}/{name}") == wanted,
            (None, _) | (_, None) => false,
        });
        drops.passes.clear();
    }
    drops
}

fn render(drops: &Drops, style: &Style, unit: Unit) -> String {
    format!("{}\n{}", render_drops(&drops.drops, style, unit), render_passes(&drops.passes, style, unit))
}

/// The drops that happened; reasons without packets are left out.
pub(super) fn render_drops(drops: &[DropCount], style: &Style, unit: Unit) -> String {
    let mut happened: Vec<_> = drops.iter().filter(|row| row.packets > 0).collect();
    if happened.is_empty() {
        return "dropped: nothing\n".to_owned();
    }
    happened.sort_by_key(|row| std::cmp::Reverse(row.packets));
    use CellAlignment::{Left, Right};
    let mut table = style.table(&[("dropped", Left), ("listener", Left), (packets(unit), Right), ("because", Left)]);
    for row in happened {
        let owner = match (&row.instance, &row.listener) {
            (Some(instance), Some(listener)) => format!("{instance}/{listener}"),
            (None, Some(name)) | (Some(name), None) => name.clone(),
            (None, None) => "-".to_owned(),
        };
        table.add_row(vec![Cell::new(&row.reason), Cell::new(owner), Cell::new(count(row.packets)), Cell::new(&row.explanation)]);
    }
    style.draw(table)
}

fn render_passes(passes: &[PassCount], style: &Style, unit: Unit) -> String {
    use CellAlignment::{Left, Right};
    let mut table = style.table(&[("passed to the host", Left), (packets(unit), Right), ("because", Left)]);
    for row in passes.iter().filter(|row| row.packets > 0) {
        table.add_row(vec![Cell::new(&row.reason), Cell::new(count(row.packets)), Cell::new(&row.explanation)]);
    }
    if table.is_empty() { "passed to the host: nothing\n".to_owned() } else { style.draw(table) }
}

fn packets(unit: Unit) -> &'static str {
    match unit {
        Unit::Total => "packets",
        Unit::PerSecond => "packets/s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::example::example;

    #[test]
    fn a_listener_is_named_with_or_without_its_instance() {
        for (listener, left) in [("game", 1), ("ga-demo/game", 1), ("voice", 0), ("ga-demo", 0)] {
            let drops = only(Drops::of(&example()), Some(listener));
            assert_eq!((drops.drops.len(), drops.passes.len()), (left, 0), "{listener}");
        }
        assert_eq!(only(Drops::of(&example()), None), Drops::of(&example()));
    }

    #[test]
    fn only_what_happened_is_shown() {
        let text = render(&Drops::of(&example()), &Style { width: Some(120), color: false }, Unit::Total);
        let expected = "
  dropped  listener      packets  because
  no_flow  ga-demo/game       17  a TCP segment other than SYN that belongs to no known flow

  passed to the host  packets  because
  not_ours              9,001  to an address that is not ours, or to a group of stations
";
        assert_eq!(format!("\n{text}"), expected);
        let nothing = Drops { schema_version: 1, drops: Vec::new(), passes: Vec::new() };
        assert_eq!(render(&nothing, &Style::default(), Unit::Total), "dropped: nothing\n\npassed to the host: nothing\n");
    }
}
