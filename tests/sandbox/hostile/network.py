"""Programs that want out: addresses, names, sockets of the host."""

from __future__ import annotations

from tests.sandbox.hostile.program import Hostile

_CONNECT = """
def reach(host, port, kind=socket.SOCK_STREAM, family=socket.AF_INET):
    end = socket.socket(family, kind)
    end.settimeout(0.7)
    end.connect((host, port))
    end.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
    if kind == socket.SOCK_STREAM or end.recv(10):
        return "reached"


"""


def goes(name: str, code: str, *, note: str = "") -> Hostile:
    """An attempt to get out that comes to its end."""
    return Hostile(name, "network", _CONNECT + code + "\nheld()\n", note=note)


PROGRAMS: list[Hostile] = [
    goes(
        "loopback",
        """
for port in (22, 80, 443, 2375, 2376, 5432, 5672, 6379, 8000, 8080, 15672, 50051):
    attempt(f'port {port}', lambda: reach('127.0.0.1', port))
""",
    ),
    goes(
        "planted_server_of_the_host",
        """
for host in input_data['addresses']:
    attempt(host, lambda: reach(host, input_data['port']))
""",
        note="a server that listens on every address of the host",
    ),
    goes(
        "gateways",
        """
for host in ('172.17.0.1', '172.18.0.1', '10.0.0.1', '192.168.0.1', '192.168.65.2', '10.0.2.2', '100.100.100.200'):
    attempt(host, lambda: reach(host, 80))
""",
    ),
    goes(
        "metadata",
        """
for host in ('169.254.169.254', '169.254.170.2', '192.0.0.192'):
    attempt(host, lambda: reach(host, 80))
import urllib.request
attempt('http', lambda: urllib.request.urlopen('http://169.254.169.254/latest/meta-data/', timeout=0.7).read())
""",
    ),
    goes(
        "wide_world",
        """
for host in ('8.8.8.8', '1.1.1.1', '93.184.216.34'):
    attempt(host, lambda: reach(host, 443))
    attempt(host, lambda: reach(host, 53))
""",
    ),
    goes(
        "datagrams",
        """
for host in ('8.8.8.8', '127.0.0.53', '172.17.0.1', '255.255.255.255', '224.0.0.251'):
    for port in (53, 123, 5353):
        attempt(f'{host} {port}', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (host, port))
            if not host.startswith('127') else 1 / 0)
""",
    ),
    goes(
        "names",
        """
for name in ('example.com', 'host.docker.internal', 'gateway.docker.internal', 'redis', 'metadata.google.internal'):
    attempt(name, lambda: socket.getaddrinfo(name, 80))
""",
    ),
    goes(
        "newer_addresses",
        """
for host in ('::1', 'fe80::1', '2001:4860:4860::8888', '::ffff:127.0.0.1'):
    attempt(host, lambda: reach(host, 6379, family=socket.AF_INET6))
""",
    ),
    goes(
        "interfaces",
        """
import re
found = set(re.findall(r'^\\s*(\\S+):', open('/proc/net/dev').read(), re.M)) - {'lo'}
if any(not name.startswith(('tunl', 'sit', 'ip6', 'gre', 'erspan', 'ip_vti',
    'Inter')) for name in found): breach(f'interfaces {found}')
routes = open('/proc/net/route').read().splitlines()[1:]
if routes: breach(f'routes {routes}')
""",
    ),
    goes(
        "abstract_sockets",
        """
names = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if "@" in line]
print(names)
for name in names + ["@/tmp/dbus", "@/containerd-shim/x.sock", "@toolweaver", "@/tmp/.X11-unix/X0"]:
    attempt(name, lambda: socket.socket(socket.AF_UNIX).connect("\\0" + name[1:]))
""",
    ),
    goes(
        "the_control_connection_again",
        """
for path in ("/run/toolweaver/host.sock", "/run/toolweaver/../toolweaver/host.sock", "/proc/1/root/run/toolweaver/host.sock"):
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        attempt(path, lambda: socket.socket(socket.AF_UNIX, kind).connect(path))
for line in open("/proc/net/unix").read().splitlines()[1:]:
    if "/" in line:
        path = line.split()[-1]
        attempt(path, lambda: socket.socket(socket.AF_UNIX).connect(path))
""",
    ),
    goes(
        "raw_packets",
        """
for protocol in (1, 6, 17, 255):
    attempt(f'raw {protocol}', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol))
    attempt(f'packet {protocol}', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, protocol))
attempt('ping', lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).sendto(bytes(8), ('8.8.8.8', 0)))
""",
    ),
    goes(
        "the_hypervisor",
        """
for cid in (0, 1, 2, 3):
    for port in (22, 52, 1024, 9999):
        attempt(f'{cid}:{port}', lambda: socket.socket(40, socket.SOCK_STREAM).connect((cid, port)))
""",
    ),
    goes(
        "routes_of_its_own",
        """
attempt('route', lambda: socket.socket(16, socket.SOCK_RAW, 0).bind((0, 0)))
import fcntl
attempt('address', lambda: fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0x8916, struct.pack('16sH2s4s8s', b'lo',
    2, b'', bytes(4), bytes(8))))
""",
    ),
]
