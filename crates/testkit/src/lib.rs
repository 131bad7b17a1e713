//! Shared test parts: certificates, ports, scripted peers.
