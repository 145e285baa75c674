//! What each kernel program asks of the verifier: a figure of a build, not of a machine, but for the time it takes.

use anyhow::Result;

use super::report::{Figure, Goal, Report};
use crate::limits::{STACK, VERIFIED, demands};

/// Measures.
pub fn run() -> Result<Report> {
    let mut report = Report::new("program");
    for demand in demands()? {
        let name = &demand.name;
        let figure = |what: &str, unit, value: f64| Figure::new(format!("{name}: {what}"), unit, &[value]);
        let (verified, stack) = (f64::from(demand.verified), f64::from(demand.stack));
        report.figures.extend([
            figure("instructions verified", "insns", verified).beside("limit", f64::from(VERIFIED)).wants(Goal::at_most(
                "half of the limit",
                verified,
                f64::from(VERIFIED / 2),
            )),
            figure("stack", "bytes", stack).beside("limit", f64::from(STACK)).wants(Goal::at_most(
                "half of the limit",
                stack,
                f64::from(STACK / 2),
            )),
            figure("size", "bytes", f64::from(demand.translated)).beside("machine code", f64::from(demand.jitted)),
            figure("load time", "ms", demand.load.as_secs_f64() * 1e3),
        ]);
    }
    Ok(report)
}
