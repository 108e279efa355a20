"""A small root file system out of this machine's own shell, coreutils and Python: as a folder, or as an EROFS image."""

import shutil
import subprocess
from pathlib import Path

PROGRAMS = (
    "/bin/sh",
    "/bin/cat",
    "/bin/ls",
    "/bin/sleep",
    "/bin/echo",
    "/usr/bin/id",
    "/usr/bin/env",
    "/usr/bin/python3",
)
FOLDERS = (
    "bin",
    "data",
    "dev",
    "etc",
    "home/user",
    "lib",
    "lib64",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr/bin",
    "var",
)
SETUID = "bin/suid-python"


def build_image(folder: Path) -> Path:
    """Build `image.erofs` in a folder; as good as an OCI image that the node has unpacked."""
    root, image = folder / "root", folder / "image.erofs"
    build_root(root)
    subprocess.run(["mkfs.erofs", "-T0", "--quiet", image, root], check=True, capture_output=True)
    shutil.rmtree(root)
    return image


def build_root(root: Path) -> None:
    """Build the root file system as a folder."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for program in PROGRAMS:
        _copy_program(Path(program), root)
    shutil.copy(root / "bin/python3", root / SETUID)
    (root / SETUID).chmod(0o4755)
    shutil.copytree(
        "/usr/lib/python3.11",
        root / "usr/lib/python3.11",
        ignore=shutil.ignore_patterns("test", "__pycache__", "config-*", "idlelib", "lib2to3", "ensurepip"),
        symlinks=True,
    )
    for library in (root / "usr/lib/python3.11/lib-dynload").glob("_ctypes*.so"):
        _copy_libraries(library, root)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
    (root / "data/seed").write_text("from the image\n")


def _copy_program(program: Path, root: Path) -> None:
    real = program.resolve()
    _copy_libraries(real, root)
    shutil.copy(real, root / "bin" / program.name)


def _copy_libraries(real: Path, root: Path) -> None:
    listing = subprocess.run(["ldd", real], capture_output=True, text=True, check=True).stdout
    for word in listing.split():
        if word.startswith("/"):
            target = root / word.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(word, target)
