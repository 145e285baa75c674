//! The agent: intent (`config` → `model` → `plan` → `maps`), and what happened (counters → `status` → `metrics`, `admin`, `cli`).
//!
//! Arrows point one way: `model` imports nobody of ours; `config` imports `model`; `plan` imports `model` and `ga-common`;
//! `maps` and `program` import `plan` and `ga-common`; `metrics` and `admin` import `status`; `agent` and `cli` import, nobody
//! imports them. Only `maps` writes BPF maps.

pub mod admin;
pub mod agent;
pub mod cli;
pub mod config;
pub mod maps;
pub mod metrics;
pub mod model;
pub mod net;
pub mod plan;
pub mod program;
pub mod status;
