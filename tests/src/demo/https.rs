//! What the agent serves itself: HTTPS with rules, reloads while requests are asked, an endpoint that dies.

use std::{
    fs::{self, File},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    screen::{Ink, Screen, bar, thousands},
    servers,
    site::{CONFIG, Site},
    stop::Stop,
    tally::TOLERANCE,
    traffic::{Answers, Family},
};
use crate::lab::{Lab, Namespace, self_signed, server4};

/// The names of the site's certificate.
const NAMES: [&str; 2] = ["www.demo.example", "api.demo.example"];
/// The certificate, as the example has it.
const CERTIFICATE: &str = "demo.pem";
/// Requests for each URL and family.
const EACH: usize = 1500;
/// Reloads while requests are asked.
const RELOADS: usize = 10;

/// What was asked for, what led it where, and who answered.
const URLS: [(&str, &str); 3] = [
    ("www.demo.example/", "no rule: group pages"),
    ("api.demo.example/", "rule api, by host: group api"),
    ("www.demo.example/api/cart", "rule api-path, by path: group api"),
];

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Https {
    /// Who answered, by URL.
    pub(super) urls: Vec<(&'static str, &'static str, Answers)>,
    /// Reloads while requests were asked.
    pub(super) reloads: usize,
    /// Requests answered while the configuration changed and while an endpoint died.
    pub(super) answered: u64,
    /// Requests without a good answer meanwhile.
    pub(super) lost: u64,
}

/// Makes the certificate that the example names.
pub(super) fn certificate(lab: &Lab) -> Result<()> {
    self_signed(&lab.dir, &NAMES)?;
    fs::rename(lab.dir.join("both.pem"), lab.dir.join(CERTIFICATE)).context("the certificate")
}

/// All of it.
pub(super) fn show(site: &mut Site, screen: &mut Screen, stop: &Stop) -> Result<Https> {
    let mut seen = Https { reloads: RELOADS, ..Https::default() };
    rules(site, screen, stop, &mut seen)?;
    let mut during = reloads(site, screen, stop)?;
    during.merge(death(site, screen, stop)?);
    (seen.answered, seen.lost) = (during.answered(), during.errors.len() as u64);
    Ok(seen)
}

/// Rules send requests to groups.
fn rules(site: &Site, screen: &mut Screen, stop: &Stop, seen: &mut Https) -> Result<()> {
    const WIDTH: usize = 50;
    screen.heading("HTTPS on the same addresses: rules choose a group for each request");
    for (url, what) in URLS {
        let mut answers = Answers::default();
        for (client, family) in site.lab.clients.iter().zip(Family::ALL) {
            stop.check()?;
            let load = Load::start(site, client, family, url, EACH, None)?;
            answers.merge(load.finish(stop)?);
        }
        screen.line(&format!("  {} {what}, {} requests", screen.paint(Ink::Bold, url), thousands(answers.asked())));
        for (server, times) in &answers.by_server {
            let part = *times as f64 / answers.answered().max(1) as f64;
            let blue = screen.paint(Ink::Blue, &bar(part, WIDTH, '█'));
            screen.line(&format!("    {server}                {:>5.1} % {blue} {}", part * 100.0, thousands(*times)));
        }
        let part = |server: &str| answers.of(server) as f64 / answers.answered().max(1) as f64;
        let (good, text) = if url == URLS[0].0 {
            let off = (part("s1") - 2.0 / 3.0).abs().max((part("s2") - 1.0 / 3.0).abs());
            (off <= TOLERANCE, format!("HTTP/2 and TLS end here; shares at most {:.1} % off{}", off * 100.0, answers.trouble()))
        } else {
            (answers.of("s3") == answers.answered(), format!("all of them went to s3{}", answers.trouble()))
        };
        screen.check(good && answers.errors.is_empty(), &text);
        seen.urls.push((url, what, answers));
    }
    let words = ["trace", "http", "--tls", "--host", "api.demo.example", "--path", "/cart"];
    screen.command(&format!("ga {}", words.join(" ")));
    site.agent.ok(&words)?.lines().for_each(|line| screen.note(line));
    Ok(())
}

/// The configuration changes while clients ask.
fn reloads(site: &Site, screen: &mut Screen, stop: &Stop) -> Result<Answers> {
    screen.heading("Reload while requests are asked");
    let (before, own) = CONFIG.split_once("name = \"site\"").context("the example has the listener")?;
    let loads = Load::both(site, 700)?;
    for number in 0..RELOADS {
        // The last one is the example again.
        let weight = if number % 2 == 0 { "weight = 20" } else { "weight = 200" };
        site.lab.configure(&format!("{before}name = \"site\"{}", own.replacen("weight = 200", weight, 1)))?;
        site.agent.ok(&["reload"])?;
        stop.sleep(Duration::from_millis(200))?;
    }
    let answers = Load::all(loads, stop)?;
    let text = format!("{RELOADS} reloads, each with another weight: {} requests answered", thousands(answers.answered()));
    screen.check(answers.errors.is_empty(), &format!("{text}, {} failed{}", answers.errors.len(), answers.trouble()));
    Ok(answers)
}

/// One of the endpoints of the default group is killed while clients ask, and comes back.
fn death(site: &mut Site, screen: &mut Screen, stop: &Stop) -> Result<Answers> {
    screen.heading("An endpoint dies while requests are asked");
    let victim = servers::name(2);
    let loads = Load::both(site, 700)?;
    stop.sleep(Duration::from_millis(700))?;
    screen.command(&format!("kill -9 nginx    # on {victim}"));
    site.kill_server(2)?;
    let died = Instant::now();
    stop.wait("the verdict of the probes", Duration::from_secs(20), || Ok(!healthy(site)?))?;
    screen.note(&format!(
        "probes say so after {:.1} s; until then its requests are asked again elsewhere",
        died.elapsed().as_secs_f64()
    ));
    let answers = Load::all(loads, stop)?;
    let text = format!("{} requests answered, {} of them by {victim}", thousands(answers.answered()), answers.of(&victim));
    screen.check(answers.errors.is_empty(), &format!("{text}; {} failed{}", answers.errors.len(), answers.trouble()));
    let alone = Load::start(site, &site.lab.clients[0], Family::V4, URLS[0].0, 200, None)?.finish(stop)?;
    let is_alone = alone.errors.is_empty() && alone.of("s1") == 200;
    screen.check(is_alone, &format!("of 200 requests afterwards {} went to {victim}{}", alone.of(&victim), alone.trouble()));
    site.start_server(2)?;
    stop.wait("the server's return", Duration::from_secs(20), || healthy(site))?;
    // Who refused connections is asked last for some seconds, by each thread that saw it, whatever probes say.
    let mut back = Load::start(site, &site.lab.clients[0], Family::V4, URLS[0].0, 200, None)?.finish(stop)?;
    stop.wait("requests to the server that is back", Duration::from_secs(20), || {
        if back.of(&victim) == 0 {
            back = Load::start(site, &site.lab.clients[0], Family::V4, URLS[0].0, 200, None)?.finish(stop)?;
        }
        Ok(back.of(&victim) > 0)
    })?;
    let text = format!("{victim} is back: {} of 200 requests go there{}", back.of(&victim), back.trouble());
    screen.check(back.of(&victim) > 0 && back.errors.is_empty(), &text);
    Ok(answers)
}

/// What the probes of the site say of the second server.
fn healthy(site: &Site) -> Result<bool> {
    let (status, address) = (site.agent.status()?, server4(2).to_string());
    let listeners = status.instances.iter().flat_map(|instance| &instance.listeners);
    let own = listeners.filter(|listener| listener.name == "site").flat_map(|listener| &listener.groups);
    let mut endpoints = own.flat_map(|group| &group.endpoints);
    let found = endpoints.find(|endpoint| endpoint.address.starts_with(&address)).context("the endpoint is reported")?;
    Ok(found.health.as_ref().is_none_or(|health| health.healthy))
}

/// Requests by one curl over one connection, one after the other.
struct Load {
    curl: Child,
    said: std::path::PathBuf,
}

impl Load {
    /// `count` requests for `url`, at most `rate` a second.
    fn start(site: &Site, client: &Namespace, family: Family, url: &str, count: usize, rate: Option<u32>) -> Result<Self> {
        let said = site.lab.dir.join(format!("curl-{}", client.name));
        let (host, _) = url.split_once('/').context("a URL has a path")?;
        let (resolve, ca) = (format!("{host}:443:{}", family.vip()), site.lab.dir.join("cert.pem").display().to_string());
        let (each, rate) = (format!("https://{url}?[1-{count}]"), rate.map(|rate| format!("{rate}/s")));
        let mut words = vec!["curl", "-sS", "--http2", "--max-time", "30", "--cacert", &ca, "--resolve", &resolve];
        if let Some(rate) = &rate {
            words.extend(["--rate", rate.as_str()]);
        }
        // A line of its own behind each body.
        words.extend(["-w", " %{http_code} %{http_version}\n", &each]);
        let mut command = client.command(&words);
        command.stdin(Stdio::null()).stdout(File::create(&said)?).stderr(Stdio::null());
        Ok(Self { curl: command.spawn().context("curl")?, said })
    }

    /// Of both clients and families, for the default group: some seconds.
    fn both(site: &Site, count: usize) -> Result<Vec<Self>> {
        let clients = site.lab.clients.iter().zip(Family::ALL);
        clients.map(|(client, family)| Self::start(site, client, family, URLS[0].0, count, Some(200))).collect()
    }

    fn all(loads: Vec<Self>, stop: &Stop) -> Result<Answers> {
        let mut all = Answers::default();
        for load in loads {
            all.merge(load.finish(stop)?);
        }
        Ok(all)
    }

    /// Waits for its end. What curl could not finish is an error too.
    fn finish(mut self, stop: &Stop) -> Result<Answers> {
        let mut status = None;
        stop.wait("the end of curl", Duration::from_secs(60), || {
            status = self.curl.try_wait()?;
            Ok(status.is_some())
        })?;
        let mut answers = answers(&fs::read_to_string(&self.said)?);
        if let Some(status) = status.filter(|status| !status.success()) {
            answers.add(Err(std::io::Error::other(format!("curl: {status}"))));
        }
        ensure!(answers.asked() > 0, "curl asked nothing");
        Ok(answers)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Mostly it has ended.
        drop(self.curl.kill());
        drop(self.curl.wait());
    }
}

/// Each body is followed by a line that begins with a space: status and version.
fn answers(said: &str) -> Answers {
    let (mut answers, mut body) = (Answers::default(), "");
    for line in said.lines() {
        match line.strip_prefix(' ') {
            None => body = line,
            Some("200 2") => answers.add(Ok(body.to_owned())),
            Some(other) => answers.add(Err(std::io::Error::other(format!("status and version {other}")))),
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_belong_to_the_status_behind_them() {
        let answers = answers("s1\n 200 2\nno endpoint\n 503 2\ns2\n 200 1.1\ns1\n 200 2\n");
        assert_eq!((answers.of("s1"), answers.of("s2"), answers.errors.len()), (2, 0, 2));
        assert!(answers.trouble().contains("503 2"), "{}", answers.trouble());
    }
}
