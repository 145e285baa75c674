//! `ga trace http`: which rule applies to a request, what it does, and who gets it.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use super::{Context, Exit, file};
use crate::{
    agent,
    health::Beliefs,
    plan::{self, Overrides, State},
    proxy::{View, tls::Store},
    resolve::Addresses,
    status::{HttpTrace, HttpTraceOrder, TlsShown},
};

pub(super) const EXAMPLES: &str = "Rules are tried in the order of their priorities; the first that applies is told, and why those before it do not. Nothing is sent.
With --config no agent is asked: all endpoints count as healthy, and names stand for what the file says.

Examples:
  ga trace http --host www.example.com --path /v1/users
  ga trace http --host api.example.com --path '/?stage=live' --method POST --header 'Cookie: canary=yes' --client 203.0.113.7
  ga trace http --tls --host api.example.com --server-name www.example.com
  ga trace http --config new.toml --listener shop/web --host api.example.com --json";

/// Arguments of `ga trace http`.
#[derive(Clone, Debug, Args)]
pub(super) struct HttpArgs {
    /// Host that is asked for; for a tcp listener the server name of TLS
    #[arg(long, value_name = "HOST")]
    host: String,
    /// The client speaks TLS: http listeners are not meant
    #[arg(long)]
    tls: bool,
    /// Server name of its TLS where that is not the host, as on a connection that is used again for another host
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Path, with the query
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// Method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Another header of the request, as NAME:VALUE; may be given several times
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Where the client is [default: 192.0.2.1 or 2001:db8::1]
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// Listener, as INSTANCE/LISTENER or by its name [default: the only one that has requests]
    #[arg(long, value_name = "LISTENER")]
    listener: Option<String>,
    /// A configuration, in the place of what the agent runs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("NAME:VALUE is wanted")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Runs `ga trace http`.
pub(super) async fn run(args: &HttpArgs, context: &Context) -> anyhow::Result<Exit> {
    let order = HttpTraceOrder {
        listener: args.listener.clone(),
        host: args.host.clone(),
        tls: args.tls,
        server_name: args.server_name.clone(),
        target: args.path.clone(),
        method: args.method.clone(),
        headers: args.headers.clone(),
        client: args.client,
    };
    let trace = match &args.config {
        Some(config) => {
            let intent = file::load(config, context)?.intent;
            let (whole, _) = plan::resolved(&intent, &Addresses::written(&intent));
            let seed = intent.node.hash_seed.map(|seed| seed.0);
            let plan =
                plan::build(&whole, &Overrides::default(), &Beliefs::default(), &State::default(), seed.unwrap_or_default())?;
            let view = View::new(&plan, &whole, &View::default());
            let store = Store::default();
            // Without the files, which may be on another host, all but the certificate is told.
            if let Ok(prepared) = store.prepare(&intent) {
                store.commit(prepared);
            }
            agent::explain(&view, &store, &order, seed.is_some()).map_err(super::ClientError::Refused)?
        }
        None => context.client().trace_http(&order).await?,
    };
    context.output.view(&trace, |_| render(&trace))?;
    Ok(Exit::Ok)
}

fn render(trace: &HttpTrace) -> String {
    let HttpTrace { listener, client, host, target, tls, tried, rule, action, answer, rewritten, endpoint, candidates, .. } =
        trace;
    let mut text = format!("{host}{target} from {client}, by {listener}\n");
    if let Some(tls) = tls {
        text += &format!("  tls       {}\n", handshake(tls));
    }
    for one in tried {
        let why = one.unmet.as_deref().map_or_else(|| "applies".to_owned(), |why| format!("does not apply: {why}"));
        text += &format!("  rule      {} (priority {}) {why}\n", one.rule, one.priority);
    }
    if rule.is_none() && action != "misdirected" {
        text += "  rule      none applies: the default endpoint groups\n";
    }
    if let Some(changed) = rewritten {
        text += &format!("  rewrite   the endpoint is asked for {}{}\n", changed.host, changed.target);
        changed.set.iter().for_each(|header| text += &format!("  header    {header}\n"));
        changed.removed.iter().for_each(|header| text += &format!("  header    {header} is removed\n"));
    }
    for one in candidates {
        let host = one.host.as_ref().map_or_else(String::new, |host| format!(", asked for {host}"));
        let share = one.share * 100.0;
        text += &format!("  endpoint  {} of group {}, {share:.1} % of such requests{host}\n", one.address, one.group);
    }
    text += action;
    text += &match (action.as_str(), answer, endpoint) {
        ("misdirected", Some(answer), _) => format!(": {answer}, the connection is for other hosts"),
        (_, Some(answer), _) => format!(": {answer}"),
        ("forward", None, Some(endpoint)) => format!(" to {endpoint}, where all requests of this client go"),
        ("forward", None, None) if candidates.is_empty() => ": nobody may be chosen, the client gets 503".to_owned(),
        ("forward", None, None) => " to one of these by chance".to_owned(),
        _ => String::new(),
    };
    text + "\n"
}

/// What the client is shown.
fn handshake(tls: &TlsShown) -> String {
    let asked = tls.server_name.as_ref().map_or_else(|| "no server name".to_owned(), |name| format!("server name {name}"));
    match (tls.certificate.as_deref(), tls.is_believed) {
        (None, _) => format!("{asked}: which certificate is shown is not known here, its files cannot be read"),
        (Some("default"), Some(false)) => {
            format!("{asked}: the default certificate, which is not good for it: clients do not believe it")
        }
        (Some("default"), _) => format!("{asked}: the default certificate"),
        (Some(of), Some(false)) => {
            format!("{asked}: the certificate of {of}, which is not good for it: clients do not believe it")
        }
        (Some(of), _) => format!("{asked}: the certificate of {of}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "[[instance.listener.endpoint_group]]\nname = \"main\"\nregion = \"eu\"\n\
                         [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.11\"\n";

    /// What the file's rules make of a request, as people read it.
    fn told(rules: &str, order: &HttpTraceOrder) -> String {
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nhash_seed = \"000102030405060708090a0b0c0d0e0f\"\n[[instance]]\nid = \"shop\"\n\
             vips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n[[instance.listener]]\nname = \"web\"\nprotocol = \"http\"\n\
             ports = \"80\"\n{GROUP}{rules}"
        );
        let intent = crate::config::parse("test.toml", &text).expect("a good file").intent;
        let plan = plan::build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).expect("a plan");
        let view = View::new(&plan, &intent, &View::default());
        agent::explain(&view, &Store::default(), order, true).map_or_else(|refusal| refusal.to_string(), |trace| render(&trace))
    }

    fn order(host: &str, target: &str) -> HttpTraceOrder {
        let (host, target, method) = (host.to_owned(), target.to_owned(), "GET".to_owned());
        HttpTraceOrder { listener: None, host, tls: false, server_name: None, target, method, headers: Vec::new(), client: None }
    }

    #[test]
    fn the_rule_that_applies_is_told_and_why_those_before_it_do_not() {
        let rules = "[[instance.listener.rule]]\nname = \"old\"\npriority = 5\nwhen = [{ path = \"/old/*\" }]\n\
                     do = [{ redirect = { path = \"/new\" } }]\n\
                     [[instance.listener.rule]]\nname = \"api\"\nwhen = [{ host = \"api.example\" }]\n\
                     do = [{ rewrite = { path = \"/v2${path}\" } }, { add_header = { name = \"x-src\", system = \"ClientSrcIp\" } }, \
                     { forward = \"main\" }]\n";
        let expected = "api.example/a/c?x=1 from 192.0.2.1, by shop/web\n  \
                        rule      old (priority 5) does not apply: the path \"/a/c\" is not /old/*\n  \
                        rule      api (priority 6) applies\n  \
                        rewrite   the endpoint is asked for api.example:80/v2/a/c?x=1\n  \
                        header    x-src: 192.0.2.1\n  \
                        endpoint  192.0.2.11:80 of group main, 100.0 % of such requests\n\
                        forward to one of these by chance\n";
        assert_eq!(told(rules, &order("api.example:80", "/a/b/../c?x=1")), expected);
        assert!(told(rules, &order("www.example", "/old/a")).ends_with("redirect: 301 to http://www.example/new\n"));
        assert!(told(rules, &order("www.example", "/")).contains("none applies: the default endpoint groups"));
        assert!(told(rules, &order("www.example", "/../x")).contains("400"));
    }

    #[test]
    fn which_certificate_a_client_is_shown_is_told_and_when_the_connection_is_for_others() {
        let place = tempfile::tempdir().expect("a directory");
        let file = |name: &str, domains: &[&str]| {
            let domains: Vec<String> = domains.iter().map(|domain| (*domain).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(domains).expect("a certificate");
            let path = place.path().join(name);
            std::fs::write(&path, made.cert.pem() + &made.signing_key.serialize_pem()).expect("a file");
            path.display().to_string()
        };
        let (main, api) = (file("main.pem", &["www.example"]), file("api.pem", &["*.api.example"]));
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\n[[instance]]\nid = \"shop\"\nvips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n\
             [[instance.listener]]\nname = \"plain\"\nprotocol = \"http\"\nports = \"80\"\n{GROUP}\
             [[instance.listener]]\nname = \"web\"\nprotocol = \"https\"\nports = \"443\"\ncertificates = {{ default = \"{main}\", \
             additional = [{{ domain = \"*.api.example\", cert = \"{api}\" }}] }}\n{GROUP}"
        );
        let intent = crate::config::parse("test.toml", &text).expect("a good file").intent;
        let plan = plan::build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).expect("a plan");
        let (view, store) = (View::new(&plan, &intent, &View::default()), Store::default());
        let told = |store: &Store, host: &str, server_name: Option<&str>| {
            let order = HttpTraceOrder { tls: true, server_name: server_name.map(str::to_owned), ..order(host, "/") };
            agent::explain(&view, store, &order, true).map_or_else(|refusal| refusal.to_string(), |trace| render(&trace))
        };
        assert!(
            told(&store, "www.example", None)
                .contains("tls       server name www.example: which certificate is shown is not known")
        );
        store.commit(store.prepare(&intent).expect("good files"));
        for (host, server_name, tls) in [
            ("www.example", None, "server name www.example: the default certificate"),
            ("V1.api.example:443", None, "server name v1.api.example: the certificate of *.api.example"),
            (
                "a.b.api.example",
                None,
                "server name a.b.api.example: the certificate of *.api.example, which is not good for it: clients do not believe it",
            ),
            ("v2.api.example", Some("v1.api.example"), "server name v1.api.example: the certificate of *.api.example"),
            ("192.0.2.1", None, "no server name: the default certificate, which is not good for it: clients do not believe it"),
        ] {
            let said = told(&store, host, server_name);
            assert!(said.contains(&format!("\n  tls       {tls}\n")) && said.ends_with("by chance\n"), "{host}: {said}");
        }
        let expected = "v1.api.example/ from 192.0.2.1, by shop/web\n  tls       server name www.example: the default certificate\n\
                        misdirected: 421, the connection is for other hosts\n";
        assert_eq!(told(&store, "v1.api.example", Some("www.example")), expected);
        let plain = HttpTraceOrder { listener: Some("plain".to_owned()), server_name: Some("a".to_owned()), ..order("a", "/") };
        assert!(
            agent::explain(&view, &store, &plain, true).is_err_and(|refusal| refusal.to_string().contains("no certificates"))
        );
    }

    #[test]
    fn headers_are_written_as_people_write_them() {
        assert_eq!(header("Cookie: a=b"), Ok(("Cookie".to_owned(), "a=b".to_owned())));
        assert!(header("Cookie").is_err());
    }
}
