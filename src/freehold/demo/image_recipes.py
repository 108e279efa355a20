"""What the demo's images are made of: Debian packages, the example's own files, and how they start."""

from dataclasses import dataclass

RECIPE = "1"  # raised when a change of the builder gives other images; recipes themselves count by their content
BASE_PACKAGES = ("base-files", "base-passwd", "coreutils", "dash", "libc-bin", "libc6", "zlib1g")


@dataclass(frozen=True)
class Recipe:
    """One image over the base.

    Attributes:
        name: of the service and the folder.
        packages: Debian packages beside the base's.
        pruned: what of them is not needed.
        files: (source below the example's folder, place in the image).
        user: name and id that the service runs as.
        owned: folders made for that user.
        is_python: whether Python's modules are compiled ahead.
        config: arguments of `umoci config`.
    """

    name: str
    packages: tuple[str, ...]
    pruned: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    user: tuple[str, int]
    owned: tuple[str, ...]
    is_python: bool
    config: tuple[str, ...]


WEB = Recipe(
    name="web",
    packages=("gunicorn", "python3-minimal", "python3-redis"),
    pruned=(
        "usr/lib/python3*/idlelib",
        "usr/lib/python3*/lib2to3",
        "usr/lib/python3*/pydoc_data",
        "usr/lib/python3*/test",
        "usr/lib/python3*/turtledemo",
        "usr/share/python3",
    ),
    files=(("web/guestbook.py", "app/guestbook.py"), ("web/check.py", "app/check.py")),
    user=("guestbook", 1000),
    owned=(),
    is_python=True,
    config=(
        "--config.exposedports=8080/tcp",
        "--config.workingdir=/app",
        "--config.env=PYTHONDONTWRITEBYTECODE=1",
        "--config.env=PYTHONUNBUFFERED=1",
        "--config.entrypoint=/usr/bin/gunicorn",
        "--config.cmd=--bind=0.0.0.0:8080",
        "--config.cmd=--workers=1",
        "--config.cmd=--threads=8",
        "--config.cmd=--worker-tmp-dir=/dev/shm",
        "--config.cmd=--access-logfile=-",
        "--config.cmd=guestbook:app",
    ),
)
DB = Recipe(
    name="db",
    packages=("redis-server",),
    pruned=("usr/bin/redis-benchmark", "etc/redis", "var/lib/redis"),
    files=(("db/redis.conf", "etc/guestbook/redis.conf"),),
    user=("redis", 999),
    owned=("data",),
    is_python=False,
    config=(
        "--config.exposedports=6379/tcp",
        "--config.workingdir=/data",
        "--config.volume=/data",
        "--config.entrypoint=/usr/bin/redis-server",
        "--config.cmd=/etc/guestbook/redis.conf",
    ),
)
