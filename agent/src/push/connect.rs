//! A connection to a controller.

use std::{fs, path::PathBuf, time::Duration};

use clusterlink_proto::{MAX_TO_AGENT, PROTOCOL, wire};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{self, Certificate, Channel, ClientTlsConfig, Endpoint},
};
use wire::push_client::PushClient;

use super::Config;

const CONNECT: Duration = Duration::from_secs(5);
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The window of a stream: a chunk and more, so that one fits without waiting.
const WINDOW: u32 = 1024 * 1024;

/// Why a stream did not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("cannot read {path}, which the push client needs: check that the volume is mounted")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} holds no certificate: the controllers publish theirs there when they start")]
    NoAuthority { path: PathBuf },
    #[error("{path} holds no token")]
    NoToken { path: PathBuf },
    #[error(
        "cannot connect to the controller at {at}: check that it runs, that {authorities} is current, and that no network policy is in the way"
    )]
    Connect {
        at: String,
        authorities: PathBuf,
        #[source]
        source: transport::Error,
    },
    #[error("{} ({})", status.message(), status.code().description())]
    Status { status: Box<Status> },
    #[error("the controller has ended the stream")]
    Ended,
    #[error("the controller has said nothing for {0:?}")]
    Silent(Duration),
    #[error(
        "the controller speaks version {0} of the push protocol, this agent version {PROTOCOL}: update the older one"
    )]
    Protocol(u32),
}

impl From<Status> for StreamError {
    fn from(status: Status) -> Self {
        let status = Box::new(status);
        Self::Status { status }
    }
}

/// A client of the controller at `at`, and the token that it has to show.
pub(super) struct Connection {
    pub(super) client: PushClient<Channel>,
    token: MetadataValue<Ascii>,
}

impl Connection {
    pub(super) async fn open(config: &Config, at: &str) -> Result<Self, StreamError> {
        let token = token(config)?;
        let authorities = read(&config.authorities)?;
        if !authorities.contains("-----BEGIN CERTIFICATE-----") {
            let path = config.authorities.clone();
            return Err(StreamError::NoAuthority { path });
        }
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authorities))
            .domain_name(config.server_name.clone())
            .timeout(CONNECT);
        let failed = |source| StreamError::Connect {
            at: at.to_owned(),
            authorities: config.authorities.clone(),
            source,
        };
        let channel = Endpoint::from_shared(format!("https://{at}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(failed)?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect()
            .await
            .map_err(failed)?;
        let client = PushClient::new(channel).max_decoding_message_size(MAX_TO_AGENT);
        Ok(Self { client, token })
    }

    /// A request that shows the token.
    pub(super) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.token.clone());
        request
    }
}

/// What this agent says first.
pub(super) fn greeting(config: &Config) -> wire::Greeting {
    wire::Greeting {
        protocol: PROTOCOL,
        node: config.node.as_ref().to_owned(),
        software: config.software.clone(),
        boot_id: config.boot_id.clone(),
    }
}

/// Checks what a controller says first.
pub(super) fn check(welcome: &wire::Welcome) -> Result<(), StreamError> {
    if welcome.protocol == PROTOCOL {
        Ok(())
    } else {
        Err(StreamError::Protocol(welcome.protocol))
    }
}

fn token(config: &Config) -> Result<MetadataValue<Ascii>, StreamError> {
    let text = read(&config.token)?;
    let text = text.trim();
    let token =
        (!text.is_empty()).then(|| format!("Bearer {text}").parse::<MetadataValue<Ascii>>());
    let Some(Ok(mut token)) = token else {
        let path = config.token.clone();
        return Err(StreamError::NoToken { path });
    };
    token.set_sensitive(true);
    Ok(token)
}

/// Both files are small and in memory, as projected volumes are.
fn read(path: &PathBuf) -> Result<String, StreamError> {
    fs::read_to_string(path).map_err(|source| StreamError::File {
        path: path.clone(),
        source,
    })
}
