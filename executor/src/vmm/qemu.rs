//! QEMU's command line: a pure function of a machine's shape and of descriptor numbers.
//!
//! Nothing is named by a path that QEMU would have to be able to reach: every file and socket is
//! an inherited descriptor.

use std::os::fd::RawFd;

use serde_json::{Value, json};

use super::config::{MachineNetwork, MachineSpec};
use super::identity::Accelerator;
use guest::protocol::{NAME_SERVER_ARGUMENT, PORT_NAME};

/// The machine model with its options; the version of the device list is part of it.
pub(super) const MACHINE: &str = "microvm,acpi=on,rtc=on;devices=1";
/// The processor of an emulated machine.
pub(super) const CPU_EMULATED: &str = "max";
/// The processor of a machine that runs on the host's.
pub(super) const CPU_HOST: &str = "host";

/// Where the memory of a machine comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Memory<'a> {
    /// A file whose changes stay in it.
    Shared(RawFd),
    /// A file that is mapped privately; QEMU opens it under this name, see
    /// [`super::private_memory`].
    Private(&'a str),
}

/// The disk of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disk {
    /// A raw image that is written in place.
    Raw(RawFd),
    /// A qcow2 overlay over a raw image that is only read.
    Overlay { base: RawFd, overlay: RawFd },
}

/// What a machine boots; a restored machine boots nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot {
    pub(super) kernel: RawFd,
    pub(super) initramfs: RawFd,
}

/// The sockets over which the machine is reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Channels {
    pub(super) monitor: RawFd,
    pub(super) agent: RawFd,
    pub(super) console: RawFd,
}

/// Everything that the command line depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command<'a> {
    pub(super) spec: &'a MachineSpec,
    pub(super) accelerator: Accelerator,
    pub(super) tsc_khz: Option<u64>,
    pub(super) memory: Memory<'a>,
    pub(super) disk: Disk,
    pub(super) boot: Option<Boot>,
    pub(super) network: bool,
    pub(super) channels: Channels,
}

/// The kernel's command line.
fn kernel_arguments(
    accelerator: Accelerator,
    tsc_khz: Option<u64>,
    network: &MachineNetwork,
) -> String {
    // `panic=-1` and `reboot=t`: a machine that cannot go on ends at once, and QEMU with it.
    let mut arguments = String::from(
        "console=ttyS0 quiet panic=-1 reboot=t random.trust_cpu=on no_timer_check \
         8250.nr_uarts=1 rcupdate.rcu_expedited=1 cryptomgr.notests",
    );
    if accelerator == Accelerator::Tcg {
        // An emulated processor speculates about nothing.
        arguments.push_str(" mitigations=off");
    }
    if let Some(khz) = tsc_khz {
        arguments.push_str(" tsc=reliable tsc_early_khz=");
        arguments.push_str(&khz.to_string());
    }
    if let MachineNetwork::Namespace { name_server, .. } = network {
        arguments.extend([" ", NAME_SERVER_ARGUMENT, "=", &name_server.to_string()]);
    }
    arguments
}

/// The arguments of QEMU for `command`.
pub(super) fn arguments(command: &Command<'_>) -> Vec<String> {
    let spec = command.spec;
    let mut line = Line(Vec::new());
    line.flag("-no-user-config");
    line.flag("-nodefaults");
    line.flag("-no-reboot");
    line.option("-display", "none");
    // Every class of system calls that QEMU can do without.
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    line.option("-M", "microvm,acpi=on,rtc=on,memory-backend=mem");
    line.option("-accel", command.accelerator.name());
    line.option(
        "-cpu",
        match command.accelerator {
            Accelerator::Tcg => CPU_EMULATED,
            Accelerator::Kvm => CPU_HOST,
        },
    );
    line.option("-smp", &spec.vcpus.to_string());
    line.option("-m", &format!("{}M", spec.memory_mib));
    let (path, share) = match command.memory {
        Memory::Shared(fd) => (format!("/proc/self/fd/{fd}"), "on"),
        Memory::Private(name) => (name.to_owned(), "off"),
    };
    let size = spec.memory_mib;
    line.option(
        "-object",
        &format!("memory-backend-file,id=mem,size={size}M,mem-path={path},share={share}"),
    );
    if let Some(Boot { kernel, initramfs }) = command.boot {
        line.option("-kernel", &format!("/proc/self/fd/{kernel}"));
        line.option("-initrd", &format!("/proc/self/fd/{initramfs}"));
        line.option(
            "-append",
            &kernel_arguments(command.accelerator, command.tsc_khz, &spec.network),
        );
    } else {
        line.option("-incoming", "defer");
        line.flag("-S");
    }
    line.disk(command.disk);
    line.channels(command.channels);
    if command.network {
        line.option("-netdev", "user,id=net,ipv6=off");
        line.option("-device", "virtio-net-device,netdev=net");
    }
    line.0
}

struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn option(&mut self, name: &str, value: &str) {
        self.0.push(name.to_owned());
        self.0.push(value.to_owned());
    }

    fn channels(&mut self, channels: Channels) {
        for (id, fd) in [
            ("monitor", channels.monitor),
            ("agent", channels.agent),
            ("console", channels.console),
        ] {
            self.option("-chardev", &format!("socket,id={id},fd={fd}"));
        }
        self.option("-mon", "chardev=monitor,mode=control");
        self.option("-serial", "chardev:console");
        self.option("-device", "virtio-serial-device,max_ports=2");
        self.option(
            "-device",
            &format!("virtserialport,chardev=agent,name={PORT_NAME}"),
        );
    }

    fn disk(&mut self, disk: Disk) {
        match disk {
            Disk::Raw(fd) => {
                self.file_node("disk-file", 1, fd, false);
                self.node(json!({
                    "driver": "raw", "node-name": "disk", "file": "disk-file", "discard": "unmap",
                }));
            }
            Disk::Overlay { base, overlay } => {
                self.file_node("base-file", 1, base, true);
                self.node(json!({
                    "driver": "raw", "node-name": "base", "file": "base-file", "read-only": true,
                }));
                self.file_node("overlay-file", 2, overlay, false);
                self.node(json!({
                    "driver": "qcow2", "node-name": "disk", "file": "overlay-file",
                    "backing": "base", "discard": "unmap",
                }));
            }
        }
        self.option("-device", "virtio-blk-device,drive=disk");
    }

    /// A file that is reached through a set of descriptors instead of a path.
    fn file_node(&mut self, name: &str, set: u32, fd: RawFd, read_only: bool) {
        self.option("-add-fd", &format!("fd={fd},set={set}"));
        self.node(json!({
            "driver": "file",
            "node-name": name,
            "filename": format!("/dev/fdset/{set}"),
            "read-only": read_only,
            // A lock would belong to the shared descriptor and exclude nobody.
            "locking": "off",
            "discard": "unmap",
            // Whoever publishes the image writes it back; a machine's own end needs no such wait.
            "cache": {"direct": false, "no-flush": true},
        }));
    }

    fn node(&mut self, node: Value) {
        self.option("-blockdev", &node.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::config::MachineNetwork;

    fn spec() -> MachineSpec {
        MachineSpec {
            vcpus: 2,
            memory_mib: 512,
            hostname: "box".to_owned(),
            network: MachineNetwork::None,
        }
    }

    fn line(boot: Option<Boot>, network: bool) -> String {
        let spec = spec();
        arguments(&Command {
            spec: &spec,
            accelerator: Accelerator::Tcg,
            tsc_khz: Some(2_450_000),
            memory: if boot.is_some() {
                Memory::Shared(9)
            } else {
                Memory::Private("/memory")
            },
            disk: Disk::Raw(8),
            boot,
            network,
            channels: Channels {
                monitor: 3,
                agent: 4,
                console: 5,
            },
        })
        .join(" ")
    }

    #[test]
    fn a_boot_shares_its_memory_file_and_a_restore_does_not() {
        let boot = line(
            Some(Boot {
                kernel: 6,
                initramfs: 7,
            }),
            false,
        );
        assert!(boot.contains("size=512M,mem-path=/proc/self/fd/9,share=on"));
        assert!(boot.contains("tsc=reliable tsc_early_khz=2450000"));
        assert!(!boot.contains("-incoming"));
        let restore = line(None, false);
        assert!(restore.contains("mem-path=/memory,share=off"));
        assert!(restore.contains("-incoming defer -S"));
        assert!(!restore.contains("-kernel"));
    }

    #[test]
    fn the_accelerator_is_always_explicit_and_the_sandbox_complete() {
        let line = line(None, false);
        assert!(line.contains("-accel tcg -cpu max"));
        assert!(line.contains("obsolete=deny,elevateprivileges=deny,spawn=deny"));
        assert!(line.contains("resourcecontrol=deny"));
    }

    #[test]
    fn a_machine_without_network_has_no_network_device() {
        assert!(!line(None, false).contains("net"));
        assert!(line(None, true).contains("virtio-net-device,netdev=net"));
    }
}
