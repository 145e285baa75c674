//! `ga trace http`: which rule applies to a request, what it does, and who gets it.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use super::{Context, Exit, file};
use crate::{
    agent,
    health::Beliefs,
    plan::{self, Overrides, State},
    proxy::View,
    resolve::Addresses,
    status::{HttpTrace, HttpTraceOrder},
};

pub(super) const EXAMPLES: &str = "Rules are tried in the order of their priorities; the first that applies is told, and why those before it do not. Nothing is sent.
With --config no agent is asked: all endpoints count as healthy, and names stand for what the file says.

Examples:
  ga trace http --host www.example.com --path /v1/users
  ga trace http --host api.example.com --path '/?stage=live' --method POST --header 'Cookie: canary=yes' --client 203.0.113.7
  ga trace http --config new.toml --listener shop/web --host api.example.com --json";

/// Arguments of `ga trace http`.
#[derive(Clone, Debug, Args)]
pub(super) struct HttpArgs {
    /// Host that is asked for; for a tcp listener the server name of TLS
    #[arg(long, value_name = "HOST")]
    host: String,
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
            agent::explain(&view, &order, seed.is_some()).map_err(super::ClientError::Refused)?
        }
        None => context.client().trace_http(&order).await?,
    };
    context.output.view(&trace, |_| render(&trace))?;
    Ok(Exit::Ok)
}

fn render(trace: &HttpTrace) -> String {
    let HttpTrace { listener, client, host, target, tried, rule, action, answer, rewritten, endpoint, candidates, .. } = trace;
    let mut text = format!("{host}{target} from {client}, by {listener}\n");
    for one in tried {
        let why = one.unmet.as_deref().map_or_else(|| "applies".to_owned(), |why| format!("does not apply: {why}"));
        text += &format!("  rule      {} (priority {}) {why}\n", one.rule, one.priority);
    }
    if rule.is_none() {
        text += "  rule      none applies: the default endpoint groups\n";
    }
    if let Some(changed) = rewritten {
        text += &format!("  rewrite   the endpoint is asked for {}{}\n", changed.host, changed.target);
        changed.set.iter().for_each(|header| text += &format!("  header    {header}\n"));
        changed.removed.iter().for_each(|header| text += &format!("  header    {header} is removed\n"));
    }
    for one in candidates {
        text += &format!("  endpoint  {} of group {}, {:.1} % of such requests\n", one.address, one.group, one.share * 100.0);
    }
    text += action;
    text += &match (action.as_str(), answer, endpoint) {
        (_, Some(answer), _) => format!(": {answer}"),
        ("forward", None, Some(endpoint)) => format!(" to {endpoint}, where all requests of this client go"),
        ("forward", None, None) if candidates.is_empty() => ": nobody may be chosen, the client gets 503".to_owned(),
        ("forward", None, None) => " to one of these by chance".to_owned(),
        _ => String::new(),
    };
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the file's rules make of a request, as people read it.
    fn told(rules: &str, order: &HttpTraceOrder) -> String {
        let text = format!(
            "[node]\ninterfaces = [\"eth0\"]\nhash_seed = \"000102030405060708090a0b0c0d0e0f\"\n[[instance]]\nid = \"shop\"\n\
             vips = [\"198.51.100.10\"]\negress_ips = [\"203.0.113.5\"]\n[[instance.listener]]\nname = \"web\"\nprotocol = \"http\"\n\
             ports = \"80\"\n[[instance.listener.endpoint_group]]\nname = \"main\"\nregion = \"eu\"\n\
             [[instance.listener.endpoint_group.endpoint]]\ntype = \"ip\"\naddress = \"192.0.2.11\"\n{rules}"
        );
        let intent = crate::config::parse("test.toml", &text).expect("a good file").intent;
        let plan = plan::build(&intent, &Overrides::default(), &Beliefs::default(), &State::default(), [1, 2]).expect("a plan");
        let view = View::new(&plan, &intent, &View::default());
        agent::explain(&view, order, true).map_or_else(|refusal| refusal.to_string(), |trace| render(&trace))
    }

    fn order(host: &str, target: &str) -> HttpTraceOrder {
        let (host, target, method) = (host.to_owned(), target.to_owned(), "GET".to_owned());
        HttpTraceOrder { listener: None, host, target, method, headers: Vec::new(), client: None }
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
    fn headers_are_written_as_people_write_them() {
        assert_eq!(header("Cookie: a=b"), Ok(("Cookie".to_owned(), "a=b".to_owned())));
        assert!(header("Cookie").is_err());
    }
}
