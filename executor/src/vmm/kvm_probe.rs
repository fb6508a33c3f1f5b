//! Whether KVM really runs a machine's instructions on the processor.
//!
//! Opening the device, making a machine and a tiny guest prove nothing: there are hosts whose KVM
//! emulates instruction by instruction, a thousand times slower. So a guest runs a loop of a
//! million iterations, in pieces, and the time is what counts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::time::{Duration, Instant};

/// Iterations of one piece of the loop; the number is also in [`CODE`].
const PIECE_ITERATIONS: u32 = 10_000;
/// Pieces of the loop.
const PIECES: u32 = 100;

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The loop ran at the processor's speed.
    Runs {
        /// How long it took.
        took: Duration,
    },
    /// The loop ran, far too slowly.
    Emulates {
        /// How many iterations were done.
        iterations: u32,
        /// In which time.
        took: Duration,
    },
    /// The probe could not run.
    Unusable {
        /// Why.
        complaint: String,
    },
}

// From <linux/kvm.h>.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xae04;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
const KVM_RUN: libc::c_ulong = 0xae80;
const KVM_SET_REGS: libc::c_ulong = 0x4090_ae82;
const KVM_GET_SREGS: libc::c_ulong = 0x8138_ae83;
const KVM_SET_SREGS: libc::c_ulong = 0x4138_ae84;
const KVM_EXIT_IO: u32 = 2;

const MEMORY_BYTES: usize = 64 * 1024;
const CODE_AT: usize = 0x1000;

/// 16-bit code that never ends and leaves the guest after each piece.
const CODE: [u8; 14] = [
    0x66, 0xb9, 0x10, 0x27, 0x00, 0x00, // again: mov ecx, 10000
    0x66, 0x49, // next: dec ecx
    0x75, 0xfc, // jnz next
    0xe6, 0x10, // out 0x10, al
    0xeb, 0xf2, // jmp again
];

#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_physical: u64,
    bytes: u64,
    host_address: u64,
}

/// `struct kvm_regs`: sixteen general registers, then rip and rflags.
#[repr(C)]
struct Registers {
    general: [u64; 16],
    rip: u64,
    rflags: u64,
}

/// `struct kvm_sregs`, of which only the code segment (first) matters here.
#[repr(C)]
struct SegmentRegisters {
    code_base: u64,
    code_limit: u32,
    code_selector: u16,
    rest: [u8; 298],
}

/// Memory that this process shares with the guest or with the kernel.
struct Mapping {
    address: NonNull<libc::c_void>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        #[expect(unsafe_code, reason = "mmap")]
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { address, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "munmap")]
        // SAFETY: the mapping is ours, and its only users borrow it from `self`.
        unsafe {
            libc::munmap(self.address.as_ptr(), self.bytes);
        }
    }
}

fn ioctl(fd: &OwnedFd, request: libc::c_ulong, argument: *mut libc::c_void) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "KVM is driven by ioctls")]
    // SAFETY: each caller passes null, or a pointer to a live value of the request's type.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn ioctl_fd(fd: &OwnedFd, request: libc::c_ulong) -> io::Result<OwnedFd> {
    let raw = ioctl(fd, request, ptr::null_mut())?;
    #[expect(unsafe_code, reason = "the kernel gives a bare descriptor number")]
    // SAFETY: the descriptor was made by this call and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Runs the probe loop, for at most about `budget`; blocks.
pub(super) fn run(budget: Duration) -> Finding {
    match run_loop(budget) {
        Ok(finding) => finding,
        Err(error) => Finding::Unusable {
            complaint: format!("/dev/kvm: {error}"),
        },
    }
}

fn run_loop(budget: Duration) -> io::Result<Finding> {
    let device: File = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    let device = OwnedFd::from(device);
    let machine = ioctl_fd(&device, KVM_CREATE_VM)?;
    let anonymous = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let memory = Mapping::new(MEMORY_BYTES, anonymous, -1)?;
    #[expect(unsafe_code, reason = "the guest's program is written into its memory")]
    // SAFETY: the code lies within the mapping, which nothing else uses yet.
    unsafe {
        let code = memory.address.as_ptr().cast::<u8>().add(CODE_AT);
        ptr::copy_nonoverlapping(CODE.as_ptr(), code, CODE.len());
    }
    let mut region = MemoryRegion {
        slot: 0,
        flags: 0,
        guest_physical: 0,
        bytes: u64::try_from(memory.bytes).map_err(io::Error::other)?,
        host_address: u64::try_from(memory.address.addr().get()).map_err(io::Error::other)?,
    };
    let argument = (&raw mut region).cast();
    ioctl(&machine, KVM_SET_USER_MEMORY_REGION, argument)?;
    let cpu = ioctl_fd(&machine, KVM_CREATE_VCPU)?;
    set_registers(&cpu)?;

    let run_bytes = ioctl(&device, KVM_GET_VCPU_MMAP_SIZE, ptr::null_mut())?;
    let run_bytes = usize::try_from(run_bytes).map_err(io::Error::other)?;
    let run = Mapping::new(run_bytes, libc::MAP_SHARED, cpu.as_raw_fd())?;
    let begun = Instant::now();
    for piece in 0..PIECES {
        ioctl(&cpu, KVM_RUN, ptr::null_mut())?;
        #[expect(
            unsafe_code,
            reason = "the exit reason is in memory shared with the kernel"
        )]
        // SAFETY: `exit_reason` is the u32 at byte 8 of `struct kvm_run`, and the guest is stopped.
        let reason = unsafe { run.address.as_ptr().cast::<u32>().add(2).read_volatile() };
        let took = begun.elapsed();
        if reason != KVM_EXIT_IO {
            let complaint = format!("/dev/kvm: the probe's guest stopped with reason {reason}");
            return Ok(Finding::Unusable { complaint });
        }
        if took > budget {
            let iterations = (piece + 1) * PIECE_ITERATIONS;
            return Ok(Finding::Emulates { iterations, took });
        }
    }
    Ok(Finding::Runs {
        took: begun.elapsed(),
    })
}

/// Points a new virtual CPU, which is in real mode, at [`CODE`].
fn set_registers(cpu: &OwnedFd) -> io::Result<()> {
    let mut segments = SegmentRegisters {
        code_base: 0,
        code_limit: 0,
        code_selector: 0,
        rest: [0; 298],
    };
    ioctl(cpu, KVM_GET_SREGS, (&raw mut segments).cast())?;
    segments.code_base = 0;
    segments.code_selector = 0;
    ioctl(cpu, KVM_SET_SREGS, (&raw mut segments).cast())?;
    let mut registers = Registers {
        general: [0; 16],
        rip: u64::try_from(CODE_AT).map_err(io::Error::other)?,
        // Bit 1 is always set.
        rflags: 2,
    };
    ioctl(cpu, KVM_SET_REGS, (&raw mut registers).cast()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<MemoryRegion>(), 0x20);
        assert_eq!(size_of::<Registers>(), 0x90);
        assert_eq!(size_of::<SegmentRegisters>(), 0x138);
    }

    #[test]
    fn the_probe_ends_whatever_the_host_is() {
        let begun = Instant::now();
        let finding = run(Duration::from_millis(50));
        let all = Duration::from_millis(50);
        match finding {
            Finding::Runs { took } => assert!(took <= all, "{took:?}"),
            Finding::Emulates { iterations, took } => {
                assert!(took > all, "{took:?}");
                assert!(iterations <= PIECES * PIECE_ITERATIONS);
            }
            Finding::Unusable { complaint } => assert!(complaint.contains("/dev/kvm")),
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
