//! Connections to endpoints: connect, pools, DNS.
