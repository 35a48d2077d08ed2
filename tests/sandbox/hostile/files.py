"""Programs that look for the host's files, the engine, other secrets, or a place to write and to run from."""

from __future__ import annotations

from tests.sandbox.hostile.program import Hostile


def looks(name: str, code: str, *, note: str = "") -> Hostile:
    """An attack on files that comes to its end. What it can read it prints, so that a planted secret would be seen."""
    return Hostile(name, "files", code + "\nheld()\n", note=note)


_WRITE = [
    looks(
        "write_in_every_folder",
        """
seen = 0
for folder, names, _ in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/tmp", "/dev/shm", "/dev/mqueue")):
        names.clear()
        continue
    seen += 1
    path = os.path.join(folder, ".left-behind")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    except OSError:
        continue
    breach(f"a file in {folder}")
print(seen, "folders")
""",
    ),
    looks(
        "write_to_every_file",
        """
seen = 0
for folder, names, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/tmp", "/dev")):
        names.clear()
        continue
    for file in files:
        path = os.path.join(folder, file)
        if os.path.islink(path):
            continue
        seen += 1
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK))
        except OSError:
            continue
        breach(f"{path} can be written")
print(seen, "files")
""",
    ),
    looks(
        "change_the_runner",
        """
for folder in ("/opt/toolweaver", "/opt", "/usr/lib/python3", os.path.dirname(os.__file__), "/etc", "/run/toolweaver"):
    for name in [""] + (os.listdir(folder) if os.access(folder, os.R_OK) else []):
        path = os.path.join(folder, name)
        for what, action in (
            ("chmod", lambda: os.chmod(path, 0o777)),
            ("chown", lambda: os.chown(path, os.getuid(), -1)),
            ("utime", lambda: os.utime(path)),
            ("rename", lambda: os.rename(path, path + ".old")),
            ("setxattr", lambda: os.setxattr(path, "user.x", b"y")),
        ):
            attempt(f"{what} {path}", action)
attempt("unlink", lambda: os.unlink("/opt/toolweaver/runner.py"))
""",
    ),
    looks(
        "links_out_of_tmp",
        """
for target in ("/etc/passwd", "/opt/toolweaver/runner.py", "/usr/bin/env", "/proc/1/environ", "/run/toolweaver/x"):
    link = "/tmp/" + target.replace("/", "_")
    os.symlink(target, link)
    attempt(f"write through {link}", lambda: open(link, "a"))
    attempt(f"hard link to {target}", lambda: os.link(target, link + ".hard"))
attempt("rename out", lambda: os.rename("/tmp/_etc_passwd", "/etc/passwd2"))
attempt("link out", lambda: os.symlink("/tmp", "/opt/link"))
""",
    ),
    looks(
        "kernel_settings",
        """
written = 0
for folder, _, files in os.walk("/proc/sys"):
    for file in files:
        try:
            os.close(os.open(os.path.join(folder, file), os.O_WRONLY))
        except OSError:
            continue
        breach(f"{folder}/{file}")
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
    "/proc/irq/0/smp_affinity", "/proc/bus/pci", "/proc/sys/fs/binfmt_misc/register", "/proc/latency_stats", "/proc/timer_stats",
    "/proc/scsi/scsi", "/proc/mtrr"):
    attempt(path, lambda: open(path, "w"))
""",
    ),
    looks(
        "devices_of_the_kernel_tree",
        """
seen = 0
for folder, names, files in os.walk("/sys"):
    for file in files:
        path = os.path.join(folder, file)
        seen += 1
        try:
            if os.lstat(path).st_mode & 0o222:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                breach(path)
        except OSError:
            pass
    if seen > 20_000:
        break
for path in ("/sys/kernel/uevent_helper", "/sys/firmware/efi/efivars", "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state"):
    attempt(path, lambda: open(path, "w"))
""",
    ),
    looks(
        "own_limits",
        """
for path in ("/proc/self/oom_score_adj", "/proc/1/oom_score_adj"):
    attempt(path, lambda: open(path, "w").write("-1000"))
attempt("uid_map", lambda: open("/proc/self/uid_map", "w").write("0 0 1"))
attempt("setgroups", lambda: open("/proc/self/setgroups", "w").write("deny"))
attempt("loginuid", lambda: open("/proc/self/loginuid", "w").write("0"))
for label in ("exec", "current"):
    try:
        open(f"/proc/self/attr/{label}", "w").write("changeprofile unconfined")
        if "unconfined" in open(f"/proc/self/attr/{label}").read():
            breach(f"the label {label}")
    except OSError:
        pass
""",
    ),
    looks(
        "control_groups",
        """
for folder, names, files in os.walk("/sys/fs/cgroup"):
    for file in files:
        attempt(f"{folder}/{file}", lambda: os.open(f"{folder}/{file}", os.O_WRONLY))
    attempt(f"a group in {folder}", lambda: os.mkdir(f"{folder}/mine"))
    attempt(f"a file in {folder}", lambda: open(f"{folder}/mine", "w"))
""",
        note="release_agent, cgroup.procs, memory.limit_in_bytes, devices.allow",
    ),
]

_RUN = [
    looks(
        "run_from_tmp",
        """
import shutil, subprocess
for folder in ("/tmp", "/dev/shm", "/dev/mqueue", "/run", "/var/tmp", "/dev"):
    script = f"{folder}/script"
    try:
        open(script, "w").write("#!/bin/sh\\necho ran\\n")
        os.chmod(script, 0o6777)
        shutil.copy(os.path.realpath(sys.executable), f"{folder}/copy")
        os.chmod(f"{folder}/copy", 0o6777)
    except OSError:
        continue
    attempt(script, lambda: subprocess.run([script], capture_output=True, check=True).stdout)
    attempt(f"{folder}/copy", lambda: subprocess.run([f"{folder}/copy", "-c", "print(1)"], capture_output=True, check=True).stdout)
""",
    ),
    looks(
        "run_from_tmp_by_the_loader",
        """
import glob, shutil, subprocess
shutil.copy(os.path.realpath(sys.executable), "/tmp/copy")
for loader in glob.glob("/lib64/ld-*") + glob.glob("/lib/ld-*"):
    attempt(loader, lambda: subprocess.run([loader, "/tmp/copy", "-c", "print(1)"], capture_output=True, check=True).stdout)
""",
    ),
    looks(
        "load_a_library_from_tmp",
        """
import glob, shutil
source = next(iter(glob.glob("/usr/lib/*/libz.so.1") + glob.glob("/lib/*/libz.so.1") + glob.glob("/lib/*/libm.so.6")), None)
for folder in ("/tmp", "/dev/shm"):
    try:
        shutil.copy(os.path.realpath(source), f"{folder}/lib.so")
    except OSError:
        continue
    attempt(f"{folder}/lib.so", lambda: ctypes.CDLL(f"{folder}/lib.so"))
""",
    ),
    looks(
        "tmp_is_as_promised",
        """
for line in open("/proc/self/mountinfo"):
    before, after = line.split(" - ")
    where, options, kind = before.split()[4], set(before.split()[5].split(",")), after.split()[0]
    if where in ("/tmp", "/dev/shm", "/dev/mqueue") and not {"noexec", "nosuid", "nodev"} <= options:
        breach(f"{where} {sorted(options)}")
    if "rw" in options and where not in ("/sys/fs/cgroup", "/tmp", "/dev/shm", "/dev/mqueue", "/dev", "/dev/pts",
        "/dev/console") and kind not in ("proc", "devpts") and not where.startswith("/proc/"):
        breach(f"{where} ({kind}) can be written: {sorted(options)}")
    if where in ("/", "/run/toolweaver", "/sys") and "ro" not in options:
        breach(f"{where} {sorted(options)}")
""",
    ),
]

_READ = [
    looks(
        "secrets_in_environments",
        """
print(dict(os.environ))
for name in os.environ:
    if any(word in name.upper() for word in ("SECRET", "TOKEN", "PASSW", "API_KEY", "REDIS", "DOCKER", "BROKER", "CREDENTIAL")):
        breach(f"the variable {name}")
for pid in filter(str.isdigit, os.listdir("/proc")):
    for file in ("environ", "cmdline"):
        try:
            print(open(f"/proc/{pid}/{file}", "rb").read().decode("utf-8", "replace").split("\\0"))
        except OSError:
            pass
""",
    ),
    looks(
        "passwords",
        """
for path in ('/etc/shadow', '/etc/gshadow', '/etc/shadow-', '/root/.ssh/id_rsa', '/root', '/var/lib/docker', '/etc/ssl/private'):
    attempt(path, lambda: open(path).read() if not os.path.isdir(path) else os.listdir(path) or 1 / 0)
""",
    ),
    looks(
        "host_file_by_many_ways",
        """
path = input_data["host_file"]
for before in ("", "/host", "/mnt", "/proc/1/root", "/proc/self/root", "/rootfs", "/run/toolweaver/..", "/tmp/../../../..",
    "/proc/self/cwd/../../../../..", "/.."):
    attempt(before + path, lambda: open(before + path).read())
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("root", "cwd"):
        attempt(f"{pid} {name}", lambda: open(f"/proc/{pid}/{name}{path}").read())
for fd in range(3, 64):
    for up in ("", "..", "../..", "../../..", "../../../..", "../../../../.."):
        attempt(f"descriptor {fd} {up}", lambda: open(f"/proc/self/fd/{fd}/{up}{path}").read())
""",
        note="the attacker knows the path of the planted file on the host",
    ),
    looks(
        "folders_left_open",
        """
for fd in range(1024):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    shown = os.readlink(f"/proc/self/fd/{fd}")
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        breach(f"descriptor {fd} is {shown}")
    if "cgroup" in shown or "docker" in shown:
        breach(f"descriptor {fd} is {shown}")
""",
        note="a descriptor that the engine forgot leads out of the container",
    ),
    looks(
        "paths_in_mountinfo",
        """
import re
text = open("/proc/self/mountinfo").read() + open("/proc/mounts").read()
for path in sorted(set(re.findall(r"/[^\\s,:=]+", text))):
    if any(part in path for part in ("docker", "overlay", "containerd", "upper", "diff",
        "toolweaver")) and not path.startswith(("/run/toolweaver", "/sys/", "/proc/")):
        attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path).read())
""",
    ),
    looks(
        "engine_socket",
        """
known = ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
    "/run/crio/crio.sock", "/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/notify", "/dev/log",
    "/run/udev/control", "/run/toolweaver/host.sock"]
for folder, names, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        names.clear()
    for file in files:
        path = os.path.join(folder, file)
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                known.append(path)
        except OSError:
            pass
for path in known:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        attempt(f"connect {path}", lambda: socket.socket(socket.AF_UNIX, kind).connect(path))
""",
    ),
    looks(
        "socket_folder",
        """
if os.path.isdir("/run/toolweaver"):
    try:
        found = os.listdir("/run/toolweaver")
    except OSError:
        found = []
    if found:
        breach(f"left in the folder: {found}")
    attempt("a file", lambda: open("/run/toolweaver/x", "w"))
    attempt("a socket", lambda: socket.socket(socket.AF_UNIX).bind("/run/toolweaver/host.sock"))
    attempt("a link", lambda: os.symlink("/etc/passwd", "/run/toolweaver/host.sock"))
    attempt("a folder", lambda: os.mkdir("/run/toolweaver/sub"))
    attempt("the way up", lambda: [n for n in os.listdir("/run/toolweaver/..") if n not in os.listdir("/run")][0])
""",
    ),
    looks(
        "devices",
        """
for name in ("mem", "kmem", "port", "kmsg", "kvm", "fuse", "net/tun", "vhost-net", "vhost-vsock", "loop-control", "loop0", "vda",
    "vda1", "sda", "nvme0n1", "mapper/control", "dri/card0", "nvidia0", "rtc", "hpet", "cpu/0/msr", "snapshot", "uinput",
    "autofs", "btrfs-control", "userfaultfd", "vsock"):
    attempt(f"/dev/{name}", lambda: os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
for folder, _, files in os.walk("/dev"):
    for file in files:
        if stat.S_ISBLK(os.lstat(os.path.join(folder, file)).st_mode):
            breach(f"block device {folder}/{file}")
""",
    ),
    looks(
        "files_of_the_kernel",
        """
for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/kmsg", "/proc/kpagecount",
    "/proc/kpageflags", "/proc/vmallocinfo", "/proc/slabinfo", "/proc/1/syscall", "/proc/iomem", "/proc/acpi/wakeup",
    "/sys/firmware/dmi/tables/DMI", "/sys/kernel/debug", "/sys/kernel/security/lsm", "/sys/kernel/tracing/trace"):
    try:
        got = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(4096)
    except OSError:
        continue
    if got and not (path == "/proc/iomem" and b"-00000000 " in got):
        breach(f"{path}: {got[:60]!r}")
with open("/proc/self/maps") as maps:
    maps.read()
""",
    ),
    looks(
        "kernel_addresses",
        """
shown = [line for line in open("/proc/kallsyms") if not line.startswith("0" * 16)][:3] if os.path.exists("/proc/kallsyms") else []
if shown:
    breach(f"addresses of the kernel: {shown}")
""",
    ),
    looks(
        "other_processes",
        """
print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))
if len([p for p in os.listdir('/proc') if p.isdigit()]) > 8: breach('processes that are not mine')
print(open('/proc/1/cmdline').read(), open('/proc/1/cgroup').read())
""",
    ),
    looks(
        "read_everything",
        """
wanted = ("toolweaver-" + "canary-").encode()
for folder, names, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys", "/usr")):
        names.clear()
        continue
    for file in files:
        path = os.path.join(folder, file)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                data = os.read(fd, 1 << 20)
                if wanted in data:
                    breach(f"a secret in {path}: {data[data.index(wanted):][:40]!r}")
            os.close(fd)
        except OSError:
            pass
for path in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc/version", "/proc/cmdline", "/proc/mounts"):
    try:
        print(open(path).read())
    except OSError:
        pass
""",
    ),
]

PROGRAMS: list[Hostile] = _WRITE + _RUN + _READ
