//! The client of the local API.

use std::path::Path;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Runs a request on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?
        .block_on(future)
}

/// Fetches a document.
pub(crate) async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    let body = open(socket, path).await?.into_body().collect().await;
    let body = body.with_context(|| format!("the answer of {} broke off", socket.display()))?;
    serde_json::from_slice(&body.to_bytes()).with_context(|| {
        format!(
            "{} speaks another version; use the CLI of the running peer",
            socket.display()
        )
    })
}

/// Fetches a stream.
pub(crate) async fn open(socket: &Path, path: &str) -> anyhow::Result<Response<Incoming>> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no peer answers: is `clusterlink run` running? expected its socket at {}; name another with --admin PATH",
            socket.display()
        )
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(|| format!("{} speaks no HTTP", socket.display()))?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "clusterlink")
        .body(Empty::<Bytes>::new())?;
    let response = sender
        .send_request(request)
        .await
        .with_context(|| format!("{} does not answer", socket.display()))?;
    if !response.status().is_success() {
        bail!(
            "{} answers {} to GET {path}",
            socket.display(),
            response.status()
        );
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_peer_is_explained() {
        let path = Path::new("/nonexistent/admin.sock");
        let result: anyhow::Result<serde_json::Value> = block_on(get(path, "/v1/status"));
        let text = format!("{:#}", result.unwrap_err());
        assert!(text.contains("is `clusterlink run` running? expected its socket at /nonexistent"));
    }
}
