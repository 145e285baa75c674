//! Answers which listener port leads where.

use crate::{
    plan::{ListenerView, Plan, Row},
    status::{self, Code, MAX_PAGE_SIZE, Mapping, MappingList, MappingQuery, PAGE_SIZE, Refusal, SocketAddress},
};

/// The page of rows that `query` asks for.
pub(super) fn list(plan: &Plan, query: &MappingQuery) -> Result<MappingList, Refusal> {
    let page_size = if query.page_size == 0 { PAGE_SIZE } else { query.page_size };
    if page_size > MAX_PAGE_SIZE {
        return Err(Refusal::new(Code::Invalid, format!("a page has 1 to {MAX_PAGE_SIZE} rows, not {page_size}")));
    }
    let is_named = |view: &&ListenerView| match &query.listener {
        Some(name) => view.name.as_str() == name || view.path() == *name,
        None => view.custom.is_some(),
    };
    let views: Vec<&ListenerView> = plan.listeners.iter().filter(is_named).collect();
    if let (Some(name), true) = (&query.listener, views.is_empty()) {
        return Err(Refusal::new(Code::NotFound, format!("there is no listener {name}")));
    }
    let page_number = query.page_number.max(1);
    let skipped = (u64::from(page_number) - 1) * u64::from(page_size);
    let page = skipped..skipped + u64::from(page_size);
    let (mut total_count, mut port_mappings) = (0, Vec::new());
    for view in views {
        for row in rows(view, query) {
            if page.contains(&total_count) {
                port_mappings.push(mapping(view, &row));
            }
            total_count += 1;
        }
    }
    Ok(MappingList { schema_version: status::SCHEMA_VERSION, total_count, page_number, page_size, port_mappings })
}

fn rows<'v>(view: &'v ListenerView, query: &MappingQuery) -> Vec<Row<'v>> {
    let Some(custom) = &view.custom else { return Vec::new() };
    let mut rows = match query.ip {
        Some(host) => custom.reverse(query.endpoint, host, query.port),
        None => custom.rows(),
    };
    rows.retain(|row| {
        query.group.as_ref().is_none_or(|group| row.group == group)
            && query.endpoint.is_none_or(|net| row.net == net)
            && query.port.is_none_or(|port| row.host_port == port)
    });
    rows
}

fn mapping(view: &ListenerView, row: &Row<'_>) -> Mapping {
    Mapping {
        accelerator_id: view.instance.to_string(),
        listener_id: view.name.to_string(),
        endpoint_group_id: row.group.to_owned(),
        endpoint_group_region: row.region.to_owned(),
        endpoint_id: format!("{}/{}/vswitch/{}", view.path(), row.group, row.net.network()),
        vswitch: row.net.to_string(),
        accelerator_port: row.port,
        protocols: row.protocols.words().iter().map(|word| (*word).to_owned()).collect(),
        destination_socket_address: SocketAddress { ip_address: row.host, port: row.host_port },
        destination_traffic_state: if row.is_allowed { "allow" } else { "deny" }.to_owned(),
    }
}
