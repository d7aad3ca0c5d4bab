//! rustls' two kinds of unbuffered connections behind one face, state by state.

use rustls::{
    CommonState,
    client::UnbufferedClientConnection,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus},
};

use super::ChannelError;

/// One end of a connection, driven by whole records.
pub(super) enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What to do after one state of rustls was handled.
pub(super) enum Step {
    Continue,
    Wait,
    Closed,
}

/// What is to be sent.
#[derive(Clone, Copy)]
pub(super) enum Say<'a> {
    /// Application data.
    Data(&'a [u8]),
    /// That nothing follows.
    Close,
}

impl Connection {
    /// Handles the next thing that `records` hold, and tells how many bytes are done with.
    pub(super) fn process(
        &mut self,
        records: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> (usize, Result<Step, rustls::Error>) {
        match self {
            Self::Client(c) => step(c.process_tls_records(records), plain, out),
            Self::Server(c) => step(c.process_tls_records(records), plain, out),
        }
    }

    /// Fetches the alert that rustls has queued for an error that it returned.
    ///
    /// `records` is what was not discarded. rustls looks at it again once its queue is empty,
    /// which for a bad record would queue a second alert: so the alert, known by its size, is the
    /// last thing that is asked for.
    pub(super) fn take_alert(&mut self, records: &mut [u8], out: &mut Vec<u8>) {
        loop {
            let start = out.len();
            let mut plain = Vec::new();
            let (_, step) = self.process(records, &mut plain, out);
            let is_alert = matches!(&out[start..], [21, _, _, 0, 2, ..] | [23, _, _, 0, 19, ..]);
            if is_alert || out.len() == start || step.is_err() {
                return;
            }
        }
    }

    /// Writes records into `room`; `None` asks for another turn. What rustls wants to say first goes
    /// into `pending`. `held` is what [`Connection::process`] has not done with.
    pub(super) fn say(
        &mut self,
        held: &mut [u8],
        what: Say<'_>,
        pending: &mut Vec<u8>,
        room: &mut [u8],
    ) -> Result<Option<usize>, ChannelError> {
        match self {
            Self::Client(c) => say(c.process_tls_records(held), what, pending, room),
            Self::Server(c) => say(c.process_tls_records(held), what, pending, room),
        }
    }

    /// What rustls knows of the connection.
    pub(super) fn state(&self) -> &CommonState {
        match self {
            Self::Client(c) => c,
            Self::Server(c) => c,
        }
    }

    #[cfg(test)]
    pub(super) fn update_keys(&mut self, held: &mut [u8]) -> Result<(), ChannelError> {
        match self {
            Self::Client(c) => update_keys(c.process_tls_records(held)),
            Self::Server(c) => update_keys(c.process_tls_records(held)),
        }
    }
}

/// Handles one state of a connection that receives.
fn step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let state = match state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error)),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Continue),
            }
        },
        ConnectionState::EncodeTlsData(mut data) => encode(&mut data, out).map(|()| Step::Continue),
        ConnectionState::TransmitTlsData(data) => {
            // The bytes are in `out`, which the caller sends before it reads again.
            data.done();
            Ok(Step::Continue)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Step::Wait),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::Closed),
        // Early data is off, and the enum may grow.
        _ => Err(rustls::Error::General(
            "unexpected state of the TLS connection".to_owned(),
        )),
    };
    (discard, step)
}

/// Handles one state of a connection that sends.
fn say<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    what: Say<'_>,
    pending: &mut Vec<u8>,
    room: &mut [u8],
) -> Result<Option<usize>, ChannelError> {
    match status.state? {
        ConnectionState::WriteTraffic(mut traffic) => match what {
            Say::Data(plaintext) => traffic.encrypt(plaintext, room),
            Say::Close => traffic.queue_close_notify(room),
        }
        .map(Some)
        .map_err(encrypt_error),
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, pending)?;
            Ok(None)
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(None)
        }
        _ => Err(ChannelError::Closed),
    }
}

#[cfg(test)]
fn update_keys<Data>(status: UnbufferedStatus<'_, '_, Data>) -> Result<(), ChannelError> {
    match status.state? {
        ConnectionState::WriteTraffic(traffic) => Ok(traffic.refresh_traffic_keys()?),
        _ => Err(ChannelError::Closed),
    }
}

fn encode<Data>(
    data: &mut EncodeTlsData<'_, Data>,
    out: &mut Vec<u8>,
) -> Result<(), rustls::Error> {
    let start = out.len();
    let mut room = 2048;
    loop {
        out.resize(start + room, 0);
        match data.encode(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) => room = needed.required_size,
            Err(EncodeError::AlreadyEncoded) => {
                out.truncate(start);
                return Ok(());
            }
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands where map_err wants it"
)]
fn encrypt_error(error: EncryptError) -> ChannelError {
    match error {
        EncryptError::InsufficientSize(needed) => ChannelError::NoRoom {
            required: needed.required_size,
        },
        EncryptError::EncryptExhausted => ChannelError::Tls(rustls::Error::EncryptError),
    }
}
