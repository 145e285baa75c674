//! Answers to `ga flows`: flow memory walked on a thread of its own, so that millions of slots hold up nobody.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, sync::Arc};

use ga_common::abi::{
    entry::AddressKey,
    flow::TICK_SHIFT,
    id::{EndpointId, ListenerId},
};

use super::{Agent, clock};
use crate::{
    maps::{FlowTables, Pair, Stage},
    status::{
        Code, FLOWS_LIMIT, FlowFilter, FlowList, FlowQuery, FlowRow, FlowState, Protocol, Refusal, Reply, SCHEMA_VERSION, Top,
        TopRow,
    },
};

/// What ids are called.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// `instance/listener`.
    pub(super) listeners: BTreeMap<ListenerId, String>,
    /// Whose an endpoint is; retired ones too.
    pub(super) owners: BTreeMap<EndpointId, ListenerId>,
    /// Where it is.
    pub(super) addresses: BTreeMap<EndpointId, IpAddr>,
}

impl Names {
    /// `instance/listener` of an endpoint, while the configuration has it.
    pub(super) fn owner(&self, id: EndpointId) -> Option<&str> {
        self.listeners.get(self.owners.get(&id)?).map(String::as_str)
    }

    /// With the endpoint's own address, which flow memory does not have where packets stay as they are.
    fn placed(&self, mut pair: Pair) -> Pair {
        if let Some(address) = self.addresses.get(&pair.id).filter(|_| pair.is_alone) {
            pair.endpoint.set_ip(*address);
        }
        pair
    }
}

fn address(key: AddressKey) -> IpAddr {
    IpAddr::from(key).to_canonical()
}

impl Agent {
    /// What ids are called now.
    pub(super) fn names(&self) -> Names {
        Names {
            listeners: self.plan.listeners.iter().map(|view| (view.id, view.path())).collect(),
            owners: self.data_path.running().endpoints.iter().map(|(&id, entry)| (id, entry.listener)).collect(),
            addresses: self.data_path.running().endpoints.iter().map(|(&id, entry)| (id, address(entry.addr))).collect(),
        }
    }

    /// Answers when the walk is done.
    pub(super) fn list_flows(&mut self, query: FlowQuery, reply: Reply<FlowList>) {
        let (tables, names) = (self.data_path.flow_tables(), self.names());
        if let Err(refusal) = check(&query, &names) {
            return reply.send(Err(refusal));
        }
        let turn = Arc::clone(&self.walks);
        self.tasks.spawn(async move {
            // One walk at a time: a second one would only make both slower.
            let Ok(_turn) = turn.acquire_owned().await else { return };
            let walk = tokio::task::spawn_blocking(move || list(&tables, &names, &query));
            reply.send(
                walk.await.map_err(|error| Refusal::new(Code::Internal, format!("the walk over flow memory ended: {error}"))),
            );
        });
    }
}

fn check(query: &FlowQuery, names: &Names) -> Result<(), Refusal> {
    if query.limit > FLOWS_LIMIT {
        return Err(Refusal::new(Code::Invalid, format!("an answer holds {FLOWS_LIMIT} flows at most: ask for fewer")));
    }
    match &query.only.listener {
        Some(wanted) if !names.listeners.values().any(|path| is_listener(path, wanted)) => {
            let known = names.listeners.values().take(20).cloned();
            Err(Refusal::new(Code::NotFound, format!("there is no listener `{wanted}`")).with_problems(known))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_listener(path: &str, wanted: &str) -> bool {
    path == wanted || path.split_once('/').is_some_and(|(_, name)| name == wanted)
}

fn list(tables: &FlowTables, names: &Names, query: &FlowQuery) -> FlowList {
    let mut answer = FlowList { schema_version: SCHEMA_VERSION, ..FlowList::default() };
    let limit = query.limit as usize;
    let (mut clients, mut others) = (BTreeMap::<IpAddr, u64>::new(), BTreeMap::<(Option<&str>, Option<IpAddr>), u64>::new());
    tables.walk(clock::tick(), |pair| {
        let pair = names.placed(pair);
        let owner = names.owner(pair.id);
        if !fits(&query.only, &pair, owner) {
            return;
        }
        answer.matched += 1;
        match query.top {
            Some(Top::Clients) => *clients.entry(pair.client.ip()).or_default() += 1,
            Some(Top::Endpoints) => *others.entry((owner, Some(pair.endpoint.ip()))).or_default() += 1,
            Some(Top::Listeners) => *others.entry((owner, None)).or_default() += 1,
            None if answer.flows.len() < limit => answer.flows.push(row(&pair, owner)),
            None => {}
        }
    });
    let name = |(owner, address): (Option<&str>, Option<IpAddr>)| {
        let owner = owner.unwrap_or("?");
        address.map_or_else(|| owner.to_owned(), |address| format!("{owner}/{address}"))
    };
    answer.top = most(clients, limit, |address| address.to_string());
    answer.top.extend(most(others, limit, name));
    answer
}

/// The `limit` that have most, named only once it is known who they are.
fn most<T: Ord>(counts: BTreeMap<T, u64>, limit: usize, name: impl Fn(T) -> String) -> Vec<TopRow> {
    let mut all: Vec<_> = counts.into_iter().collect();
    // Stable: the same question about the same flows has the same answer.
    all.sort_by_key(|(_, flows)| Reverse(*flows));
    all.into_iter().take(limit).map(|(what, flows)| TopRow { name: name(what), flows }).collect()
}

fn fits(only: &FlowFilter, pair: &Pair, owner: Option<&str>) -> bool {
    only.protocol.is_none_or(|protocol| protocol.number() == pair.protocol)
        && only.state.is_none_or(|wanted| wanted == state(pair.stage))
        && only.client.is_none_or(|network| network.contains(&pair.client.ip()))
        && only.endpoint.is_none_or(|address| address == pair.endpoint.ip())
        && only.listener.as_deref().is_none_or(|wanted| owner.is_some_and(|path| is_listener(path, wanted)))
}

fn row(pair: &Pair, owner: Option<&str>) -> FlowRow {
    FlowRow {
        protocol: Protocol::of(pair.protocol).unwrap_or(Protocol::Udp),
        state: state(pair.stage),
        client: pair.client,
        vip: pair.vip,
        egress: pair.egress,
        endpoint: pair.endpoint,
        listener: owner.map(str::to_owned),
        idle_s: seconds(pair.idle),
        timeout_s: pair.timeout_s,
        left_s: seconds(pair.left),
        slot: pair.slots.0,
        peer_slot: pair.slots.1,
    }
}

const fn state(stage: Stage) -> FlowState {
    match stage {
        Stage::Opening => FlowState::Opening,
        Stage::Open => FlowState::Open,
        Stage::Closing => FlowState::Closing,
        Stage::Closed => FlowState::Closed,
    }
}

/// To tenths: a tick is four milliseconds.
pub(super) fn seconds(ticks: u32) -> f64 {
    ((u64::from(ticks) << TICK_SHIFT) as f64 / 1e8).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        let address = |text: &str| text.parse().expect("an address");
        Pair {
            protocol: 6,
            client: address("192.0.2.7:40000"),
            vip: address("198.51.100.10:80"),
            egress: address("203.0.113.5:1024"),
            endpoint: address("10.0.0.11:8080"),
            is_alone: false,
            id: EndpointId(3),
            stage: Stage::Open,
            idle: 477,
            left: 20_000,
            timeout_s: 900,
            slots: (1, Some(2)),
        }
    }

    #[test]
    fn every_part_of_a_filter_must_fit() {
        let fit = |only: FlowFilter| fits(&only, &pair(), Some("shop/web"));
        let all = FlowFilter {
            listener: Some("web".to_owned()),
            endpoint: Some([10, 0, 0, 11].into()),
            client: Some("192.0.2.0/24".parse().expect("a network")),
            protocol: Some(Protocol::Tcp),
            state: Some(FlowState::Open),
        };
        assert!(fit(FlowFilter::default()) && fit(all.clone()));
        assert!(fit(FlowFilter { listener: Some("shop/web".to_owned()), ..all.clone() }));
        for wrong in [
            FlowFilter { listener: Some("shop".to_owned()), ..all.clone() },
            FlowFilter { endpoint: Some([10, 0, 0, 12].into()), ..all.clone() },
            FlowFilter { client: Some("192.0.3.0/24".parse().expect("a network")), ..all.clone() },
            FlowFilter { client: Some("::/0".parse().expect("a network")), ..all.clone() },
            FlowFilter { protocol: Some(Protocol::Udp), ..all.clone() },
            FlowFilter { state: Some(FlowState::Opening), ..all.clone() },
        ] {
            assert!(!fit(wrong.clone()), "{wrong:?}");
        }
        assert!(!fits(&all, &pair(), None), "a flow of no known listener is not of this one");
    }

    #[test]
    fn rows_are_in_seconds_and_tops_are_cut_after_sorting() {
        let row = row(&pair(), Some("shop/web"));
        assert_eq!((row.idle_s, row.left_s, row.listener.as_deref()), (2.0, 83.9, Some("shop/web")));
        let counts = BTreeMap::from([("a", 1), ("b", 7), ("c", 7)]);
        let top: Vec<_> = most(counts, 2, str::to_owned).into_iter().map(|row| (row.name, row.flows)).collect();
        assert_eq!(top, [("b".to_owned(), 7), ("c".to_owned(), 7)]);
    }

    #[test]
    fn a_question_about_nothing_or_for_too_much_is_refused() {
        let names = Names { listeners: BTreeMap::from([(ListenerId(0), "shop/web".to_owned())]), ..Names::default() };
        let ask = |listener: &str, limit| {
            let only = FlowFilter { listener: Some(listener.to_owned()), ..FlowFilter::default() };
            check(&FlowQuery { only, limit, top: None }, &names).map_err(|refusal| refusal.code)
        };
        assert_eq!(ask("web", 10), Ok(()));
        assert_eq!(ask("dns", 10), Err(Code::NotFound));
        assert_eq!(ask("web", FLOWS_LIMIT + 1), Err(Code::Invalid));
    }
}
