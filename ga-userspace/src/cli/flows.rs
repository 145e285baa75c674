//! `ga flows`: who talks to whom through this edge.

use std::net::IpAddr;

use clap::Args;
use comfy_table::{Cell, CellAlignment};
use ipnet::IpNet;

use super::{
    Context, Exit,
    output::{Style, tsv},
    units::{count, duration},
};
use crate::status::{FlowFilter, FlowList, FlowQuery, FlowRow, FlowState, Protocol, Top};

pub(super) const EXAMPLES: &str =
    "A flow is both directions of one connection. A terminal gets a table, a pipe tab-separated values with a header line.
STATE is opening (nobody has answered yet), open, closing (one side is done) or closed (kept a moment longer).

Examples:
  ga flows                                          the first 50 flows
  ga flows --listener shop/web --state opening      who waits for an answer
  ga flows --client 203.0.113.0/24 --limit 1000     a network's flows
  ga flows --endpoint 10.0.0.11 --count             how many flows an endpoint has
  ga flows --top clients -n 10                      who has most
  ga flows --json | jq '.flows[].egress'            what endpoints see";

/// Arguments of `ga flows`.
#[derive(Clone, Debug, Args)]
pub(super) struct FlowsArgs {
    /// Only flows of this listener: instance/listener, or listener
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,
    /// Only flows to the endpoint of this address
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Option<IpAddr>,
    /// Only flows of clients in this network, or of this client
    #[arg(long, value_name = "CIDR", value_parser = network)]
    client: Option<IpNet>,
    /// Only tcp or udp
    #[arg(long, value_name = "PROTOCOL")]
    proto: Option<Protocol>,
    /// Only flows in this state
    #[arg(long, value_name = "STATE")]
    state: Option<FlowState>,
    /// Say how many there are and nothing else
    #[arg(long, conflicts_with_all = ["top", "limit"])]
    count: bool,
    /// Count flows by clients, endpoints or listeners and show who has most
    #[arg(long, value_name = "WHAT")]
    top: Option<Top>,
    /// Lines of --top
    #[arg(short = 'n', value_name = "N", default_value_t = 10, requires = "top", value_parser = clap::value_parser!(u32).range(1..))]
    lines: u32,
    /// Flows to show at most
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "top")]
    limit: u32,
}

/// A network, or an address alone.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "not a network or an address".to_owned())
}

/// Runs `ga flows`.
pub(super) async fn run(args: &FlowsArgs, context: &Context) -> anyhow::Result<Exit> {
    let FlowsArgs { listener, endpoint, client, proto, state, .. } = args.clone();
    let only = FlowFilter { listener, endpoint, client, protocol: proto, state };
    let limit = match (args.count, args.top) {
        (true, _) => 0,
        (false, Some(_)) => args.lines,
        (false, None) => args.limit,
    };
    let list = context.client().flows(&FlowQuery { only, limit, top: args.top }).await?;
    let output = &context.output;
    output.view(&list, |style| match args.top {
        _ if args.count => format!("{}\n", list.matched),
        Some(top) if output.is_terminal() => render_top(&list, top, style),
        Some(top) => tsv(&[top.word(), "flows"], list.top.iter().map(|row| [row.name.clone(), row.flows.to_string()])),
        None if output.is_terminal() => render(&list, style),
        None => render_tsv(&list),
    })?;
    Ok(Exit::Ok)
}

const COLUMNS: [&str; 9] = ["proto", "client", "vip", "egress", "endpoint", "listener", "state", "idle", "left"];

fn render(list: &FlowList, style: &Style) -> String {
    use CellAlignment::{Left, Right};
    if list.matched == 0 {
        return "no flows\n".to_owned();
    }
    let align = |name: &&'static str| (*name, if matches!(*name, "idle" | "left") { Right } else { Left });
    let mut table = style.table(&COLUMNS.iter().map(align).collect::<Vec<_>>());
    for row in &list.flows {
        let times = [row.idle_s, row.left_s].map(|seconds| Cell::new(short(seconds)));
        table.add_row(words(row).into_iter().map(Cell::new).chain(times));
    }
    let mut out = style.draw(table);
    let rest = list.matched - list.flows.len() as u64;
    if rest > 0 {
        out += &format!("  and {} more: see --limit, --count and --top\n", count(rest));
    }
    out
}

fn render_tsv(list: &FlowList) -> String {
    let row = |row: &FlowRow| {
        words(row).into_iter().chain([row.idle_s, row.left_s].map(|seconds| seconds.to_string())).collect::<Vec<_>>()
    };
    tsv(&COLUMNS, list.flows.iter().map(row))
}

fn words(row: &FlowRow) -> [String; 7] {
    let listener = row.listener.as_deref().unwrap_or("-").to_owned();
    let [client, vip, egress, endpoint] = [row.client, row.vip, row.egress, row.endpoint].map(|address| address.to_string());
    [row.protocol.to_string(), client, vip, egress, endpoint, listener, row.state.word().to_owned()]
}

fn short(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}s") } else { duration(seconds as u64) }
}

fn render_top(list: &FlowList, top: Top, style: &Style) -> String {
    let mut table = style.table(&[(top.word(), CellAlignment::Left), ("flows", CellAlignment::Right)]);
    for row in &list.top {
        table.add_row(vec![Cell::new(&row.name), Cell::new(count(row.flows))]);
    }
    format!("{}  of {} flows\n", style.draw(table), count(list.matched))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::TopRow;

    fn list() -> FlowList {
        let address = |text: &str| text.parse().expect("an address");
        let row = FlowRow {
            protocol: Protocol::Tcp,
            state: FlowState::Open,
            client: address("192.0.2.7:40000"),
            vip: address("198.51.100.10:80"),
            egress: address("203.0.113.5:1024"),
            endpoint: address("10.0.0.11:8080"),
            listener: Some("shop/web".to_owned()),
            idle_s: 2.4,
            timeout_s: 900,
            left_s: 897.6,
            slot: 1,
            peer_slot: Some(2),
        };
        let v6 = FlowRow { client: address("[2001:db8::7]:40000"), listener: None, ..row.clone() };
        FlowList { schema_version: 1, matched: 7, flows: vec![row, v6], top: Vec::new() }
    }

    #[test]
    fn a_terminal_gets_a_table_and_is_told_what_is_left_out() {
        let expected = "
  proto  client              vip               egress            endpoint        listener  state  idle     left
  tcp    192.0.2.7:40000     198.51.100.10:80  203.0.113.5:1024  10.0.0.11:8080  shop/web  open   2.4s  14m 57s
  tcp    [2001:db8::7]:40000 198.51.100.10:80  203.0.113.5:1024  10.0.0.11:8080  -         open   2.4s  14m 57s
  and 5 more: see --limit, --count and --top
";
        let squeeze = |text: &str| {
            text.split_inclusive('\n').map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&format!("\n{}", render(&list(), &Style::default()))), squeeze(expected));
        assert_eq!(render(&FlowList::default(), &Style::default()), "no flows\n");
    }

    #[test]
    fn a_pipe_gets_one_line_a_flow_with_as_many_fields_as_the_header() {
        let text = render_tsv(&list());
        let fields: Vec<_> = text.lines().map(|line| line.split('\t').count()).collect();
        assert_eq!(fields, [9, 9, 9]);
        assert!(text.starts_with("proto\tclient\t") && text.ends_with("\topen\t2.4\t897.6\n"), "{text}");
    }

    #[test]
    fn tops_say_how_many_there_are_in_all() {
        let list = FlowList { matched: 12_000, top: vec![TopRow { name: "192.0.2.7".to_owned(), flows: 11_000 }], ..list() };
        assert_eq!(
            render_top(&list, Top::Clients, &Style::default()),
            "  clients     flows\n  192.0.2.7  11,000\n  of 12,000 flows\n"
        );
    }

    #[test]
    fn an_address_alone_is_a_network_of_one() {
        assert_eq!(network("192.0.2.7").map(|net| net.prefix_len()), Ok(32));
        assert_eq!(network("2001:db8::/32").map(|net| net.prefix_len()), Ok(32));
        assert!(network("192.0.2.7/33").is_err() && network("web").is_err());
    }
}
