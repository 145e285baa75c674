//! Bytes on the cable.
