"""Sends a TCP SYN to each HOST:PORT as a raw frame, which no route of the sender's namespace sees, and
prints `raw:HOST:PORT=` with `answered` if the other side took the connection, else `nothing`."""

import socket
import struct
import sys
import time

DEVICE = "eth0"
ADDRESS = "10.0.89.2"
GATEWAY = "10.0.89.1"
SECONDS = 2
SYN, SYN_ACK = 0x02, 0x12


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total >> 16) + (total & 0xFFFF)
    return struct.pack("!H", ~total & 0xFFFF)


def gateway_hardware() -> bytes:
    # The kernel asks for it when something is sent there.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(b"", (GATEWAY, 9))
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with open("/proc/net/arp", encoding="ascii") as table:
            for fields in map(str.split, table):
                if fields[0] == GATEWAY and fields[3] != "00:00:00:00:00:00":
                    return bytes.fromhex(fields[3].replace(":", ""))
        time.sleep(0.02)
    raise SystemExit("the gateway does not answer")


def packet(source_port: int, host: str, port: int) -> bytes:
    source, target = socket.inet_aton(ADDRESS), socket.inet_aton(host)
    segment = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 5 << 4, SYN, 65535, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    segment = segment[:16] + checksum(pseudo + segment) + segment[18:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0, 64, socket.IPPROTO_TCP, 0) + source + target
    return header[:10] + checksum(header) + header[12:] + segment


def is_answered(gateway: bytes, source_port: int, host: str, port: int) -> bool:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as link:
        link.bind((DEVICE, 0))
        link.send(gateway + link.getsockname()[4] + b"\x08\x00" + packet(source_port, host, port))
        end = time.monotonic() + SECONDS
        while (left := end - time.monotonic()) > 0:
            link.settimeout(left)
            try:
                heard = link.recv(4096)[14:]
            except TimeoutError:
                break
            segment = heard[(heard[0] & 15) * 4 :]
            if heard[9] == socket.IPPROTO_TCP and struct.unpack("!H", segment[2:4])[0] == source_port:
                return segment[13] & SYN_ACK == SYN_ACK
    return False


hardware = gateway_hardware()
for number, target in enumerate(sys.argv[1:]):
    name, _, target_port = target.partition(":")
    answered = is_answered(hardware, 40000 + number, name, int(target_port))
    print(f"raw:{target}={'answered' if answered else 'nothing'}", flush=True)
