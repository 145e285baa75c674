//! The picture for the README: topology, spread and findings, legible on light and on dark ground.

use std::{
    fmt::{Display, Write as _},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};

use super::{
    acts::Killed,
    https::Https,
    screen::thousands,
    tally::{Row, Spread},
};
use crate::lab::{EGRESS4, EGRESS6, VIP4, VIP6, client4, client6, server4, server6};

/// What the picture tells.
#[derive(Debug)]
pub(super) struct Findings<'a> {
    /// Bars: IPv4 and IPv6 of each listener.
    pub(super) spreads: &'a [Spread],
    /// Client addresses that stayed with their endpoint.
    pub(super) addresses: usize,
    /// Bits per second of one stream, IPv4 and IPv6.
    pub(super) rates: [f64; 2],
    /// What the agent serves itself.
    pub(super) https: &'a Https,
    /// Around the `kill -9`.
    pub(super) killed: Killed,
}

const WIDTH: u32 = 880;
const HEIGHT: u32 = 822;

/// The card brings its own ground, so it is legible wherever it is shown.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:13px;fill:#1f2328}
.mono{font-family:ui-monospace,SFMono-Regular,Menlo,'DejaVu Sans Mono',monospace;font-size:12px}
.title{font-size:15px;font-weight:600}
.big{font-size:20px;font-weight:600}
.dim{fill:#59636e}
.small{font-size:12px}
.ground{fill:#ffffff;stroke:#d1d9e0}
.box{fill:#f6f8fa;stroke:#d1d9e0}
.edge{fill:#ddf4ff;stroke:#54aeff}
.cable{stroke:#818b98;fill:none}
.flow{stroke:#0969da;fill:none;opacity:.55}
.weight{fill:#c4ccd4}
.v4{fill:#0969da}
.v6{fill:#8250df}
.s1{fill:#0969da}
.s2{fill:#54aeff}
.s3{fill:#8250df}
.good{fill:#1a7f37}
.bad{fill:#cf222e}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}
.dim{fill:#9da7b3}
.ground{fill:#0d1117;stroke:#3d444d}
.box{fill:#151b23;stroke:#3d444d}
.edge{fill:#0c2d6b;stroke:#1f6feb}
.cable{stroke:#656c76}
.flow{stroke:#4493f8}
.weight{fill:#4b535d}
.v4{fill:#4493f8}
.v6{fill:#ab7df8}
.s1{fill:#4493f8}
.s2{fill:#1f4f99}
.s3{fill:#ab7df8}
.good{fill:#3fb950}
.bad{fill:#f85149}
}
";

/// Writes it to `path`.
pub(super) fn write(path: &Path, findings: &Findings<'_>) -> Result<()> {
    fs::write(path, draw(findings)).with_context(|| format!("cannot write {}", path.display()))
}

fn draw(findings: &Findings<'_>) -> String {
    let mut svg = Svg::default();
    svg.tag(format_args!("rect class='ground' x='0.5' y='0.5' width='{}' height='{}' rx='10'", WIDTH - 1, HEIGHT - 1));
    let web: Vec<&Spread> = findings.spreads.iter().filter(|spread| spread.listener == "web").collect();
    topology(&mut svg, &web);
    for (listener, x) in [("web", 32), ("dns", 456)] {
        let pair: Vec<&Spread> = findings.spreads.iter().filter(|spread| spread.listener == listener).collect();
        if let [v4, v6] = pair[..] {
            bars(&mut svg, x, v4, v6);
        }
    }
    legend(&mut svg);
    requests(&mut svg, findings.https);
    tiles(&mut svg, findings);
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' role='img' \
         aria-label='Two client networks, an edge that forwards in XDP, three servers, and how connections spread over them'>\n\
         <style>\n{STYLE}</style>\n{}</svg>\n",
        svg.0
    )
}

#[derive(Default)]
struct Svg(String);

impl Svg {
    fn tag(&mut self, tag: impl Display) {
        // Writing to a string cannot fail.
        writeln!(self.0, "<{tag}/>").unwrap_or_default();
    }

    fn text(&mut self, (x, y): (u32, u32), class: &str, text: impl Display) {
        writeln!(self.0, "<text x='{x}' y='{y}' class='{class}'>{text}</text>").unwrap_or_default();
    }

    /// Ends at `x`.
    fn text_left_of(&mut self, (x, y): (u32, u32), class: &str, text: impl Display) {
        writeln!(self.0, "<text x='{x}' y='{y}' class='{class}' text-anchor='end'>{text}</text>").unwrap_or_default();
    }

    fn host(&mut self, (x, y): (u32, u32), title: &str, addresses: [String; 2]) {
        self.tag(format_args!("rect class='box' x='{x}' y='{y}' width='190' height='74' rx='8'"));
        self.text((x + 14, y + 24), "title", title);
        for (address, down) in addresses.iter().zip([44, 61]) {
            self.text((x + 14, y + down), "mono dim", address);
        }
    }
}

/// Cables to servers are as thick as their share of the connections.
fn topology(svg: &mut Svg, web: &[&Spread]) {
    for y in [114, 240] {
        svg.tag(format_args!("path class='cable' stroke-width='2' d='M222 {y}H330'"));
    }
    for (index, y) in [(0, 69), (1, 163), (2, 257)] {
        let rows: Vec<&Row> = web.iter().filter_map(|spread| spread.rows.get(index)).collect();
        let share = rows.iter().map(|row| row.seen).sum::<f64>() / rows.len().max(1) as f64;
        svg.tag(format_args!("path class='flow' stroke-width='{:.1}' d='M550 {y}H658'", 2.0 + 16.0 * share));
        svg.text((587, y - 12), "small dim", format_args!("{:.0} %", share * 100.0));
    }
    svg.tag("rect class='edge' x='330' y='32' width='220' height='262' rx='10'");
    svg.text((350, 60), "title", "edge");
    svg.text((350, 80), "small", "ga: TCP, UDP in XDP,");
    svg.text((350, 96), "small", "HTTPS by its proxy");
    svg.text((350, 130), "small dim", "clients reach");
    svg.text((350, 150), "mono", VIP4);
    svg.text((350, 168), "mono", VIP6);
    svg.text((350, 212), "small dim", "servers see");
    svg.text((350, 232), "mono", EGRESS4);
    svg.text((350, 250), "mono", EGRESS6);
    for (number, y) in [(1, 77), (2, 203)] {
        svg.host((32, y), &format!("client {number}"), [client4(number).to_string(), client6(number).to_string()]);
    }
    for (number, y) in [(1, 32), (2, 126), (3, 220)] {
        svg.host((658, y), &format!("server s{number}"), [server4(number).to_string(), server6(number).to_string()]);
    }
}

/// Three bars for each server: configured, IPv4, IPv6.
fn bars(svg: &mut Svg, x: u32, v4: &Spread, v6: &Spread) {
    /// Pixels of 100 %: the largest configured share leaves room for its figure.
    const FULL: f64 = 470.0;
    let title = format!("{}: {} {}", v4.listener, v4.protocol.name(), v4.ports.replace('~', "–"));
    svg.text((x, 336), "title", title);
    svg.text_left_of((x + 392, 336), "small dim", format_args!("{} flows", thousands(v4.flows() + v6.flows())));
    for ((first, second), top) in v4.rows.iter().zip(&v6.rows).zip([352, 418, 484]) {
        svg.text((x, top + 27), "", &first.server);
        let lines = [("weight", first.configured), ("v4", first.seen), ("v6", second.seen)];
        for ((class, share), down) in lines.into_iter().zip([0, 17, 34]) {
            let width = share * FULL;
            svg.tag(format_args!("rect class='{class}' x='{}' y='{}' width='{width:.1}' height='13' rx='2'", x + 32, top + down));
            let right = x + 32 + width.round() as u32 + 8;
            let ink = if class == "weight" { "small dim" } else { "small" };
            svg.text((right, top + down + 11), ink, format_args!("{:.1} %", share * 100.0));
        }
    }
}

fn legend(svg: &mut Svg) {
    for (class, x, text) in [("weight", 64, "configured weight"), ("v4", 200, "seen, IPv4"), ("v6", 294, "seen, IPv6")] {
        svg.tag(format_args!("rect class='{class}' x='{x}' y='552' width='11' height='11' rx='2'"));
        svg.text((x + 17, 562), "small dim", text);
    }
}

/// A bar for each URL, cut by who answered.
fn requests(svg: &mut Svg, https: &Https) {
    /// Pixels of 100 %.
    const FULL: f64 = 250.0;
    svg.text((32, 606), "title", "site: HTTPS 443, rules by host and path");
    let all: u64 = https.urls.iter().map(|(_, _, answers)| answers.answered()).sum();
    svg.text_left_of((848, 606), "small dim", format_args!("{} requests", thousands(all)));
    for ((url, what, answers), top) in https.urls.iter().zip([622, 648, 674]) {
        svg.text((32, top + 12), "mono", url);
        svg.text((222, top + 12), "small dim", what);
        let (mut from, mut shares) = (424.0, Vec::new());
        for (server, times) in &answers.by_server {
            let part = *times as f64 / answers.answered().max(1) as f64;
            let width = part * FULL;
            svg.tag(format_args!("rect class='{server}' x='{from:.1}' y='{top}' width='{width:.1}' height='15' rx='2'"));
            from += width;
            shares.push(format!("{server} {:.1} %", part * 100.0));
        }
        svg.text((684, top + 12), "small", shares.join(" · "));
    }
}

fn tiles(svg: &mut Svg, findings: &Findings<'_>) {
    let Findings { addresses, rates, killed, https, .. } = findings;
    let rate = |bits: f64| format!("{:.1}", bits / 1e9);
    let of_lost = |lost: u64| (if lost == 0 { "big good" } else { "big bad" }, lost.to_string(), "lost".to_owned());
    let big = |number: String, text: &str| ("big", number, text.to_owned());
    let during = format!("requests during {} reloads and the death of an endpoint", https.reloads);
    let rows = [
        vec![
            big(thousands(killed.without_agent), "new flows after kill -9 of the agent"),
            of_lost(killed.lost),
            big(addresses.to_string(), "client addresses, each on one server"),
            big(format!("{} / {} Gbit/s", rate(rates[0]), rate(rates[1])), "one stream, IPv4 / IPv6"),
        ],
        vec![big(thousands(https.answered), &during), of_lost(https.lost)],
    ];
    for ((row, xs), y) in rows.into_iter().zip([&[32, 286, 380, 652][..], &[32, 380]]).zip([729, 783]) {
        for ((class, number, text), x) in row.into_iter().zip(xs) {
            svg.text((*x, y), class, number);
            svg.text((*x, y + 19), "small dim", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::traffic::{Answers, Family, Protocol};

    fn spread(listener: &str, protocol: Protocol, family: Family) -> Spread {
        let row = |server: &str, share: f64| Row { server: server.to_owned(), configured: share, flows: 100, seen: share };
        let rows = vec![row("s1", 0.571), row("s2", 0.286), row("s3", 0.143)];
        Spread { listener: listener.to_owned(), protocol, ports: "80,8000~8002".to_owned(), family, rows }
    }

    #[test]
    fn both_grounds_and_every_share_are_there() {
        let spreads = [("web", Protocol::Tcp), ("dns", Protocol::Udp)]
            .map(|(listener, protocol)| Family::ALL.map(|family| spread(listener, protocol, family)))
            .concat();
        let killed = Killed { without_agent: 1234, lost: 0 };
        let mut answers = Answers::default();
        ["s1", "s1", "s2"].into_iter().for_each(|server| answers.add(Ok(server.to_owned())));
        let https = Https { urls: vec![("www.demo.example/", "no rule", answers)], reloads: 10, answered: 1400, lost: 0 };
        let svg = draw(&Findings { spreads: &spreads, addresses: 96, rates: [4e9, 3.5e9], https: &https, killed });
        for expected in [
            "prefers-color-scheme:dark",
            "57.1 %",
            "14.3 %",
            "web: TCP 80,8000–8002",
            "1,234",
            "4.0 / 3.5 Gbit/s",
            "10.0.3.11",
            "s1 66.7 %",
            "1,400",
        ] {
            assert!(svg.contains(expected), "{expected} is not in\n{svg}");
        }
        assert_eq!(svg.matches("class='v6'").count(), 7, "three servers, two listeners, the legend");
    }
}
