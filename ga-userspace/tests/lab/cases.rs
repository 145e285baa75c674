//! The requests of `tests/http/requests.toml`.

use serde::Deserialize;

/// A request of the table.
#[derive(Deserialize)]
pub struct Case {
    pub number: u32,
    pub name: String,
    /// Each character is a byte.
    pub raw: String,
    /// The statuses that a client may get.
    pub answers: Vec<u16>,
    /// How many of them endpoints hear of.
    #[serde(default)]
    pub seen: usize,
}

impl Case {
    /// What the client sends.
    pub fn bytes(&self) -> Vec<u8> {
        self.raw.chars().map(|char| u8::try_from(u32::from(char)).unwrap()).collect()
    }
}

/// All of them.
pub fn all() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        request: Vec<Case>,
    }
    toml::from_str::<File>(include_str!("../../../tests/http/requests.toml")).unwrap().request
}
