//! TCP listeners that the kernel cannot serve: those with forwarding rules on the name in the TLS ClientHello, and those whose
//! endpoints get the PROXY protocol.

mod hello;
mod relay;
