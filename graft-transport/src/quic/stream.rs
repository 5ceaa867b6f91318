//! Frames on streams, and how connections end.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::timeout;

use super::{queue::Queue, stats::Counter, tls::HandshakeRefused};
use crate::wire::v1::{
    Frame, FrameReader, Outgoing, Refusal, RefusalCode, WireError, decode_refusal,
};

/// How much is encoded before it is written: the other side can begin with it meanwhile.
const WRITE_BYTES: usize = 256 << 10;

/// How many packets are taken from a stream at once.
const READ_CHUNKS: usize = 32;

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// This side does not want it.
    Refuse(Refusal),
    /// The other side does not want it.
    Refused(Refusal),
    /// It is lost, for reasons that nobody chose.
    Lost(ConnectionError),
    /// The other side stopped one of its streams, or ended it.
    Stopped,
}

impl End {
    /// The end that the other side states in a frame.
    pub(super) fn stated(frame: &Frame) -> Self {
        match decode_refusal(frame) {
            Ok(Refusal { code, text }) => Self::Refused(Refusal { code, text: cleaned(&text) }),
            Err(error) => error.into(),
        }
    }

    /// The end of a connection that the library reports.
    pub(super) fn of(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::ApplicationClosed(close) => {
                let code = u64::from(close.error_code);
                let text = cleaned(&String::from_utf8_lossy(&close.reason));
                match u16::try_from(code) {
                    Ok(0) | Err(_) => Self::Lost(error),
                    Ok(code) => {
                        Self::Refused(Refusal { code: RefusalCode::from_number(code), text })
                    }
                }
            }
            _ => Self::Lost(error),
        }
    }
}

/// The reason of a refusal in words. The other side chooses its number, so all that are unknown here are one: otherwise it
/// would choose how much is remembered of it.
pub(super) fn label(code: RefusalCode) -> String {
    match code {
        RefusalCode::Other(_) => "a reason that is unknown here".to_owned(),
        known => known.to_string(),
    }
}

/// What another side says, without anything that could write on a terminal or fill a log.
pub(super) fn cleaned(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .take(Refusal::MAX_TEXT_BYTES)
        .collect()
}

/// The end of a connection in words: those of the certificates, where they are the cause.
pub(super) fn describe(error: &ConnectionError) -> String {
    HandshakeRefused::of(error).map_or_else(|| error.to_string(), |refused| refused.to_string())
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::of(error),
            _ => Self::Stopped,
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::of(error),
            _ => Self::Stopped,
        }
    }
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        Self::of(error)
    }
}

impl From<WireError> for End {
    fn from(error: WireError) -> Self {
        let code = match &error {
            WireError::UnknownVersion { .. } => RefusalCode::UnknownVersion,
            WireError::UnknownKind { .. } | WireError::Unexpected { .. } => {
                RefusalCode::UnknownKind
            }
            WireError::WrongCluster { .. } => RefusalCode::WrongCluster,
            WireError::OtherFormat { .. } => RefusalCode::WrongFormat,
            WireError::TooLarge { .. } => RefusalCode::TooLarge,
            _ => RefusalCode::Malformed,
        };
        Self::Refuse(Refusal { code, text: error.to_string() })
    }
}

/// A refusal from this side.
pub(super) fn refuse(code: RefusalCode, text: impl Into<String>) -> End {
    End::Refuse(Refusal { code, text: text.into() })
}

/// The frames of a stream.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    pub(super) frames: FrameReader,
    chunks: [Bytes; READ_CHUNKS],
}

impl Incoming {
    pub(super) fn new(stream: RecvStream, frames: FrameReader) -> Self {
        Self { stream, frames, chunks: [const { Bytes::new() }; READ_CHUNKS] }
    }

    /// Waits for more bytes. False where the stream has ended, between two frames.
    pub(super) async fn fill(&mut self, counter: &Counter) -> Result<bool, End> {
        let Some(count) = self.stream.read_chunks(&mut self.chunks).await? else {
            self.frames.finish()?;
            return Ok(false);
        };
        let mut bytes = 0;
        for chunk in &mut self.chunks[..count] {
            bytes += chunk.len() as u64;
            self.frames.feed(std::mem::take(chunk));
        }
        counter.add(bytes);
        Ok(true)
    }

    /// Waits for the next frame.
    pub(super) async fn frame(&mut self, counter: &Counter) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.frames.next()? {
                return Ok(frame);
            }
            if !self.fill(counter).await? {
                return Err(End::Stopped);
            }
        }
    }
}

/// Writes all that is in `outgoing`.
pub(super) async fn write(
    stream: &mut SendStream,
    outgoing: &mut Outgoing,
    counter: &Counter,
) -> Result<(), End> {
    if outgoing.is_empty() {
        return Ok(());
    }
    counter.add(outgoing.len() as u64);
    let written = stream.write_all_chunks(outgoing.chunks()).await;
    outgoing.clear();
    Ok(written?)
}

/// How a writer makes frames of what waited.
pub(super) trait Encode<T> {
    /// How many items at most make frames together.
    const TOGETHER: usize;

    /// Appends frames of these. What cannot be written is left out.
    fn encode(&mut self, items: &[T], outgoing: &mut Outgoing);

    /// Appends what is said last.
    fn conclude(&mut self, _outgoing: &mut Outgoing) {}
}

/// Writes what waits in `queue` until it is finished and everything has arrived, or the connection ends.
pub(super) async fn write_queue<T, E: Encode<T>>(
    queue: &Queue<T>,
    mut stream: SendStream,
    mut encoder: E,
    counter: &Counter,
) -> Result<(), End> {
    let mut outgoing = Outgoing::new();
    let mut batch = Vec::new();
    while queue.take(&mut batch).await {
        for items in batch.chunks(E::TOGETHER) {
            encoder.encode(items, &mut outgoing);
            if outgoing.len() >= WRITE_BYTES {
                write(&mut stream, &mut outgoing, counter).await?;
            }
        }
        write(&mut stream, &mut outgoing, counter).await?;
        batch.clear();
    }
    encoder.conclude(&mut outgoing);
    write(&mut stream, &mut outgoing, counter).await?;
    let _already_ended = stream.finish();
    let _arrived = stream.stopped().await;
    Ok(())
}

/// Says a refusal as a frame, as far as the other side takes it, and then ends the connection with it.
pub(super) async fn say_refusal(
    connection: &Connection,
    stream: Option<SendStream>,
    outgoing: &mut Outgoing,
    refusal: &Refusal,
    patience: std::time::Duration,
) {
    if let Some(mut stream) = stream {
        let said = async {
            stream.write_all_chunks(outgoing.chunks()).await.ok()?;
            stream.finish().ok()?;
            stream.stopped().await.ok()
        };
        // Whether it arrived in time or not: the end of the connection says the same in short.
        let _said = timeout(patience, said).await;
    }
    close(connection, refusal);
}

/// What a server that stops says last, of its own accord.
pub(super) fn closing() -> Refusal {
    Refusal { code: RefusalCode::Closing, text: "this server is stopping".to_owned() }
}

/// Ends a connection with a refusal.
pub(super) fn close(connection: &Connection, refusal: &Refusal) {
    /// What fits into a packet beside everything else.
    const REASON_BYTES: usize = 512;
    let reason = refusal.text.as_bytes();
    let reason = &reason[..reason.len().min(REASON_BYTES)];
    connection.close(VarInt::from_u32(u32::from(refusal.code.number())), reason);
}
