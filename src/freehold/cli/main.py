"""`freehold`: parses, calls, prints, and turns every error into its exit code."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter

from freehold.base.errors import ExitCode, FreeholdError, InvalidInputError, InvariantError
from freehold.cli.output import Result, print_error, print_result, say

INTERRUPTED = 130

HELP = """A peer-to-peer cloud: deploy a compose file by contract, pay per proven epoch, verify offline.

Start a grid on this machine with `freehold grid up`, make a wallet with `freehold wallet new`, import an image with
`freehold image import`, look at the price with `freehold deploy compose.yaml --plan`, then deploy.

Every command takes `--json`: one JSON document on stdout, everything else on stderr. Exit codes: 0 done, 1 failed,
2 wrong use or invalid input, 3 refused by ledger or policy, 4 unreachable or timed out, 5 not verified.
"""

# Group or command -> where it lives, and its line in `freehold --help`; imported only when it is called, so that
# `--help` and completion stay quick.
COMMANDS = {
    "wallet": ("freehold.cli.wallet:app", "Make a wallet, see its balance, send tokens."),
    "grid": ("freehold.cli.grid:app", "Start and stop a grid on this machine."),
    "ledger": ("freehold.cli.ledger:app", "Run a ledger of many validators, on CometBFT."),
    "status": ("freehold.cli.status:status", "Show the ledger and the grid in a glance."),
    "node": ("freehold.cli.node:app", "List nodes, look at one, run one."),
    "image": ("freehold.cli.image:app", "Import images and list them."),
    "compose": ("freehold.cli.compose:app", "Check compose files; needs no grid."),
    "deploy": ("freehold.cli.deploy:deploy", "Deploy a compose file by contract; --plan shows the price first."),
    "ps": ("freehold.cli.services:ps", "List your services: where they run, what they cost, until when."),
    "logs": ("freehold.cli.services:logs", "Print a service's log."),
    "connect": ("freehold.cli.connect:connect", "Open a service's port on this machine."),
    "events": ("freehold.cli.events:events", "List what happened on the ledger lately."),
    "history": ("freehold.cli.history:history", "List all that happened: of an account, a service, a farm."),
    "tx": ("freehold.cli.history:tx", "Show what a transaction did."),
    "block": ("freehold.cli.history:block", "Show a block, checked against its signatures."),
    "verify": ("freehold.cli.verify:verify", "Verify what was served, or a proof file, offline."),
    "topup": ("freehold.cli.services:topup", "Prepay a service for longer."),
    "down": ("freehold.cli.services:down", "End a deployment; what was not served comes back."),
    "completion": ("freehold.cli.completion:completion", "Print a completion script for your shell."),
}


def make_app(*, summaries: bool = False) -> App:
    """The command tree, unloaded.

    Args:
        summaries: give each command its line for a list of commands; it takes the place of the command's own help.
    """
    flags = Parameter(negative=(), show_default=_shown)  # only what someone can mean: no --no-json, no [default: False]
    app = App(
        name="freehold",
        help=HELP,
        result_action="return_value",
        version_flags=["--version"],
        default_parameter=flags,
        suppress_keyboard_interrupt=False,  # told by `run`, as every end of a command
    )
    for name, (target, summary) in COMMANDS.items():
        app.command(target, name=name, **({"help": summary} if summaries else {}))
    return app


def _shown(value: Any) -> str | None:
    """A default as help shows it; that a flag is off, or nothing given, needs no word."""
    return None if value in (None, "") or isinstance(value, bool) else str(value)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = "--json" in arguments
    try:
        listing = not arguments or arguments[0].startswith("-")
        result = make_app(summaries=listing)(list(arguments), exit_on_error=False, print_error=False)
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
