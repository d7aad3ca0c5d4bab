//! The server with real agents' clients, over loopback TCP and TLS.

mod credentials;
mod crowd;
mod raw;
mod reports;
mod scene;
mod stream;
