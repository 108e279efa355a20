"""`freehold`: parses, calls, prints, and turns every error into its exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from freehold.base.errors import ExitCode, FreeholdError, InvalidInputError, InvariantError
from freehold.cli.output import Result, print_error, print_result, say

INTERRUPTED = 130

HELP = """A peer-to-peer cloud: deploy a compose file by contract, pay per proven epoch, verify offline.

Start a grid on this machine with `freehold grid up`, make a wallet with `freehold wallet new`, import an image with
`freehold image import`, look at the price with `freehold deploy compose.yaml --plan`, then deploy.

Every command takes `--json`: one JSON document on stdout, everything else on stderr. Exit codes: 0 done, 1 failed,
2 wrong use or invalid input, 3 refused by ledger or policy, 4 unreachable or timed out, 5 not verified.
"""

# Group or command -> where it lives; imported only when it is called, so that `--help` and completion stay quick.
COMMANDS = {
    "wallet": "freehold.cli.wallet:app",
    "grid": "freehold.cli.grid:app",
    "ledger": "freehold.cli.ledger:app",
    "status": "freehold.cli.status:status",
    "node": "freehold.cli.node:app",
    "image": "freehold.cli.image:app",
    "compose": "freehold.cli.compose:app",
    "deploy": "freehold.cli.deploy:deploy",
    "ps": "freehold.cli.services:ps",
    "logs": "freehold.cli.services:logs",
    "connect": "freehold.cli.connect:connect",
    "events": "freehold.cli.events:events",
    "verify": "freehold.cli.verify:verify",
    "topup": "freehold.cli.services:topup",
    "down": "freehold.cli.services:down",
    "completion": "freehold.cli.completion:completion",
}


def make_app() -> App:
    """The command tree, unloaded."""
    app = App(name="freehold", help=HELP, result_action="return_value", version_flags=["--version"])
    for name, target in COMMANDS.items():
        app.command(target, name=name)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = "--json" in arguments
    try:
        result = make_app()(list(arguments), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        hint = "add --help to the command to see what it takes"
        print_error(InvalidInputError(str(error), code="bad_usage", hint=hint), as_json=as_json)
        return ExitCode.INVALID
    except FreeholdError as error:
        print_error(error, as_json=as_json)
        return error.exit_code
    except InvariantError as error:
        print_error(_defect(str(error)), as_json=as_json)
        return ExitCode.FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except OSError as error:
        print_error(_system_error(error), as_json=as_json)
        return ExitCode.FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except Exception as error:  # the last stop: a defect too is told as one document, and ends the command
        sys.stderr.write(traceback.format_exc())
        print_error(_defect(f"{type(error).__name__}: {error}"), as_json=as_json)
        return ExitCode.FAILED
    if isinstance(result, Result):
        print_result(result, as_json=as_json)
        return result.exit_code
    return ExitCode.DONE


def _defect(what: str) -> FreeholdError:
    return FreeholdError(what, code="defect", hint="this is a defect of Freehold: please report it with these lines")


def _system_error(error: OSError) -> FreeholdError:
    """What the operating system refused, such as a full disk or a folder that belongs to somebody else."""
    place = f" ({error.filename})" if error.filename else ""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "free some disk space" if full else "see that FREEHOLD_HOME is a folder that you may write to"
    return FreeholdError(f"{error.strerror or error}{place}", code="disk_full" if full else "system_error", hint=hint)


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
