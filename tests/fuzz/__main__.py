"""`python tests/fuzz [TARGET ...] [--seconds N]`: coverage-guided fuzzing by atheris, one process a target.

Needs the dependency group `fuzz` (`make fuzz` makes an environment with it). A finding's input is written beside the
others and its error printed; the exit code is 1 then.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
MAX_LEN = 8_192


def main() -> int:
    """Fuzz each target in turn."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return _fuzz(options.targets[0], options.seconds)
    failed = []
    for name in options.targets or _names():
        sys.stderr.write(f"fuzzing {name} for {options.seconds} s\n")
        command = [sys.executable, str(FOLDER), name, "--here", "--seconds", str(options.seconds)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    sys.stdout.write(f"findings in: {', '.join(failed)}\n" if failed else "no findings\n")
    return 1 if failed else 0


def _names() -> list[str]:
    sys.path.insert(0, str(FOLDER))
    from targets import TARGETS

    return list(TARGETS)


def _fuzz(name: str, seconds: int) -> int:
    import atheris

    sys.path.insert(0, str(FOLDER))
    with atheris.instrument_imports(include=["freehold"]):
        from targets import FINDINGS, TARGETS, seeds
    found = FINDINGS / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-max_len={MAX_LEN}", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], corpus, *limits, f"-artifact_prefix={found}/", "-verbosity=0"], TARGETS[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
