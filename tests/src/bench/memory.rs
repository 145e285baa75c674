//! What pinned maps cost, as the kernel accounts for them.

use std::{fs, os::fd::AsFd as _, os::fd::AsRawFd as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{ArrayOfMaps, Map, MapData};

use super::report::{Figure, Goal};

const MIB: f64 = (1 << 20) as f64;
/// What an edge with 1,000 listeners and the default number of flows may take.
const BUDGET_MIB: f64 = 256.0;

/// The maps pinned under `dir`.
pub(super) fn figure(dir: &Path) -> Result<Figure> {
    let (mut plain, mut inner, mut tables, mut most) = (0, 0, 0, 0);
    for pin in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = pin?.path();
        let open = || MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()));
        plain += locked(&open()?)?;
        if path.file_name().is_some_and(|name| name == "TABLES") {
            let outer = ArrayOfMaps::<MapData>::try_from(Map::ArrayOfMaps(open()?))?;
            most = u64::from(outer.len());
            // An empty place is an error to the library.
            for table in (0..outer.len()).filter_map(|index| outer.get(&index, 0).ok()) {
                inner += locked(&table)?;
                tables += 1;
            }
        }
    }
    ensure!(plain > 0 && tables > 0, "no tables are pinned under {}", dir.display());
    let all = (plain + inner) as f64 / MIB;
    let bound = (plain + inner / tables * most) as f64 / MIB;
    let figure = Figure::new(format!("map memory, {tables} selection tables"), "MiB", &[all]);
    let figure = figure.beside("without tables", plain as f64 / MIB).beside("bound, every table in use", bound);
    Ok(figure.wants(Goal::at_most("all maps, MiB", all, BUDGET_MIB)))
}

/// Bytes that the kernel accounts for.
fn locked(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).with_context(|| format!("{path} has no memlock"))?;
    Ok(line.trim().parse()?)
}
