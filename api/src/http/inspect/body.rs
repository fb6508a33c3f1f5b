//! Bodies that are only looked at. They carry the contents of their files inline, and may be as large
//! as a context may be: contents are hashed as they arrive and are never held.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

use actix_web::web::Bytes;
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use domain::Digest;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use struson::reader::{JsonReader as _, JsonStreamReader, LinePosition, ReaderError, ValueType};
use tokio::sync::mpsc;

use crate::http::body::{Body, Json};
use crate::http::error::ApiError;
use crate::limits::Limits;
use crate::service::App;
use crate::service::uploads::Announced;

/// Pieces of a body that wait to be read.
const PIECES_AHEAD_MAX: usize = 16;
/// Bytes of a file's content that are hashed at once.
const HASHED_BYTES: usize = 64 * 1024;
/// What stands for a content that is no base64: no base64 either.
const NO_BASE64: &str = "!";

/// A request, and what the contents of its files are.
#[derive(Debug)]
pub(super) struct Inspected {
    /// The body. Contents are empty there, or no base64 if they were none.
    pub(super) json: Json,
    /// The contents that came inline, by the index of their entry in `build_context.files`.
    pub(super) contents: Vec<Option<Announced>>,
}

/// How much of what a body may bring.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Bytes without the contents of files.
    plain_bytes_max: u64,
    /// Bytes of the contents of files together.
    context_bytes_max: u64,
}

impl Bounds {
    fn of(limits: &Limits) -> Self {
        Self {
            plain_bytes_max: u64::try_from(limits.json_body_bytes_max).unwrap_or(u64::MAX),
            context_bytes_max: limits.context_bytes_max,
        }
    }

    /// Bytes of the whole body: base64 takes four for three.
    fn body_bytes_max(self) -> u64 {
        let contents = self.context_bytes_max.div_ceil(3).saturating_mul(4);
        contents.saturating_add(self.plain_bytes_max)
    }
}

/// Reads the body of a request.
///
/// # Errors
/// [`ApiError::TooLarge`], [`ApiError::MalformedJson`], [`ApiError::BodyBroken`], or
/// [`ApiError::Busy`] for a large body while too many of them are read.
pub(super) async fn read(body: &mut Body, app: &App) -> Result<Inspected, ApiError> {
    let bounds = Bounds::of(&app.config.limits);
    let body_bytes_max = bounds.body_bytes_max();
    if body
        .declared_bytes()
        .is_some_and(|bytes| bytes > body_bytes_max)
    {
        return Err(too_large("the body", body_bytes_max));
    }
    let mut held = VecDeque::new();
    let mut held_bytes: u64 = 0;
    while let Some(piece) = body.next().await? {
        held_bytes = held_bytes.saturating_add(size(&piece));
        held.push_back(piece);
        if held_bytes > bounds.plain_bytes_max {
            return read_large(body, held, bounds, app).await;
        }
    }
    let reading = tokio::task::spawn_blocking(move || Reading::new(held, None, bounds).whole());
    reading.await?
}

/// Reads a body that is too large to be held. A thread waits for its pieces, so there is a bound.
async fn read_large(
    body: &mut Body,
    held: VecDeque<Bytes>,
    bounds: Bounds,
    app: &App,
) -> Result<Inspected, ApiError> {
    let _room = app
        .inspections
        .try_acquire()
        .map_err(|_| ApiError::Busy("too many large requests are being looked at"))?;
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD_MAX);
    let reading =
        tokio::task::spawn_blocking(move || Reading::new(held, Some(receiver), bounds).whole());
    while let Some(piece) = body.next().await? {
        // Nobody reads any more: what is wrong has been found.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    reading.await?
}

fn size(piece: &Bytes) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

fn too_large(what: &'static str, bytes_max: u64) -> ApiError {
    ApiError::TooLarge { what, bytes_max }
}

/// How far a body has been read, and how far it may be.
#[derive(Debug)]
struct Gauge {
    read: Cell<u64>,
    allowed: Cell<u64>,
    is_over: Cell<bool>,
}

/// The pieces of a body, one behind the other.
struct Pieces {
    held: VecDeque<Bytes>,
    more: Option<mpsc::Receiver<Bytes>>,
    gauge: Rc<Gauge>,
}

impl Pieces {
    /// The piece in front, if there is one, that has something in it.
    fn front(&mut self) -> Option<&mut Bytes> {
        while self.held.front().is_none_or(Bytes::is_empty) {
            self.held.pop_front();
            if self.held.is_empty() {
                let next = self.more.as_mut()?.blocking_recv()?;
                self.held.push_back(next);
            }
        }
        self.held.front_mut()
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let gauge = Rc::clone(&self.gauge);
        let Some(front) = self.front() else {
            return Ok(0);
        };
        let room = gauge.allowed.get().saturating_sub(gauge.read.get());
        if room == 0 {
            gauge.is_over.set(true);
            return Err(io::Error::other("the body is too large"));
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let count = buffer.len().min(front.len()).min(room);
        let piece = front.split_to(count);
        if let Some(room) = buffer.get_mut(..count) {
            room.copy_from_slice(&piece);
        }
        gauge
            .read
            .set(gauge.read.get().saturating_add(size(&piece)));
        Ok(count)
    }
}

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It is no JSON, or too large: the gauge knows.
    Body,
    /// The contents of its files are too large together.
    Context,
}

impl From<ReaderError> for Stop {
    fn from(_: ReaderError) -> Self {
        Self::Body
    }
}

impl From<serde_json::Error> for Stop {
    fn from(_: serde_json::Error) -> Self {
        Self::Body
    }
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Body
    }
}

/// A body that is being read.
struct Reading {
    json: JsonStreamReader<Pieces>,
    gauge: Rc<Gauge>,
    bounds: Bounds,
    contents: Vec<Option<Announced>>,
    /// Bytes of contents, as they were sent.
    sent_bytes: u64,
    /// Bytes of contents.
    content_bytes: u64,
}

impl Reading {
    fn new(held: VecDeque<Bytes>, more: Option<mpsc::Receiver<Bytes>>, bounds: Bounds) -> Self {
        let gauge = Rc::new(Gauge {
            read: Cell::new(0),
            allowed: Cell::new(bounds.plain_bytes_max),
            is_over: Cell::new(false),
        });
        let pieces = Pieces {
            held,
            more,
            gauge: Rc::clone(&gauge),
        };
        Self {
            json: JsonStreamReader::new(pieces),
            gauge,
            bounds,
            contents: Vec::new(),
            sent_bytes: 0,
            content_bytes: 0,
        }
    }

    fn whole(mut self) -> Result<Inspected, ApiError> {
        let read = self.top();
        let place = self.json.current_position(false).line_pos;
        let (gauge, bounds) = (self.gauge, self.bounds);
        // Nothing follows but blanks.
        let read = read.and_then(|json| {
            self.json.consume_trailing_whitespace()?;
            Ok(json)
        });
        match read {
            Ok(json) => Ok(Inspected {
                json: json.into(),
                contents: self.contents,
            }),
            Err(stop) => Err(refusal(stop, place, &gauge, bounds)),
        }
    }

    fn top(&mut self) -> Result<Value, Stop> {
        self.object(|reading, name| match name {
            "build_context" => reading.object(|reading, name| match name {
                "files" => reading.files(),
                _ => reading.value(),
            }),
            _ => reading.value(),
        })
    }

    /// The files of the context. Of two lists, the last counts, as for every other key.
    fn files(&mut self) -> Result<Value, Stop> {
        self.contents.clear();
        if self.json.peek()? != ValueType::Array {
            return self.value();
        }
        self.json.begin_array()?;
        let mut files = Vec::new();
        while self.json.has_next()? {
            let mut content = None;
            files.push(self.object(|reading, name| match name {
                "content_base64" => {
                    let (value, found) = reading.content()?;
                    content = found;
                    Ok(value)
                }
                _ => reading.value(),
            })?);
            self.contents.push(content);
        }
        self.json.end_array()?;
        Ok(Value::Array(files))
    }

    /// An object, of which `member` reads each value; something else as it is.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<Value, Stop>,
    ) -> Result<Value, Stop> {
        if self.json.peek()? != ValueType::Object {
            return self.value();
        }
        self.json.begin_object()?;
        let mut object = Map::new();
        while self.json.has_next()? {
            let name = self.json.next_name_owned()?;
            let value = member(self, &name)?;
            object.insert(name, value);
        }
        self.json.end_object()?;
        Ok(Value::Object(object))
    }

    /// Any value. The reader bounds how deep they are nested.
    fn value(&mut self) -> Result<Value, Stop> {
        Ok(match self.json.peek()? {
            ValueType::Null => {
                self.json.next_null()?;
                Value::Null
            }
            ValueType::Boolean => self.json.next_bool()?.into(),
            ValueType::String => self.json.next_string()?.into(),
            // As bodies that are read at once: one that is too large for an integer is none.
            ValueType::Number => serde_json::from_str(&self.json.next_number_as_string()?)?,
            ValueType::Array => {
                self.json.begin_array()?;
                let mut values = Vec::new();
                while self.json.has_next()? {
                    values.push(self.value()?);
                }
                self.json.end_array()?;
                values.into()
            }
            ValueType::Object => self.object(|reading, _| reading.value())?,
        })
    }

    /// The content of a file, and what stands for it in the body.
    fn content(&mut self) -> Result<(Value, Option<Announced>), Stop> {
        if self.json.peek()? != ValueType::String {
            return Ok((self.value()?, None));
        }
        let from = self.position();
        self.gauge.allowed.set(self.bounds.body_bytes_max());
        let room = self.bounds.context_bytes_max - self.content_bytes;
        let found = hash(&mut self.json.next_string_reader()?, room)?;
        self.sent_bytes += self.position() - from;
        let allowed = self.bounds.plain_bytes_max.saturating_add(self.sent_bytes);
        self.gauge.allowed.set(allowed);
        if let Some(content) = found {
            self.content_bytes += content.bytes;
        }
        let value = if found.is_some() { "" } else { NO_BASE64 };
        Ok((value.into(), found))
    }

    fn position(&self) -> u64 {
        let place = self.json.current_position(false);
        place.data_pos.unwrap_or_default()
    }
}

/// Hashes the content in `text`, which is read to its end; none if it is no base64.
fn hash(text: &mut impl Read, bytes_max: u64) -> Result<Option<Announced>, Stop> {
    let mut hasher = Sha256::new();
    let mut bytes: u64 = 0;
    let mut buffer = vec![0; HASHED_BYTES];
    let mut decoder = DecoderReader::new(&mut *text, &STANDARD);
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let piece = buffer.get(..count).unwrap_or_default();
                bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                if bytes > bytes_max {
                    return Err(Stop::Context);
                }
                hasher.update(piece);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                io::copy(decoder.into_inner(), &mut io::sink())?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let digest = Digest::from_bytes(hasher.finalize().into());
    Ok(Some(Announced { digest, bytes }))
}

/// What is wrong with a body that was not read to its end. What stands there is not repeated: it may
/// be secret.
fn refusal(stop: Stop, place: Option<LinePosition>, gauge: &Gauge, bounds: Bounds) -> ApiError {
    if let Stop::Context = stop {
        let what = "the files of build_context together";
        return too_large(what, bounds.context_bytes_max);
    }
    if gauge.is_over.get() && gauge.allowed.get() == bounds.body_bytes_max() {
        return too_large("the body", bounds.body_bytes_max());
    }
    if gauge.is_over.get() {
        return too_large("the body without its files", bounds.plain_bytes_max);
    }
    if gauge.read.get() == 0 {
        return ApiError::field("", "is empty; a JSON object is expected");
    }
    // The reader counts from 0.
    let number = |count: u64| usize::try_from(count).map_or(usize::MAX, |count| count + 1);
    ApiError::MalformedJson {
        line: place.map_or(1, |place| number(place.line)),
        column: place.map_or(1, |place| number(place.column)),
    }
}

#[cfg(test)]
mod tests;
