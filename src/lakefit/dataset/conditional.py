"""Files that are replaced only while they are as they were when they were read: a lock, and `current.json`.

In object stores where nothing but that keeps two writers apart: S3's If-Match and If-None-Match, which pyarrow's own
writes don't have. On this machine an flock does, and a plain atomic write is enough.
"""

import importlib.util
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from lakefit.dataset.object_path import AnyPath, ObjectPath
from lakefit.dataset.publish import as_json, read_json, write_json
from lakefit.errors import InputError, LakefitError

# A write on condition that something else of its kind is just being written, or that what it was to replace is gone.
_CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409", "NoSuchKey", "404")


class ChangedError(LakefitError):
    """Somebody else has replaced what was read."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a file: the mapping in it, empty where there is none, and how to know it again.

    age_s: seconds since it was written, by the clock of the store.
    """

    value: Mapping[str, Any]
    etag: str | None = None
    age_s: float = 0.0


def look(path: AnyPath) -> Seen:
    """Return what a JSON file holds now. Raises OSError."""
    if not isinstance(path, ObjectPath):
        return Seen(read_json(path) or {})
    client, errors = _client(path)
    try:
        answer = client.get_object(Bucket=path.bucket, Key=path.key)
        content = answer["Body"].read()
    except errors.ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return Seen({})
        raise OSError(f"{path}: {error}") from error
    except errors.BotoCoreError as error:
        raise OSError(f"{path}: {error}") from error
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
    try:
        value = json.loads(content)
    except ValueError:
        value = {}
    age = (now - answer["LastModified"]).total_seconds()
    return Seen(value if isinstance(value, dict) else {}, answer["ETag"], age)


def replace(path: AnyPath, value: Mapping[str, Any], seen: Seen) -> Seen:
    """Replace a JSON file that is as it was seen; return what is seen now.

    Raises:
        ChangedError: it is not. OSError: it can't be written.
    """
    if not isinstance(path, ObjectPath):
        write_json(path, value)
        return Seen(value)
    client, errors = _client(path)
    content = as_json(value).encode()
    condition = {"IfNoneMatch": "*"} if seen.etag is None else {"IfMatch": seen.etag}
    try:
        answer = client.put_object(Bucket=path.bucket, Key=path.key, Body=content, **condition)
    except errors.ClientError as error:
        if error.response["Error"]["Code"] not in _CHANGED:
            raise OSError(f"{path}: {error}") from error
        now = look(path)
        if now.etag is not None and now.value == value:
            # A request whose answer was lost is made again, and finds what it has written.
            return now
        raise ChangedError(f"{path}: somebody else has written it since it was read.") from None
    except errors.BotoCoreError as error:
        raise OSError(f"{path}: {error}") from error
    return Seen(value, answer["ETag"])


def output_problem(path: AnyPath) -> str | None:
    """Return why nothing can be put out at a path, whatever lies there; None where it can."""
    if not isinstance(path, ObjectPath):
        return None
    if not str(path).startswith("s3://"):
        return (
            f"{path}: an output needs writes on condition, which are known here of S3 alone, and of stores that speak "
            "its language: name an s3:// address, or a mounted folder"
        )
    if importlib.util.find_spec("botocore") is None:
        return f"{path}: an output in an object store needs botocore: pip install 'lakefit[s3]'"
    return None


def _client(path: ObjectPath) -> tuple[Any, Any]:
    """Return a client of the store of an object, and the module of its errors."""
    problem = output_problem(path)
    if problem is not None:
        raise InputError(problem)
    from botocore import exceptions

    options = path.options
    endpoint = options.get("endpoint_override")
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    # pyarrow's name of it, which botocore does not read.
    region = options.get("region") or os.environ.get("AWS_REGION")
    return _made_client(os.getpid(), endpoint, region), exceptions


@lru_cache
def _made_client(_process: int, endpoint: str | None, region: str | None) -> Any:
    from botocore.config import Config
    from botocore.session import get_session

    own = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        # All of it shorter than a lease.
        connect_timeout=10,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 3},
        # As pyarrow does: a store of one's own seldom has a name for each bucket.
        s3={"addressing_style": "path" if own else "auto"},
        # Stores of other makers don't know all of AWS's checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return get_session().create_client("s3", endpoint_url=endpoint, region_name=region, config=config)
