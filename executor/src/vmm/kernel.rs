//! The guest's kernel: found as packaged, unpacked to the ELF image that boots fastest.
//!
//! The layout of the packaged image is that of the kernel's Documentation/arch/x86/boot.rst.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::error::VmmError;

/// A packaged kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its release, for example `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
    /// The packaged image.
    pub(super) image: Vec<u8>,
}

/// Finds and reads the kernel: `path`, or the newest cloud kernel in `/boot`.
pub(super) fn read(path: Option<&Path>, bytes_max: u64) -> Result<Kernel, VmmError> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => newest(Path::new("/boot"))?,
    };
    let mut image = Vec::new();
    fs::File::open(&path)
        .and_then(|file| file.take(bytes_max).read_to_end(&mut image))
        .map_err(VmmError::file("read", &path))?;
    match release(&image) {
        Some(release) => Ok(Kernel {
            path,
            release,
            image,
        }),
        None => Err(VmmError::Kernel {
            path,
            complaint: "it is not a packaged x86 kernel (vmlinuz)".to_owned(),
        }),
    }
}

fn newest(folder: &Path) -> Result<PathBuf, VmmError> {
    let entries = fs::read_dir(folder).map_err(VmmError::file("list", folder))?;
    let mut found: Vec<(Vec<u64>, PathBuf)> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(VmmError::file("list", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let release = name.strip_prefix("vmlinuz-");
        if let Some(release) = release.filter(|release| release.ends_with("-cloud-amd64")) {
            found.push((version_key(release), entry.path()));
        }
    }
    let newest = found.into_iter().max().map(|(_, path)| path);
    newest.ok_or_else(|| VmmError::Missing {
        part: "the guest's kernel",
        path: folder.join("vmlinuz-*-cloud-amd64"),
        remedy: "install Debian's linux-image-cloud-amd64, or name a kernel in the configuration",
    })
}

/// The numbers in a release, in order: 6.1.0-56 is newer than 6.1.0-9.
fn version_key(release: &str) -> Vec<u64> {
    release
        .split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn byte(image: &[u8], at: usize) -> Option<usize> {
    image.get(at).copied().map(usize::from)
}

fn number(image: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 4] = image.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(bytes)).ok()
}

/// The release that the image's header names.
fn release(image: &[u8]) -> Option<String> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let at = byte(image, 0x20e)? + 256 * byte(image, 0x20f)? + 0x200;
    let text = image.get(at..)?.split(|byte| *byte == 0).next()?;
    let release = std::str::from_utf8(text).ok()?.split(' ').next()?;
    (!release.is_empty()).then(|| release.to_owned())
}

/// Unpacks the ELF image.
pub(super) fn unpack(kernel: &Kernel, bytes_max: u64) -> Result<Vec<u8>, VmmError> {
    let failed = |complaint: String| VmmError::Kernel {
        path: kernel.path.clone(),
        complaint,
    };
    let payload =
        payload(&kernel.image).ok_or_else(|| failed("its payload is not where it says".into()))?;
    let elf = decompress(payload, bytes_max).map_err(failed)?;
    if elf.starts_with(b"\x7fELF") {
        Ok(elf)
    } else {
        Err(failed("its payload is not an ELF image".to_owned()))
    }
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    // 0 setup sectors mean 4, for kernels older than anything that boots here.
    let setup = (byte(image, 0x1f1)? + 1) * 512;
    let from = setup.checked_add(number(image, 0x248)?)?;
    image.get(from..from.checked_add(number(image, 0x24c)?)?)
}

fn decompress(payload: &[u8], bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut elf = Vec::new();
    let read = match payload {
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => return unpack_lz4(blocks, bytes_max),
        [0x1f, 0x8b, ..] => flate2::read::GzDecoder::new(payload)
            .take(bytes_max)
            .read_to_end(&mut elf),
        // The length that follows the frame is not part of it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::Decoder::new(payload)
            .and_then(|decoder| decoder.single_frame().take(bytes_max).read_to_end(&mut elf)),
        _ => return Err("it is not packed with LZ4, gzip or zstd".to_owned()),
    };
    read.map_err(|error| format!("its payload is damaged: {error}"))?;
    Ok(elf)
}

/// Unpacks the legacy LZ4 format: blocks of at most 8 MiB, each after its packed length.
fn unpack_lz4(mut blocks: &[u8], bytes_max: u64) -> Result<Vec<u8>, String> {
    const BLOCK_BYTES_MAX: usize = 8 * 1024 * 1024;
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut elf = Vec::new();
    let mut block = vec![0_u8; BLOCK_BYTES_MAX];
    // What is left in the end, four bytes, is the unpacked length.
    while let Some((packed, rest)) = number(blocks, 0).and_then(|length| {
        let rest = blocks.get(4..)?;
        (length > 0)
            .then(|| rest.split_at_checked(length))
            .flatten()
    }) {
        let length = lz4_flex::block::decompress_into(packed, &mut block)
            .map_err(|error| format!("its payload is damaged: {error}"))?;
        elf.extend_from_slice(block.get(..length).unwrap_or_default());
        if elf.len() > bytes_max {
            return Err(format!("its payload is larger than {bytes_max} bytes"));
        }
        blocks = rest;
    }
    if number(blocks, 0) == Some(elf.len()) {
        Ok(elf)
    } else {
        Err("its payload is cut off".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 256 * 1024 * 1024;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert!(version_key("6.1.0-56-cloud-amd64") > version_key("6.1.0-9-cloud-amd64"));
        assert!(version_key("6.10.1-1-cloud-amd64") > version_key("6.9.12-1-cloud-amd64"));
    }

    #[test]
    fn the_installed_kernel_is_found_and_unpacked() {
        let kernel = read(None, BYTES_MAX).unwrap();
        assert!(kernel.path.ends_with(format!("vmlinuz-{}", kernel.release)));
        let elf = unpack(&kernel, BYTES_MAX).unwrap();
        assert!(elf.len() > kernel.image.len());
    }

    #[test]
    fn a_damaged_kernel_is_refused() {
        let mut kernel = read(None, BYTES_MAX).unwrap();
        kernel.image.truncate(kernel.image.len() / 2);
        let error = unpack(&kernel, BYTES_MAX).unwrap_err();
        assert!(error.to_string().contains("payload"), "{error}");
        assert_eq!(release(b"#!/bin/sh"), None);
    }

    #[test]
    fn an_lz4_payload_must_be_whole() {
        let text = b"some text, some text, some text".repeat(9);
        let packed = lz4_flex::block::compress(&text);
        let mut blocks = u32::try_from(packed.len()).unwrap().to_le_bytes().to_vec();
        blocks.extend_from_slice(&packed);
        assert!(unpack_lz4(&blocks, BYTES_MAX).is_err());
        blocks.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        assert_eq!(unpack_lz4(&blocks, BYTES_MAX).unwrap(), text);
        assert!(unpack_lz4(&blocks, 10).is_err());
    }
}
