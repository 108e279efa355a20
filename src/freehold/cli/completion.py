"""`freehold completion`: a static script, so that a TAB starts no Python."""

from typing import Literal

from freehold.cli.output import Json, Result


def completion(shell: Literal["bash", "zsh", "fish"] = "bash", /, *, json: Json = False) -> Result:
    """Print a completion script: `freehold completion bash > /etc/bash_completion.d/freehold`.

    Parameters
    ----------
    shell
        Which shell it is for.
    """
    from freehold.cli.main import make_app  # main names this module: imported when called

    script = make_app(summaries=True).generate_completion(shell=shell)
    return Result({"shell": shell, "script": script}, script)
