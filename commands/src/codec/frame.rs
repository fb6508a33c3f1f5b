//! The binary frame of an envelope.

use std::str::FromStr;

use domain::Digest;
use domain::event::Category;
use domain::recorded::{Actor, StreamName, Version};
use domain::time::Timestamp;

use super::{CodecError, Envelope, actor_text};

/// The layout that [`Envelope`] documents.
const FORMAT: u8 = 1;

impl Envelope {
    /// Adds the frame to `out`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(256 + self.payload.len());
        body.push(FORMAT);
        body.extend(self.seq.to_le_bytes());
        body.extend(self.version.0.to_le_bytes());
        body.extend(self.time.unix_micros().to_le_bytes());
        body.push(category_byte(Category::from(&self.stream)));
        body.extend(self.schema_version.to_le_bytes());
        body.extend(self.index.to_le_bytes());
        body.extend(self.hash.as_bytes());
        write_field(&mut body, self.stream.to_string().as_bytes());
        write_field(&mut body, self.kind.as_bytes());
        write_field(&mut body, actor_text(&self.actor).as_bytes());
        write_field(&mut body, self.command_id.as_str().as_bytes());
        write_field(&mut body, &self.payload);
        let checksum = crc32fast::hash(&body).to_le_bytes();
        out.extend(length(checksum.len() + body.len()).to_le_bytes());
        out.extend(checksum);
        out.append(&mut body);
    }

    /// Takes the frame at the front of `bytes`.
    ///
    /// # Errors
    /// [`CodecError`] if there is no whole frame, or it is not as it was written.
    pub(crate) fn read_from(bytes: &mut &[u8]) -> Result<Self, CodecError> {
        let mut frame = take_field(bytes, "length")?;
        let stored = u32::from_le_bytes(take(&mut frame, "checksum")?);
        let computed = crc32fast::hash(frame);
        if stored != computed {
            return Err(CodecError::Checksum { stored, computed });
        }
        Self::read_body(frame)
    }

    fn read_body(mut body: &[u8]) -> Result<Self, CodecError> {
        let [format] = take(&mut body, "format")?;
        if format != FORMAT {
            return Err(CodecError::UnknownFormat(format));
        }
        let seq = u64::from_le_bytes(take(&mut body, "sequence number")?);
        let version = Version(u64::from_le_bytes(take(&mut body, "version")?));
        let micros = i64::from_le_bytes(take(&mut body, "time")?);
        let [category] = take(&mut body, "category")?;
        let schema_version = u16::from_le_bytes(take(&mut body, "schema version")?);
        let index = u32::from_le_bytes(take(&mut body, "index")?);
        let hash = Digest::from_bytes(take(&mut body, "hash")?);
        let stream: StreamName = parse(&mut body, "stream")?;
        let kind: String = parse(&mut body, "type")?;
        let actor = parse_actor(take_field(&mut body, "actor")?)?;
        let command_id = parse(&mut body, "command id")?;
        let payload = take_field(&mut body, "payload")?.to_vec();
        let time = Timestamp::from_unix_micros(micros)
            .ok_or_else(|| invalid("time", "the calendar does not reach it"))?;
        if category != category_byte(Category::from(&stream)) {
            return Err(invalid("category", "it is not that of the stream"));
        }
        if !body.is_empty() {
            return Err(invalid("end", "more bytes follow"));
        }
        Ok(Self {
            seq,
            stream,
            version,
            kind,
            schema_version,
            command_id,
            index,
            actor,
            time,
            hash,
            payload,
        })
    }
}

const fn category_byte(category: Category) -> u8 {
    match category {
        Category::Build => 1,
        Category::Template => 2,
        Category::Namespace => 3,
        Category::Keys => 4,
        Category::Webhook => 5,
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("names are short and a payload's length is checked before")
}

fn write_field(body: &mut Vec<u8>, field: &[u8]) {
    body.extend(length(field.len()).to_le_bytes());
    body.extend(field);
}

fn take<const N: usize>(bytes: &mut &[u8], field: &'static str) -> Result<[u8; N], CodecError> {
    let (head, rest) = bytes
        .split_first_chunk()
        .ok_or(CodecError::Truncated { field })?;
    *bytes = rest;
    Ok(*head)
}

fn take_field<'a>(bytes: &mut &'a [u8], field: &'static str) -> Result<&'a [u8], CodecError> {
    let length = u32::from_le_bytes(take(bytes, field)?);
    let (head, rest) = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length))
        .ok_or(CodecError::Truncated { field })?;
    *bytes = rest;
    Ok(head)
}

fn text<'a>(bytes: &'a [u8], field: &'static str) -> Result<&'a str, CodecError> {
    std::str::from_utf8(bytes).map_err(|source| invalid(field, source))
}

fn parse<T>(bytes: &mut &[u8], field: &'static str) -> Result<T, CodecError>
where
    T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let text = text(take_field(bytes, field)?, field)?;
    text.parse().map_err(|source| invalid(field, source))
}

pub(crate) fn parse_actor(bytes: &[u8]) -> Result<Actor, CodecError> {
    const FIELD: &str = "actor";
    match text(bytes, FIELD)?.split_once(':') {
        Some(("key", id)) => {
            let id = id.parse().map_err(|source| invalid(FIELD, source))?;
            Ok(Actor::Key { id })
        }
        Some(("worker", id)) => {
            let id = id.parse().map_err(|source| invalid(FIELD, source))?;
            Ok(Actor::Worker { id })
        }
        None if bytes == b"operator" => Ok(Actor::Operator),
        Some(_) | None => Err(invalid(FIELD, "it is no actor")),
    }
}

fn invalid<E>(field: &'static str, source: E) -> CodecError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let source = source.into();
    CodecError::Field { field, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        let mut envelope = Envelope {
            seq: 7,
            stream: "namespace-team".parse().unwrap(),
            version: Version(3),
            kind: "NameReleased".into(),
            schema_version: 1,
            command_id: "cmd_01arz3ndektsv4rrffq69g5fav".parse().unwrap(),
            index: 1,
            actor: Actor::Key {
                id: "key_01arz3ndektsv4rrffq69g5fav".parse().unwrap(),
            },
            time: Timestamp::from_unix_micros(1_700_000_000_000_001).unwrap(),
            hash: Digest::ZERO,
            payload: br#"{"type":"NameReleased","data":{"name":"app"}}"#.to_vec(),
        };
        envelope.hash = envelope.link(&Digest::of(b"previous"));
        envelope
    }

    fn bytes(envelope: &Envelope) -> Vec<u8> {
        let mut bytes = Vec::new();
        envelope.write_to(&mut bytes);
        bytes
    }

    fn hex(bytes: &[u8]) -> String {
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
    }

    #[test]
    fn every_actor_and_stream_survives_the_round_trip() {
        let ulid = "01arz3ndektsv4rrffq69g5fav";
        let actors = [
            Actor::Key {
                id: format!("key_{ulid}").parse().unwrap(),
            },
            Actor::Worker {
                id: format!("wk_{ulid}").parse().unwrap(),
            },
            Actor::Operator,
        ];
        for stream in [
            format!("build-tb_{ulid}"),
            format!("template-tmpl_{ulid}"),
            "namespace-a".into(),
            "keys".into(),
        ] {
            for actor in &actors {
                let written = Envelope {
                    stream: stream.parse().unwrap(),
                    actor: actor.clone(),
                    ..envelope()
                };
                let bytes = bytes(&written);
                let mut rest = bytes.as_slice();
                assert_eq!(Envelope::read_from(&mut rest).unwrap(), written);
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn a_changed_bit_or_a_cut_is_noticed_wherever_it_is() {
        let whole = bytes(&envelope());
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            Envelope::read_from(&mut flipped.as_slice()).unwrap_err();
            Envelope::read_from(&mut &whole[..at]).unwrap_err();
        }
    }

    #[test]
    fn each_field_of_the_canonical_bytes_changes_the_hash() {
        let base = envelope();
        let previous = Digest::of(b"previous");
        let variants = [
            Envelope {
                stream: "namespace-tean".parse().unwrap(),
                ..base.clone()
            },
            Envelope {
                version: Version(4),
                ..base.clone()
            },
            Envelope {
                time: base.time.plus_millis(1),
                ..base.clone()
            },
            Envelope {
                kind: "NameTaken".into(),
                ..base.clone()
            },
            Envelope {
                schema_version: 2,
                ..base.clone()
            },
            Envelope {
                actor: Actor::Operator,
                ..base.clone()
            },
            Envelope {
                command_id: "cmd_01arz3ndektsv4rrffq69g5faw".parse().unwrap(),
                ..base.clone()
            },
            Envelope {
                payload: b"{}".to_vec(),
                ..base.clone()
            },
        ];
        for variant in variants {
            assert_ne!(variant.link(&previous), base.hash, "{variant:?}");
        }
        assert_ne!(base.link(&Digest::ZERO), base.hash);
        let elsewhere = Envelope {
            seq: 8,
            ..base.clone()
        };
        assert_eq!(elsewhere.link(&previous), base.hash);
    }

    /// The stored form itself: if this fails, logs that were written before cannot be read.
    #[test]
    fn the_frame_and_the_hash_are_frozen() {
        assert_eq!(
            hex(&bytes(&envelope())),
            concat!(
                "df000000c2d06760010700000000000000030000000000000001401e18240a06",
                "00030100010000000402b46b606e894dd45f24e644f4a3cee10dd0d61b251a65",
                "3fae7cfec98e2d230e0000006e616d6573706163652d7465616d0c0000004e61",
                "6d6552656c6561736564220000006b65793a6b65795f303161727a336e64656b",
                "747376347272666671363967356661761e000000636d645f303161727a336e64",
                "656b747376347272666671363967356661762d0000007b2274797065223a224e",
                "616d6552656c6561736564222c2264617461223a7b226e616d65223a22617070",
                "227d7d",
            )
        );
        assert_eq!(
            envelope().hash.hex(),
            "0402b46b606e894dd45f24e644f4a3cee10dd0d61b251a653fae7cfec98e2d23"
        );
    }
}
