"""HTTP for every client and server of this project: one set of bounds, timeouts and proxy rules."""

from iota.http.client import (
    Answer,
    AnswerRefused,
    BodyTooLarge,
    Compressed,
    HttpClient,
    NoAnswer,
    NotSent,
    Redirected,
    lines,
    read_bounded,
)
from iota.http.hosts import is_loopback, proxy_for
from iota.http.reach import AddressRefused, Reach
from iota.http.upload_pace import UploadPace

__all__ = [
    "AddressRefused",
    "Answer",
    "AnswerRefused",
    "BodyTooLarge",
    "Compressed",
    "HttpClient",
    "NoAnswer",
    "NotSent",
    "Reach",
    "Redirected",
    "UploadPace",
    "is_loopback",
    "lines",
    "proxy_for",
    "read_bounded",
]
