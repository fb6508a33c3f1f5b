//! What makes a clone itself: its own random numbers, the right time, its name.

use std::fs::OpenOptions;
use std::os::fd::AsFd as _;

use super::failure::{Doing as _, Failure};
use super::sys;

/// Enough for the kernel's generator, whose key has 32 bytes.
const ENTROPY_BYTES: usize = 32;

// From <linux/random.h>.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// `struct rand_pool_info` with a buffer of our size.
#[repr(C)]
struct PoolInput {
    entropy_bits: libc::c_int,
    size_bytes: libc::c_int,
    bytes: [u8; ENTROPY_BYTES],
}

/// Mixes `entropy` into the kernel's generator and makes it draw a new key at once.
///
/// Without the second step, two clones of a snapshot give equal numbers until the kernel happens
/// to reseed itself.
pub(crate) fn reseed(entropy: &[u8]) -> Result<(), Failure> {
    const DOING: &str = "reseed the random number generator";
    let bytes: [u8; ENTROPY_BYTES] = entropy
        .get(..ENTROPY_BYTES)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| Failure::other(DOING, "it needs 32 bytes"))?;
    let mut input = PoolInput {
        entropy_bits: 256,
        size_bytes: 32,
        bytes,
    };
    let device = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .doing(|| "open /dev/urandom".to_owned())?;
    sys::ioctl_value(device.as_fd(), RNDADDENTROPY, &mut input)
        .and_then(|()| sys::ioctl_number(&device, RNDRESEEDCRNG, 0))
        .doing(|| DOING.to_owned())
}

/// Sets the wall clock, in nanoseconds since 1970.
pub(crate) fn set_wall_clock(nanoseconds: u64) -> Result<(), Failure> {
    sys::set_wall_clock(nanoseconds).doing(|| "set the clock".to_owned())
}

/// Sets the host name.
pub(crate) fn set_hostname(name: &str) -> Result<(), Failure> {
    sys::set_hostname(name).doing(|| format!("set the host name `{name}`"))
}
