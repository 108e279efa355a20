"""Whom an event concerns, by its attributes: what history can be asked about."""

import re
from typing import Final

from freehold.base.errors import InvalidInputError
from freehold.indexer.records import BlockEvent

MAX_SUBJECTS: Final = 12  # of one question
_SUBJECT: Final = re.compile(r"(?:G[A-Z2-7]{55}|[0-9a-f]{64})\Z", re.ASCII)
# Attributes that name somebody or something; any other text (a farm's name, a reason) is nobody's.
_NAMING: Final = (
    "sender",
    "to",
    "farm",
    "tenant",
    "node",
    "lease",
    "deployment",
    "challenge",
    "challenger",
    "validator",
    "owner",
)


def subjects_of(event: BlockEvent) -> list[str]:
    """The subjects of an event, each once, in a fixed order."""
    named = (event.attributes.get(name, "") for name in _NAMING)
    return list(dict.fromkeys(text for text in named if _SUBJECT.match(text)))


def parse_subjects(text: str) -> list[str]:
    """Read subjects with commas between them; none from the empty text.

    Raises:
        InvalidInputError: one of them is neither an account nor an id in hex, or there are too many.
    """
    subjects = list(dict.fromkeys(text.split(","))) if text else []
    if len(subjects) > MAX_SUBJECTS or not all(_SUBJECT.match(subject) for subject in subjects):
        raise InvalidInputError(
            "a subject is an account (G...) or an id of 64 hex digits",
            code="bad_subject",
            hint=f"write at most {MAX_SUBJECTS} with commas between them",
        )
    return subjects
