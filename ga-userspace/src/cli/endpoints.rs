//! `ga endpoints`: who gets traffic, and a hand on the tap.

use clap::{Args, Subcommand};
use comfy_table::{Cell, CellAlignment, Color};

use super::{
    Context, Exit,
    output::Style,
    status::note,
    units::{count, percent},
};
use crate::status::{Action, Endpoint, EndpointChange, EndpointList, Selector};

pub(super) const EXAMPLES: &str = "SELECTOR is instance/listener/address, or just the address when only one endpoint has it.
Known flows stay where they are, whatever the weight becomes.

Examples:
  ga endpoints list
  ga endpoints drain 10.0.0.11                   no new flows
  ga endpoints undrain ga-demo/game/10.0.0.11    back to the weight in the file
  ga endpoints weight 10.0.0.12 50               another weight until undrain";

/// Arguments of `ga endpoints`.
#[derive(Clone, Debug, Args)]
pub(super) struct EndpointsArgs {
    #[command(subcommand)]
    verb: EndpointsVerb,
}

#[derive(Clone, Debug, Subcommand)]
enum EndpointsVerb {
    /// Every endpoint with its weight, share and flows
    #[command(after_long_help = EXAMPLES)]
    List,
    /// Send no new flows to an endpoint; known flows stay
    #[command(after_long_help = EXAMPLES)]
    Drain(One),
    /// Go back to the weight in the file
    #[command(after_long_help = EXAMPLES)]
    Undrain(One),
    /// Use another weight than the one in the file
    #[command(after_long_help = EXAMPLES)]
    Weight {
        #[command(flatten)]
        one: One,
        /// 0 to 255
        weight: u8,
    },
}

#[derive(Clone, Debug, Args)]
struct One {
    /// instance/listener/address, or address
    selector: Selector,
}

/// Runs `ga endpoints`.
pub(super) async fn run(args: &EndpointsArgs, context: &Context) -> anyhow::Result<Exit> {
    let (one, action) = match &args.verb {
        EndpointsVerb::List => {
            let list = EndpointList::of(&context.client().status().await?);
            context.output.view(&list, |style| render_list(&list, style))?;
            return Ok(Exit::Ok);
        }
        EndpointsVerb::Drain(one) => (one, Action::Drain),
        EndpointsVerb::Undrain(one) => (one, Action::Undrain),
        EndpointsVerb::Weight { one, weight } => (one, Action::Weight(*weight)),
    };
    let change = context.client().endpoint(&one.selector, action).await?;
    context.output.view(&change, |_| render_change(&change))?;
    Ok(Exit::Ok)
}

fn render_list(list: &EndpointList, style: &Style) -> String {
    use CellAlignment::{Left, Right};
    let columns = [
        ("endpoint", Left),
        ("group", Left),
        ("weight", Right),
        ("share", Right),
        ("flows", Right),
        ("state", Left),
        ("rtt", Right),
        ("from", Left),
        ("note", Left),
    ];
    let mut table = style.table(&columns);
    for row in &list.endpoints {
        let endpoint = &row.endpoint;
        table.add_row(vec![
            Cell::new(format!("{}/{}/{}", row.instance, row.listener, endpoint.address)),
            Cell::new(&row.group),
            Cell::new(endpoint.weight),
            Cell::new(percent(endpoint.share)),
            Cell::new(count(endpoint.active_flows)),
            Cell::new(endpoint.state.word()),
            Cell::new(round_trip(endpoint)),
            Cell::new(endpoint.origin.sentence()),
            Cell::new(note(endpoint).as_deref().unwrap_or("-")).fg(Color::Yellow),
        ]);
    }
    style.draw(table)
}

/// The smoothed time to connect, where probes have measured it.
fn round_trip(endpoint: &Endpoint) -> String {
    let measured = endpoint.health.as_ref().and_then(|health| health.round_trip_ms);
    measured.map_or("-".to_owned(), |ms| format!("{ms:.1} ms"))
}

fn render_change(change: &EndpointChange) -> String {
    let EndpointChange { endpoint, configured_weight, weight_before, weight, state, generation, .. } = change;
    format!(
        "{endpoint}: weight {weight_before} -> {weight}, {} (configured {configured_weight}); generation {generation} is live\n",
        state.word()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EndpointPath, EndpointState, example::example};

    #[test]
    fn the_list_names_endpoints_as_selectors_do() {
        let list = EndpointList::of(&example());
        let expected = "
  endpoint                    group  weight   share   flows  state       rtt  from     note
  ga-demo/game/10.0.0.11      near      255  100.0%  12,345  active   0.4 ms  literal  -
  ga-demo/game/10.0.0.12      near        0    0.0%      42  drained       -  literal  drained (255)
  ga-demo/voice/10.0.0.11     near      255   99.6%       9  active        -  literal  -
  ga-demo/voice/2001:db8::11  near        1    0.4%       0  active        -  literal  configured 255
";
        assert_eq!(format!("\n{}", render_list(&list, &Style::default())), expected);
        for row in &list.endpoints {
            let typed = format!("{}/{}/{}", row.instance, row.listener, row.endpoint.address);
            assert!(typed.parse::<Selector>().is_ok_and(|selector| selector.find(&example()).is_ok()), "{typed}");
        }
    }

    #[test]
    fn a_change_is_one_line() {
        let path = ["ga-demo", "game", "near", "10.0.0.12"].map(str::to_owned);
        let [instance, listener, group, address] = path;
        let change = EndpointChange {
            schema_version: 1,
            endpoint: EndpointPath { instance, listener, group, address },
            configured_weight: 255,
            weight_before: 255,
            weight: 0,
            state: EndpointState::Drained,
            generation: 43,
        };
        let expected = "ga-demo/game/near/10.0.0.12: weight 255 -> 0, drained (configured 255); generation 43 is live\n";
        assert_eq!(render_change(&change), expected);
    }
}
