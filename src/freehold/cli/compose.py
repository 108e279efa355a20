"""`freehold compose`: look at a compose file without a grid."""

import os
from pathlib import Path

from cyclopts import App

from freehold.base.errors import ExitCode
from freehold.cli.output import Json, Result
from freehold.client.compose.folder import check_file

app = App(name="compose", help="Check compose files; needs no grid.")


@app.command
def check(file: Path, /, *, json: Json = False) -> Result:
    """Check a compose file: what is supported, and every problem by path and line.

    Parameters
    ----------
    file
        The compose file; variables come from the environment and from `.env` beside it.
    """
    found = check_file(file, os.environ)
    lines = [
        f"{file}:{problem.line}: {problem.path}: {problem.message}" + (f"\n    {problem.hint}" if problem.hint else "")
        for problem in found.problems
    ]
    lines.append(f"{file}: {'ok' if found.ok else 'not deployable'}: services {', '.join(found.services) or 'none'}")
    return Result(found.as_json(), "\n".join(lines), ExitCode.DONE if found.ok else ExitCode.INVALID)
