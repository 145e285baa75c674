//! Way of one packet.
