//! TLS between peers: credentials, verification, handshake, records.
