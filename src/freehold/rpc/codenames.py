"""Names of result codes, as answers show them."""

from freehold.ledger.codes import Code


def code_name(code: int) -> str:
    """The stable name of a result code."""
    try:
        return Code(code).name
    except ValueError:
        return f"CODE_{code}"
