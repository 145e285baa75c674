//! What happened, gathered from plan, counters and flow memory into one view.

use ga_common::abi::id::ListenerId;

use super::{Agent, Error, state};
use crate::{
    maps::LiveFlows,
    model::{Affinity, GroupKind, GroupName},
    plan::{EndpointView, Family, GroupView, ListenerView},
    status::{
        AttachMode, Counters, DropCount, Endpoint, FlowTable, Flows, Group, Instance, Interface, Listener, MapFill, PassCount,
        Repairs, SCHEMA_VERSION, Status,
    },
};
use ga_common::abi::limits::{MAX_ADDRESSES, MAX_ENDPOINTS, MAX_LISTENERS, MAX_SERVICES, MAX_TABLES};

impl Agent {
    pub(super) fn status(&self) -> Result<Status, Error> {
        let (live, sizes) = self.data_path.live_flows();
        let capacity = u64::from(self.intent.node.flows);
        let interfaces = self.data_path.attachments().slots().iter().map(|slot| Interface {
            name: slot.name.clone(),
            ifindex: slot.attached.as_ref().map_or(0, |attached| attached.ifindex),
            mode: if slot.native { AttachMode::Native } else { AttachMode::Generic },
            attached: slot.attached.is_some(),
            reattached: slot.reattached,
            trouble: slot.trouble.clone(),
        });
        let mut status = Status {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            access_point: self.intent.node.ap.clone(),
            generation: self.data_path.running().generation.0,
            config_hash: self.config_hash.clone(),
            config_file: std::path::absolute(&self.options.config).unwrap_or_default().display().to_string(),
            uptime_s: self.started.elapsed().as_secs_f64(),
            started_at: Some(self.started_at),
            last_reload: self.last_reload.clone(),
            interfaces: interfaces.collect(),
            flows: Flows { ipv4: FlowTable { live: live.v4, capacity }, ipv6: FlowTable { live: live.v6, capacity } },
            flow_events: self.data_path.counters().events()?.into_iter().map(|(event, n)| (event.name().to_owned(), n)).collect(),
            maps: self.fills(&live, u64::from(sizes.flows4)),
            repairs: self.repairs(),
            names: self.known_names(),
            probes: self.probes(),
            instances: self.instances(&live)?,
            drops: self.drops()?,
            passes: self.data_path.counters().passes()?.iter().map(|count| PassCount::of(count.reason, count.packets)).collect(),
            certificates: self.certificates(),
            access_log_lost: self.access_log_lost(),
            warnings: self.warnings(),
        };
        status.attribute_drops();
        Ok(status)
    }

    /// In sentences.
    fn warnings(&self) -> Vec<String> {
        let of_plan = self.plan.notes.iter().map(ToString::to_string);
        of_plan.chain(self.health.warnings()).chain(self.certificate_warnings()).collect()
    }

    fn repairs(&self) -> Repairs {
        let maps = self.data_path.repaired().iter().map(|(map, count)| (map.to_lowercase(), *count));
        Repairs {
            maps: maps.collect(),
            pins: self.data_path.attachments().pins_restored(),
            next_hops: self.data_path.next_hops().changes(),
        }
    }

    fn fills(&self, live: &LiveFlows, slots: u64) -> Vec<MapFill> {
        let running = self.data_path.running();
        let fill = |name: &str, entries: usize, capacity: u32| MapFill {
            name: name.to_owned(),
            entries: entries as u64,
            capacity: u64::from(capacity),
        };
        let halves = |name: &str, flows: u64| MapFill { name: name.to_owned(), entries: flows * 2, capacity: slots };
        vec![
            fill("addresses", running.addresses.len(), MAX_ADDRESSES),
            fill("endpoints", running.endpoints.len(), MAX_ENDPOINTS),
            halves("flows4", live.v4),
            halves("flows6", live.v6),
            fill("listeners", running.listeners.len(), MAX_LISTENERS),
            fill("services", running.services.len(), MAX_SERVICES),
            fill("tables", running.tables.len(), MAX_TABLES),
        ]
    }

    /// In file order: the plan is ordered by name, people think in the order of their file.
    fn instances(&self, live: &LiveFlows) -> Result<Vec<Instance>, Error> {
        let view = |instance: &crate::model::Instance| {
            let views = instance.listeners.iter().filter_map(|listener| {
                self.plan.listeners.iter().find(|view| view.instance == instance.id && view.name == listener.name)
            });
            Ok(Instance {
                id: instance.id.to_string(),
                vips: instance.vips.iter().map(ToString::to_string).collect(),
                egress_ips: instance.egress_ips.iter().map(ToString::to_string).collect(),
                listeners: views.map(|view| self.listener(view, live)).collect::<Result<_, _>>()?,
            })
        };
        self.intent.instances.iter().map(view).collect()
    }

    fn listener(&self, view: &ListenerView, live: &LiveFlows) -> Result<Listener, Error> {
        // Retired endpoints are not shown, but what they did was done for this listener.
        let mut counters = Counters::default();
        let mut active_flows = 0;
        for (id, entry) in &self.data_path.running().endpoints {
            if entry.listener == view.id {
                counters = counters + self.counters(*id)?;
                active_flows += live.by_endpoint.get(id).copied().unwrap_or(0);
            }
        }
        if view.is_served() {
            let served = self.data_path.counters().served(view.id)?;
            let (forward_packets, forward_bytes, new_flows) = (served.packets, served.bytes, served.openings);
            counters = counters + Counters { forward_packets, forward_bytes, new_flows, ..Counters::default() };
        }
        let groups = view.groups.iter().map(|group| self.group(view, group, live)).collect::<Result<_, _>>()?;
        Ok(Listener {
            id: view.id.0,
            name: view.name.to_string(),
            protocol: view.protocol.word().to_owned(),
            ports: view.ports.to_string(),
            client_affinity: match view.affinity {
                Affinity::None => "none".to_owned(),
                Affinity::SourceIp => "source_ip".to_owned(),
            },
            idle_timeout_s: u64::from(view.idle_timeout_s),
            counters,
            active_flows,
            in_transition: self.data_path.transitions().concern(view.id),
            drops: Vec::new(),
            proxied: self.proxied(&view.path()),
            groups,
        })
    }

    fn group(&self, listener: &ListenerView, view: &GroupView, live: &LiveFlows) -> Result<Group, Error> {
        let own = listener.endpoints.iter().filter(|endpoint| endpoint.name.group == view.name);
        let (instance, group) = (listener.instance.clone(), view.name.clone());
        let name = GroupName { instance, listener: listener.name.clone(), group };
        let latency = view.latency.or_else(|| self.beliefs.latency.get(&name).copied());
        Ok(Group {
            name: view.name.to_string(),
            kind: match view.kind {
                GroupKind::Default => "default".to_owned(),
                GroupKind::Virtual => "virtual".to_owned(),
            },
            region: view.region.clone(),
            priority: view.priority,
            traffic_ratio: view.traffic_ratio.0,
            latency_ms: latency.map(|latency| latency.as_secs_f64() * 1e3),
            share_ipv4: view.shares.get(&Family::V4).copied(),
            share_ipv6: view.shares.get(&Family::V6).copied(),
            endpoints: own.map(|endpoint| self.endpoint_status(endpoint, live)).collect::<Result<_, _>>()?,
        })
    }

    fn endpoint_status(&self, view: &EndpointView, live: &LiveFlows) -> Result<Endpoint, Error> {
        Ok(Endpoint {
            id: view.id.0,
            address: view.name.at(),
            kind: view.name.kind.word().to_owned(),
            origin: self.origin(view),
            configured_weight: view.configured.0,
            weight: view.weight.0,
            state: state(view),
            share: view.share,
            health: self.health_of(&view.name),
            proxied: self.proxied_endpoint(view),
            next_hop: self.data_path.next_hops().of(view.id),
            counters: self.counters(view.id)?,
            active_flows: live.by_endpoint.get(&view.id).copied().unwrap_or(0),
        })
    }

    fn counters(&self, id: ga_common::abi::id::EndpointId) -> Result<Counters, Error> {
        let counted = self.data_path.counters().endpoint(id)?;
        Ok(Counters {
            forward_packets: counted.forward_packets,
            forward_bytes: counted.forward_bytes,
            return_packets: counted.return_packets,
            return_bytes: counted.return_bytes,
            new_flows: counted.new_flows,
        })
    }

    /// Every reason once without an owner, and for each listener those that happened.
    fn drops(&self) -> Result<Vec<DropCount>, Error> {
        let counters = self.data_path.counters();
        let mut drops: Vec<DropCount> =
            counters.drops(ListenerId::NONE)?.iter().map(|count| DropCount::of(count.reason, None, count.packets)).collect();
        for view in &self.plan.listeners {
            let owner = (view.instance.as_str(), view.name.as_str());
            let counted = counters.drops(view.id)?;
            drops.extend(
                counted
                    .iter()
                    .filter(|count| count.packets > 0)
                    .map(|count| DropCount::of(count.reason, Some(owner), count.packets)),
            );
        }
        Ok(drops)
    }
}
