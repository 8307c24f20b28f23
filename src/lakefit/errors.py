"""What can go wrong, by exit code (docs/exit-codes.md). Each message says what, where, and what to do."""

import re
from typing import ClassVar


class LakefitError(Exception):
    """A failure whose message is written for the person who has to act on it. Exit code 3."""

    exit_code: ClassVar[int] = 3


class InputError(LakefitError):
    """The pipeline file, its inputs or the place are wrong; running again changes nothing. Exit code 2."""

    exit_code: ClassVar[int] = 2


class ContractError(LakefitError):
    """A contract of `expect` does not hold; the version in use stays in use. Exit code 5."""

    exit_code: ClassVar[int] = 5


class FeedError(LakefitError):
    """The feed did not deliver exactly the rows of the manifest. Exit code 3."""


class UnfitError(FeedError):
    """A column of Parquet files that Lakefit has not written holds what the feed has no value for."""


class GateError(LakefitError):
    """The quality gate was not passed, the model in use stays in use. Exit code 6."""

    exit_code: ClassVar[int] = 6


class StoppedError(LakefitError):
    """Stopped from outside; run again to go on. Exit code 4."""

    exit_code: ClassVar[int] = 4


def text_of(error: BaseException) -> str:
    """Return what an error says; of one that would ask a JVM for it that has ended, what was asked before."""
    try:
        return str(error)
    except Exception:
        return "\n".join(getattr(error, "__notes__", ()))


CREDENTIALS_ADVICE = (
    "an address with credentials ends up in logs. Give them as the store's own tools take them: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, a profile, or the machine's role."
)


STORE_ADVICE = (
    "Look at the bucket's name, at AWS_ENDPOINT_URL where the store is not Amazon's, and at the credentials: "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role."
)


def without_credentials(text: str) -> str:
    """Return an address, or any text, without the credentials of addresses in it: a name and password before @, and
    what options of its query hold."""
    # A secret may hold / and @.
    text = re.sub(r"(?<=://)[^/\s@?'\"]*:[^\s'\"]*@", "", text)
    return _SECRET_OPTION.sub(r"\1...", text)


_SECRET_OPTION = re.compile(
    r"([?&;][^=&;\s]*(?:key|token|secret|password|pwd|sig|signature|credential)[^=&;\s]*=)[^&;\s'\"]+", re.IGNORECASE
)
