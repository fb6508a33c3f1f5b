//! The extension headers of an archive: what they say about the member that follows.

use rustix::fs::Timespec;

use super::archive::malformed;
use super::archive_fields::{pax_records, pax_time};
use super::unpack::UnpackError;

/// Where PAX headers keep extended attributes, as GNU tar, bsdtar and Go write them.
const PAX_XATTR: &[u8] = b"SCHILY.xattr.";
const PAX_SPARSE: &[u8] = b"GNU.sparse.";

/// The extension headers before a member.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) long_path: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) owner: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) modified: Option<Timespec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of all of them, against `extension_bytes_max`.
    pub(super) bytes: u64,
}

impl Extensions {
    /// Adds the records of a PAX header; later ones win.
    pub(super) fn add_pax(&mut self, data: &[u8]) -> Result<(), UnpackError> {
        let records = pax_records(data).ok_or_else(|| malformed("a PAX record"))?;
        for (key, value) in records {
            // An empty value takes an earlier one back.
            let given = (!value.is_empty()).then_some(value);
            match key {
                b"path" => self.path = given.map(<[u8]>::to_vec),
                b"linkpath" => self.link = given.map(<[u8]>::to_vec),
                b"size" => self.size = given.map(decimal).transpose()?,
                b"uid" => self.owner = given.map(decimal_id).transpose()?,
                b"gid" => self.group = given.map(decimal_id).transpose()?,
                b"mtime" => {
                    self.modified = given
                        .map(|text| pax_time(text).ok_or_else(|| malformed("a PAX time")))
                        .transpose()?;
                }
                _ if key.starts_with(PAX_SPARSE) => {
                    return Err(UnpackError::Unsupported {
                        what: "a sparse file in PAX format".to_owned(),
                    });
                }
                _ => {
                    if let Some(name) = key.strip_prefix(PAX_XATTR) {
                        if name.is_empty() || name.contains(&0) {
                            return Err(malformed("the name of an extended attribute"));
                        }
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// An owner or group; the highest number means "leave as it is" to the kernel and is no id.
pub(super) fn id(number: i64) -> Result<u32, UnpackError> {
    u32::try_from(number)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| malformed("an owner or group out of range"))
}

fn decimal(text: &[u8]) -> Result<u64, UnpackError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed("a number in a PAX record"))
}

fn decimal_id(text: &[u8]) -> Result<u32, UnpackError> {
    id(i64::try_from(decimal(text)?).map_err(|_| malformed("an owner or group out of range"))?)
}

pub(super) fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}
