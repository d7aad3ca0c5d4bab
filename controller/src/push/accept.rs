//! TCP connections that became TLS connections.

mod connection;

use std::{io, sync::Arc, time::Duration};

use futures::{Stream, stream};
use rustls::{ServerConfig, crypto::aws_lc_rs::default_provider, version::TLS13};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::connection::Connection;
use super::{authority::Authority, metrics::Metrics};

/// How many connections there are: two for each agent of a large cluster. More wait in the kernel's
/// queue, so that strangers cannot use up the memory.
const CONNECTIONS: usize = 16_384;
/// How many handshakes run at the same time; more connections wait in the kernel's queue.
const HANDSHAKES: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait when a connection cannot be accepted: most likely descriptors are short.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, each after its handshake. Ends with the one who reads.
pub(super) fn connections(
    listener: TcpListener,
    authority: &Arc<Authority>,
    metrics: Metrics,
) -> impl Stream<Item = io::Result<Connection>> + use<> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(authority)));
    let (ready, mut accepted) = mpsc::channel(HANDSHAKES);
    tokio::spawn(accept(listener, acceptor, ready, metrics));
    stream::poll_fn(move |context| accepted.poll_recv(context).map(|stream| stream.map(Ok)))
}

fn server_config(authority: &Arc<Authority>) -> ServerConfig {
    let resolver: Arc<Authority> = Arc::clone(authority);
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has the suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<Connection>,
    metrics: Metrics,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            () = ready.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an agent's connection");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, ready, metrics) = (acceptor.clone(), ready.clone(), metrics.clone());
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let peer = stream.peer_addr();
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(ready.send(Connection::new(stream, place)).await),
                Ok(Err(error)) => {
                    metrics.handshake_failed();
                    tracing::debug!(?peer, %error, "a TLS handshake failed");
                }
                Err(_) => {
                    metrics.handshake_failed();
                    tracing::debug!(?peer, "a TLS handshake took too long");
                }
            }
            drop(permit);
        });
    }
}
