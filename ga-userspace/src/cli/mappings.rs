//! `ga mappings`: which port of a custom routing listener leads where, and which one leads to a host.

use std::net::Ipv4Addr;

use clap::Args;
use comfy_table::{Cell, CellAlignment};
use ipnet::Ipv4Net;

use super::{Context, Exit, output::Style};
use crate::status::{MAX_PAGE_SIZE, MappingList, MappingQuery, PAGE_SIZE};

pub(super) const EXAMPLES: &str = "Examples:
  ga mappings                                  the first ten rows of all custom routing listeners
  ga mappings --listener rooms --page 3 --size 50
  ga mappings --ip 10.1.2.4                    which ports lead to a host
  ga mappings --endpoint 10.1.2.0/28 --ip 10.1.2.4 --port 81";

/// Arguments of `ga mappings`.
#[derive(Clone, Debug, Args)]
pub(super) struct MappingsArgs {
    /// Only this listener: its name, or instance/listener
    #[arg(long)]
    listener: Option<String>,
    /// Only this endpoint group
    #[arg(long)]
    group: Option<String>,
    /// Only this subnet
    #[arg(long)]
    endpoint: Option<Ipv4Net>,
    /// Only this host
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Only this port of hosts
    #[arg(long)]
    port: Option<u16>,
    /// Which page
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    page: u32,
    /// Rows of a page
    #[arg(long, default_value_t = PAGE_SIZE, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_PAGE_SIZE)))]
    size: u32,
}

/// Runs `ga mappings`.
pub(super) async fn run(args: &MappingsArgs, context: &Context) -> anyhow::Result<Exit> {
    let MappingsArgs { listener, group, endpoint, ip, port, page, size } = args.clone();
    let query = MappingQuery { listener, group, endpoint, ip, port, page_number: page, page_size: size };
    let list = context.client().mappings(&query).await?;
    context.output.view(&list, |style| render(&list, style))?;
    Ok(Exit::Ok)
}

fn render(list: &MappingList, style: &Style) -> String {
    use CellAlignment::{Left, Right};
    let columns = [("listener", Left), ("port", Right), ("to", Left), ("protocols", Left), ("group", Left), ("state", Left)];
    let mut table = style.table(&columns);
    for row in &list.port_mappings {
        let to = &row.destination_socket_address;
        table.add_row(vec![
            Cell::new(format!("{}/{}", row.accelerator_id, row.listener_id)),
            Cell::new(row.accelerator_port),
            Cell::new(format!("{}:{}", to.ip_address, to.port)),
            Cell::new(row.protocols.join(",")),
            Cell::new(&row.endpoint_group_id),
            Cell::new(&row.destination_traffic_state),
        ]);
    }
    let pages = list.total_count.div_ceil(u64::from(list.page_size)).max(1);
    format!("{}page {} of {pages}, {} rows\n", style.draw(table), list.page_number, list.total_count)
}
