//! An intent whose endpoints all have addresses: what the file names, with what the names stand for now.
//!
//! All addresses of a domain share its endpoint's weight equally, all servers of a pool by their own weights, exactly and in each
//! family: a family has a table of its own. What nobody knows an address of takes no part.

use std::{borrow::Cow, collections::BTreeSet, fmt, net::IpAddr};

use ga_common::abi::family::Family;

use crate::{
    model::{
        BackendIpVersion, Endpoint, EndpointGroup, Intent, Name, NamedEndpoint, Part, Pool, Server, ServerPlace, Target, Weight,
    },
    resolve::Addresses,
};

/// Something that an endpoint stands for and that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nobody knows an address of it in the families that the group speaks.
    NoAddress {
        /// `instance/listener/group`.
        group: String,
        /// What has none.
        what: String,
    },
    /// It stands for an address of this edge: traffic would come back to us.
    OurOwn {
        /// `instance/listener/group`.
        group: String,
        /// What stands for it.
        what: String,
        /// The address.
        address: IpAddr,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { group, what } => write!(f, "{group}: {what} has no address that can be used; it gets no traffic"),
            Self::OurOwn { group, what, address } => {
                write!(f, "{group}: {what} stands for {address}, an address of this edge, which is left out")
            }
        }
    }
}

/// `intent` with an endpoint for every address that its named endpoints stand for, and what could not be had.
pub fn resolved<'i>(intent: &'i Intent, addresses: &Addresses) -> (Cow<'i, Intent>, Vec<Missing>) {
    if intent.listeners().all(|(_, listener)| listener.groups.iter().all(|group| group.named.is_empty())) {
        return (Cow::Borrowed(intent), Vec::new());
    }
    let ours = intent.instances.iter().flat_map(|instance| instance.vips.iter().chain(&instance.egress_ips));
    let known = Known { pools: &intent.pools, addresses, ours: ours.map(IpAddr::to_canonical).collect() };
    let (mut whole, mut missing) = (intent.clone(), Vec::new());
    for instance in &mut whole.instances {
        for listener in &mut instance.listeners {
            for group in &mut listener.groups {
                let path = format!("{}/{}/{}", instance.id, listener.name, group.name);
                known.fill(group, &path, &mut missing);
            }
        }
    }
    (Cow::Owned(whole), missing)
}

struct Known<'a> {
    pools: &'a [Pool],
    addresses: &'a Addresses,
    ours: BTreeSet<IpAddr>,
}

/// An address that an endpoint stands for, the port that it serves if that is its own, and its share of what it is one of.
struct Member {
    address: IpAddr,
    port: Option<u16>,
    share: u64,
}

impl Known<'_> {
    fn fill(&self, group: &mut EndpointGroup, path: &str, missing: &mut Vec<Missing>) {
        for named in std::mem::take(&mut group.named) {
            let mut members = self.members(&named.target);
            members.retain(|member| speaks(group.backend_ip_version, Family::of(member.address)));
            members.retain(|member| {
                let is_ours = self.ours.contains(&member.address);
                if is_ours {
                    let (group, what, address) = (path.to_owned(), named.target.to_string(), member.address);
                    missing.push(Missing::OurOwn { group, what, address });
                }
                !is_ours
            });
            if let Target::Host { sub_address: None, .. } = named.target {
                // The primary address of each family.
                let mut seen = BTreeSet::new();
                members.retain(|member| seen.insert(member.address.is_ipv4()));
            }
            if members.is_empty() {
                missing.push(Missing::NoAddress { group: path.to_owned(), what: named.target.to_string() });
            }
            for family in Family::ALL {
                let of_family = || members.iter().filter(|member| Family::of(member.address) == family);
                let sum = of_family().map(|member| member.share).sum();
                of_family().for_each(|member| add(&mut group.endpoints, &named, member, Part::of(member.share, sum)));
            }
        }
    }

    fn members(&self, target: &Target) -> Vec<Member> {
        let equal = |address: &IpAddr| Member { address: *address, port: None, share: 1 };
        match target {
            Target::Host { name, sub_address } => {
                let known = self.addresses.hosts.get(name).into_iter().flatten();
                known.filter(|address| sub_address.is_none_or(|wanted| wanted == **address)).map(equal).collect()
            }
            Target::Domain(name) => self.addresses.domains.get(name).into_iter().flatten().map(equal).collect(),
            Target::Pool(name) => self.pool(name).iter().flat_map(|server| self.server(server)).collect(),
        }
    }

    fn pool(&self, name: &Name) -> &[Server] {
        self.pools.iter().find(|pool| pool.name == *name).map_or(&[], |pool| &pool.servers)
    }

    /// A server is one member; one that is known by a name has the primary address of each family.
    fn server(&self, server: &Server) -> Vec<Member> {
        let member = |address| Member { address, port: Some(server.port), share: server.weight.0.into() };
        match &server.place {
            ServerPlace::Address(address) => vec![member(*address)],
            ServerPlace::Host(name) => {
                let known = || self.addresses.hosts.get(name).into_iter().flatten().copied();
                let first = |family| known().find(|address| Family::of(*address) == family);
                Family::ALL.into_iter().filter_map(first).map(member).collect()
            }
        }
    }
}

/// Whether a group sends traffic of `family` to its endpoints.
fn speaks(version: BackendIpVersion, family: Family) -> bool {
    match version {
        BackendIpVersion::Ipv4 => family == Family::V4,
        BackendIpVersion::Ipv6 => family == Family::V6,
        BackendIpVersion::Affinity => true,
    }
}

/// Adds a member. A place that several endpoints of a group stand for is one endpoint and has what all of them would have.
fn add(endpoints: &mut Vec<Endpoint>, named: &NamedEndpoint, member: &Member, part: Part) {
    let new = Endpoint {
        kind: named.kind,
        address: member.address,
        port: member.port,
        weight: named.weight,
        part,
        found_by: Some(named.target.clone()),
    };
    let Some(old) = endpoints.iter_mut().find(|old| (old.address, old.port) == (new.address, new.port)) else {
        endpoints.push(new);
        return;
    };
    let nothing = |endpoint: &Endpoint| endpoint.weight == Weight(0) || endpoint.part == Part::NONE;
    if nothing(old) {
        (old.weight, old.part) = (new.weight, new.part);
    } else if !nothing(&new) {
        // In parts of the older one's weight. What is too fine to be written is too little to be seen.
        let more = part.times(new.weight.0.into(), old.weight.0.into());
        old.part = more.and_then(|more| old.part.plus(more)).unwrap_or(old.part);
    }
}

/// Parts finer than this are rounded: the finest that a table of 65,537 slots shows is far coarser.
const FINEST: u64 = 1 << 40;

/// The parts that an endpoint's weight is cut into, so that every one of `parts` is a whole number of them.
pub(super) fn common(parts: impl Iterator<Item = Part>) -> u64 {
    let mut common = 1_u64;
    for part in parts {
        // As many times the denominator as makes it a multiple of both.
        let times = Part::of(common, part.denominator()).denominator();
        match common.checked_mul(times).filter(|common| *common <= FINEST) {
            Some(exact) => common = exact,
            None => return FINEST,
        }
    }
    common
}

/// The share of an endpoint in proportion to the others', when a weight of 1 is cut into `common` parts.
pub(super) fn share(weight: Weight, part: Part, common: u64) -> u64 {
    let exact = u128::from(weight.0) * u128::from(part.numerator()) * u128::from(common) / u128::from(part.denominator());
    // A sum of parts may be more than the whole, but not by so much.
    u64::try_from(exact).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_no_number_holds_are_rounded_and_nobody_is_lost() {
        // Thirty prime numbers of servers: their least common multiple has fifty digits.
        let primes = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47];
        let parts = || primes.iter().map(|n| Part::of(1, *n));
        let whole = common(parts());
        for part in parts() {
            let share = share(Weight(1), part, whole) as f64 / whole as f64;
            assert!((share * part.denominator() as f64 - 1.0).abs() < 1e-9, "{part:?}");
        }
    }
}
