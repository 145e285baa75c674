//! Promises about sequences of packets of many clients; what one packet becomes is the corpus's business.

mod fixture;
mod icmp;
mod pairs;
mod races;
mod shares;
mod track;
