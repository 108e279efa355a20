"""`freehold`: parses, calls, prints, and turns every error into its exit code."""

import os
import sys
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
        say(f"error: {error}; this is a defect of Freehold: please report it with this line")
        return ExitCode.FAILED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    if isinstance(result, Result):
        print_result(result, as_json=as_json)
        return result.exit_code
    return ExitCode.DONE


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
