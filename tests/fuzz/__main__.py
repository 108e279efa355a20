"""`python tests/fuzz [TARGET ...] [--seconds N]`: coverage-guided fuzzing by atheris, one process a target.

Needs the dependency group `fuzz` (`make fuzz` makes an environment with it). A finding's input is written beside the
others and its error printed; the exit code is 1 then.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
MAX_LEN = 8_192
_PROGRESS = re.compile(r"#(\d+)\s+(?!READ)[A-Za-z]+\s+cov: (\d+)")
# What libFuzzer tells while all is well.
_NOISE = re.compile(r"INFO: |WARNING: Failed to find function|#\d|###### |\s*$|\"|Done |NEW_FUNC")


def main() -> int:
    """Fuzz each target in turn."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        return _fuzz(options.targets[0], options.seconds)
    failed = [name for name in options.targets or _names() if _run(name, options.seconds)]
    sys.stdout.write(f"findings in: {', '.join(failed)}\n" if failed else "no findings\n")
    return 1 if failed else 0


def _run(name: str, seconds: int) -> int:
    """Fuzz in a process of its own; tell what it covers, at the seeds and at the end, and every line of a finding."""
    command = [sys.executable, str(FOLDER), name, "--here", "--seconds", str(seconds)]
    covered, runs = [], ""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        for line in child.stderr or ():
            if progress := _PROGRESS.match(line):
                runs = progress[1]
                covered.append(progress[2])
            elif not _NOISE.match(line):
                sys.stderr.write(line)
    edges = f"{covered[0]} edges at the seeds, {covered[-1]} at the end" if covered else "nothing was told"
    sys.stdout.write(f"{name}: {runs} runs in {seconds} s; {edges}\n")
    sys.stdout.flush()
    return child.returncode


def _names() -> list[str]:
    sys.path.insert(0, str(FOLDER))
    from targets import TARGETS

    return list(TARGETS)


def _fuzz(name: str, seconds: int) -> int:
    import atheris

    sys.path.insert(0, str(FOLDER))
    with atheris.instrument_imports(include=["freehold"]):
        from seeds import FINDINGS, seeds
        from targets import TARGETS
    found = FINDINGS / name
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-max_len={MAX_LEN}", "-timeout=10", "-rss_limit_mb=2048"]
        atheris.Setup([sys.argv[0], corpus, *limits, f"-artifact_prefix={found}/", "-verbosity=1"], TARGETS[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
