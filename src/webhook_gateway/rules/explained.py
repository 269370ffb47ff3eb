"""Names from closed lists, each with the sentence that people are told."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Explained(StrEnum):
    """Its members are written as a name and a sentence, and are the name."""

    sentence: str

    def __new__(cls, value: str, sentence: str = "") -> Self:
        member = str.__new__(cls, value)
        member._value_, member.sentence = value, sentence
        return member
