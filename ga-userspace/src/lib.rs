//! The agent: intent (`config` → `model` → `plan` → `maps`), and what happened (counters → `status` → `metrics`, `admin`, `cli`).
//!
//! Arrows point one way: `model`, `net` and `trust` import nobody of ours; `config` imports `model`; `health` and `resolve` import
//! `model` and `trust`; `plan` imports `model` and the values of `health`; `maps` and
//! `program` import `plan` (and the words of `model` and `net`); `proxy` imports `plan`, `model` and `trust`; `handover` imports nobody; `metrics` and `admin` import `status`; `agent` wires the rooms
//! and `cli` is the way in: nobody imports them. Only `maps` writes BPF maps. `cargo xtask tidy` holds the arrows.

pub mod admin;
pub mod agent;
pub mod cli;
pub mod config;
pub mod handover;
pub mod health;
pub mod maps;
pub mod metrics;
pub mod model;
pub mod net;
pub mod plan;
pub mod program;
pub mod proxy;
pub mod resolve;
pub mod status;
pub mod trust;
