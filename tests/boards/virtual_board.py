"""A whole arm64 computer in qemu: Debian's kernel, and in its memory busybox and dropbear.

It is a bare board as far as a user's goes: an ssh server, a shell, no sftp, no Python. `make_image`
makes it of Debian's packages, `VirtualBoard` boots it:

    python -m tests.boards.virtual_board        makes the image, where there is none
"""

import shutil
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

IMAGE = Path(__file__).parents[2] / "build" / "virtual-board"
QEMU = "qemu-system-aarch64"
HOST, USER = "raspberrypi.local", "pi"  # as its owner calls it: docs/boards.md
URL = f"ssh://{USER}@{HOST}"
BOOT_S = 90  # on an idle machine a quarter of it
# What it says it is, by its CPU, in as many letters as qemu's own name for it has.
MODELS = {"cortex-a72": b"Raspberry Pi 4 B", "cortex-a76": b"Raspberry Pi 5 B"}
_QEMUS_MODEL = b"linux,dummy-virt"

_PACKAGES = (
    *("linux-image-arm64", "busybox-static"),
    *("dropbear-bin", "libc6", "libcrypt1", "libtomcrypt1", "libtommath1", "libgmp10", "zlib1g"),
)
_MODULES = (
    *("drivers/virtio/virtio_mmio", "net/core/failover"),
    *("drivers/net/net_failover", "drivers/net/virtio_net"),
)
_PROGRAMS = (  # where they are put, and which
    ("bin", "bin/busybox"),
    ("bin", "usr/sbin/dropbear"),
    ("bin", "usr/bin/dropbearkey"),
    ("lib", "**/ld-linux-aarch64.so.1"),
    ("lib", "**/aarch64-linux-gnu/*.so.*"),
)
_READY = "virtual board: "  # before its host key, on the console
_INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
for module in /modules/*.ko; do insmod $module; done
hostname {HOST.partition(".")[0]}
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
chown -R 1000:1000 /home/{USER}
dropbearkey -t ed25519 -f /key >/dev/null
dropbear -s -r /key
echo "{_READY}$(dropbearkey -y -f /key | grep ^ssh-ed25519)"
while :; do sleep 1000; done
"""


def make_image(folder: Path) -> None:
    """`folder` gets the kernel and what is in its memory when it begins, without any key."""
    with TemporaryDirectory(prefix="virtual-board-") as name:
        work = Path(name)
        _download(work)
        root = work / "root"
        for package in work.glob("*.deb"):
            subprocess.run(("dpkg-deb", "-x", package, root), check=True)
        (modules,) = (root / "lib" / "modules").iterdir()
        files = {"init": (_INIT.encode(), 0o755), **_accounts()}
        for number, module in enumerate(_MODULES):  # each needs those before it
            content = (modules / "kernel" / f"{module}.ko").read_bytes()
            files[f"modules/{number}.ko"] = content, 0o644
        for place, pattern in _PROGRAMS:
            for path in sorted(root.glob(pattern)):
                files[f"{place}/{path.name}"] = path.read_bytes(), 0o755
        for place in ("proc", "sys", "dev", "tmp"):
            files[place] = b"", stat.S_IFDIR | 0o755
        (kernel,) = (root / "boot").glob("vmlinuz-*")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(kernel, folder / "kernel")
        (folder / "memory.part").write_bytes(_cpio(files))
        (folder / "memory.part").rename(folder / "memory")


def _download(folder: Path) -> None:
    """Debian's packages for arm64, by an apt of its own: that of this machine is not touched."""
    for place in ("lists/partial", "archives/partial"):
        (folder / place).mkdir(parents=True)
    (folder / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": folder,
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    subprocess.run((*apt, "update"), check=True, cwd=folder)
    depends = ("apt-cache", *apt[1:], "depends", "--important", _PACKAGES[0])
    listed = subprocess.run(depends, check=True, cwd=folder, capture_output=True, text=True)
    kernel = listed.stdout.rpartition("Depends: ")[2].strip()  # that package names another
    subprocess.run((*apt, "download", kernel, *_PACKAGES[1:]), check=True, cwd=folder)


_Files = dict[str, tuple[bytes, int]]  # path: (content, mode)


def _accounts() -> _Files:
    return {
        "etc/passwd": (
            f"root:x:0:0::/:/bin/sh\n{USER}:x:1000:1000::/home/{USER}:/bin/sh\n".encode(),
            0o644,
        ),
        "etc/group": (f"root:x:0:\n{USER}:x:1000:\n".encode(), 0o644),
        "etc/shells": (b"/bin/sh\n", 0o644),
    }


def _cpio(files: _Files) -> bytes:
    """An archive that Linux unpacks into its first file system, with the folders that it needs."""
    folders = {str(parent) for name in files for parent in Path(name).parents} - {"."}
    whole = dict.fromkeys(sorted(folders), (b"", stat.S_IFDIR | 0o755)) | files
    archive = bytearray()
    for number, (name, (content, mode)) in enumerate([*whole.items(), ("TRAILER!!!", (b"", 0))], 1):
        kind = mode if stat.S_IFMT(mode) else stat.S_IFREG | mode
        path = name.encode() + b"\0"
        fields = (number, kind, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        archive += bytes(-len(archive) % 4) + content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _called(tree: bytes, model: bytes) -> bytes:
    """A flattened device tree with another name of the machine, as long as the one that it has.

    Without the room that qemu leaves for more, with which it is too large for Linux.
    """
    structure, names, names_bytes, structure_bytes = (
        struct.unpack_from(">I", tree, place)[0] for place in (8, 12, 32, 36)
    )
    end = max(structure + structure_bytes, names + names_bytes)
    value = len(_QEMUS_MODEL) + 1, tree.index(b"\0model\0", names) + 1 - names
    old, new = (struct.pack(">II", *value) + name for name in (_QEMUS_MODEL, model))
    assert tree.count(old) == 1
    assert len(old) == len(new)
    return tree[:4] + struct.pack(">I", end) + tree[8:end].replace(old, new)


class VirtualBoard:
    """One that is on. `bin`: a folder with an `ssh` that knows HOST and its key, for PATH."""

    def __init__(self, folder: Path, cpu: str) -> None:
        self._folder, self.cpu, self.bin = folder, cpu, folder / "bin"
        self._port = _free_port()
        command = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
        subprocess.run(command, check=True)
        home = f"home/{USER}"
        keys = {
            home: (b"", stat.S_IFDIR | 0o755),
            f"{home}/.ssh/authorized_keys": ((folder / "key.pub").read_bytes(), 0o600),
        }
        memory = (IMAGE / "memory").read_bytes()
        (folder / "memory").write_bytes(memory + _cpio(keys))
        (folder / "ssh_config").write_text(
            f"Host {HOST}\n HostName 127.0.0.1\n Port {self._port}\n IdentityFile {folder}/key\n"
            f" IdentitiesOnly yes\n UserKnownHostsFile {folder}/known_hosts\n"
            f" GlobalKnownHostsFile none\n HostKeyAlias {HOST}\n"
        )
        machine = f"virt,dumpdtb={folder}/qemus_tree"
        subprocess.run((QEMU, "-M", machine, *self._devices()), check=True, capture_output=True)
        tree = _called((folder / "qemus_tree").read_bytes(), MODELS[cpu])
        (folder / "tree").write_bytes(tree)
        self.bin.mkdir()
        client = self.bin / "ssh"
        client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        client.chmod(0o755)

    def start(self) -> None:
        """Boot it; the console tells when it is ready, and its host key."""
        console = self._folder / "console"
        console.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            (
                *(QEMU, "-M", "virt", *self._devices(), "-serial", f"file:{console}"),
                *("-kernel", IMAGE / "kernel", "-initrd", self._folder / "memory"),
                *("-dtb", self._folder / "tree", "-append", "console=ttyAMA0 quiet panic=-1"),
            ),
            stdin=subprocess.DEVNULL,
        )
        began = time.monotonic()
        while _READY not in (said := console.read_text() if console.exists() else ""):
            assert self._process.poll() is None, said
            assert time.monotonic() - began < 4 * BOOT_S, said
            time.sleep(0.2)
        self.boot_s = time.monotonic() - began
        time.sleep(0.2)
        key = console.read_text().partition(_READY)[2].splitlines()[0]
        (self._folder / "known_hosts").write_text(f"{HOST} {key}\n")

    def _devices(self) -> tuple[str, ...]:
        return (
            *("-cpu", self.cpu, "-smp", "4", "-m", "1G", "-no-reboot"),
            *("-display", "none", "-monitor", "none"),
            *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22"),
            *("-device", "virtio-net-device,netdev=net"),
        )

    def stop(self) -> None:
        """As when the plug is pulled."""
        self._process.kill()
        self._process.wait()

    def shell(self, command: str) -> str:
        """What a shell on it prints, for a look from the side."""
        ssh: Sequence[str | Path] = (self.bin / "ssh", "-T", f"{USER}@{HOST}", command)
        return subprocess.run(ssh, check=True, capture_output=True, text=True).stdout


@contextmanager
def booted(cpu: str) -> Iterator[VirtualBoard]:
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="virtual-board-"))
        board = VirtualBoard(Path(folder), cpu)
        stack.callback(board.stop)
        board.start()
        yield board


def missing() -> str | None:
    """Why it cannot be booted; None if it can."""
    if not (IMAGE / "memory").exists() or shutil.which(QEMU) is None:
        return "the virtual board: make test-board"
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    if not (IMAGE / "memory").exists():
        make_image(IMAGE)
