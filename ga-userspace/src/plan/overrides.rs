//! What an operator set by hand, over the file: `ga endpoints drain | undrain | weight`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{EndpointName, Weight};

/// What is set for one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Instead of the file's.
    #[serde(default, with = "weight", skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
    /// No new flows, whatever the weight.
    #[serde(default)]
    pub drained: bool,
}

impl Override {
    /// The weight in force where the file says `configured`.
    pub fn effective(self, configured: Weight) -> Weight {
        if self.drained { Weight(0) } else { self.weight.unwrap_or(configured) }
    }
}

/// All of them; persisted by the agent, so that a restart does not undo a drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Overrides {
    /// By endpoint.
    pub endpoints: BTreeMap<EndpointName, Override>,
}

/// The model's types are not serialised; a weight is written as its number.
mod weight {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::Weight;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(weight: &Option<Weight>, serializer: S) -> Result<S::Ok, S::Error> {
        weight.map(|weight| weight.0).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Weight>, D::Error> {
        Ok(Option::<u8>::deserialize(deserializer)?.map(Weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_survive_their_json() {
        let json = r#"{"shop/https/eu/ip/192.0.2.1":{"weight":7,"drained":false},"shop/https/eu/ip/192.0.2.2":{"drained":true}}"#;
        let overrides: Overrides = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&overrides).unwrap(), json);
        let effective: Vec<_> = overrides.endpoints.values().map(|set| set.effective(Weight(100)).0).collect();
        assert_eq!(effective, [7, 0]);
    }
}
