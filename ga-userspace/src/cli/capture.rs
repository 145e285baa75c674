//! `ga capture`: packets before and after translation, in a file for any packet analyser.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{
    Context, Exit,
    packets::{Filter, follow, line, summary},
    pcapng::Writer,
    units::count,
};
use crate::status::{SCHEMA_VERSION, WATCH_COUNT, WATCH_RATE, WATCH_SECONDS, WatchEnd, WatchOrder};

pub(super) const EXAMPLES: &str =
    "Capture tools do not see packets that XDP forwards or drops: this does. Interface `before` of the file has frames as they
came, interface `after` as they were sent; comments say what became of them, drops and their reasons included.
While it runs, interfaces have a program that does the same as the usual one and copies frames; it costs time for every packet.

Examples:
  ga capture -w web.pcapng --port 443 -c 20        20 packets of a listener
  ga capture -w drops.pcapng --verdict drop --seconds 60
  ga capture -w - --host 203.0.113.7 | tshark -r - -T fields -e frame.comment";

/// Bytes of a frame unless told otherwise: all of an ordinary one.
const SNAP: u32 = 2048;

/// Arguments of `ga capture`.
#[derive(Clone, Debug, Args)]
pub(super) struct CaptureArgs {
    /// The file to write, in pcapng; - is standard output
    #[arg(long, short, value_name = "FILE")]
    write: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// End after N packets
    #[arg(long, short, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(WATCH_COUNT)))]
    count: u32,
    /// End after SECS seconds
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(WATCH_SECONDS)))]
    seconds: u32,
    /// Keep the first BYTES of each frame
    #[arg(long, value_name = "BYTES", default_value_t = SNAP, value_parser = clap::value_parser!(u32).range(1..=i64::from(SNAP)))]
    snaplen: u32,
}

/// What was captured.
#[derive(Serialize)]
struct Captured {
    schema_version: u32,
    /// Frames in the file.
    frames: u64,
    #[serde(flatten)]
    end: WatchEnd,
}

/// Runs `ga capture`.
pub(super) async fn run(args: &CaptureArgs, context: &Context) -> anyhow::Result<Exit> {
    let order = WatchOrder {
        only: args.filter.only(),
        every: 1,
        per_second: WATCH_RATE,
        seconds: args.seconds,
        count: args.count,
        snap: args.snaplen,
    };
    let to_stdout = args.write.as_os_str() == "-";
    let file: Box<dyn Write> = if to_stdout {
        Box::new(io::stdout())
    } else {
        Box::new(File::create(&args.write).with_context(|| format!("cannot write {}", args.write.display()))?)
    };
    let mut writer = Writer::new(BufWriter::new(file), args.snaplen)?;
    let end = follow(context, &order, |packet| Ok(writer.packet(packet, &line(packet))?)).await?;
    let frames = writer.finish().with_context(|| format!("cannot write {}", args.write.display()))?;
    let end = end.unwrap_or_else(|| WatchEnd { because: "interrupted".to_owned(), ..WatchEnd::default() });
    let text = format!("{} frames in {}: {}", count(frames), args.write.display(), summary(&end));
    if to_stdout {
        eprintln!("ga: {text}");
        return Ok(Exit::Ok);
    }
    context.output.view(&Captured { schema_version: SCHEMA_VERSION, frames, end }, |_| text)?;
    Ok(Exit::Ok)
}
