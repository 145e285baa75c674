//! `ga reload`: the agent reads its file again; we wait until the new plan is live.

use super::{Context, Exit};
use crate::status::Reloaded;

pub(super) const EXAMPLES: &str =
    "The command ends when the new configuration is live (exit code 0) or refused (1, with every problem).
A refused configuration changes nothing.

Examples:
  ga check /etc/ga/ga.toml && ga reload
  ga reload --output json | jq .generation";

/// Runs `ga reload`.
pub(super) async fn run(context: &Context) -> anyhow::Result<Exit> {
    let reloaded = context.client().reload().await?;
    context.output.view(&reloaded, |_| render(&reloaded))?;
    Ok(Exit::Ok)
}

fn render(reloaded: &Reloaded) -> String {
    let Reloaded { generation, changed, summary, .. } = reloaded;
    let mut out: String = summary.iter().map(|line| format!("{line}\n")).collect();
    out += &if *changed {
        format!("generation {generation} is live\n")
    } else {
        format!("no change; generation {generation} stays\n")
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_what_changed_and_what_is_live() {
        let report = serde_json::Value::Null;
        let summary = vec!["+ endpoint ga-demo/game/near/10.0.0.13".to_owned()];
        let changed = Reloaded { schema_version: 1, generation: 43, changed: true, summary, report };
        assert_eq!(render(&changed), "+ endpoint ga-demo/game/near/10.0.0.13\ngeneration 43 is live\n");
        let same = Reloaded { generation: 42, changed: false, summary: Vec::new(), ..changed };
        assert_eq!(render(&same), "no change; generation 42 stays\n");
    }
}
