"""What the suites of the Python clients share: accounts, pictures, and one line for each check."""

from __future__ import annotations

import inspect
import io
import logging
import os
import secrets
import sys
import time
import traceback
import unittest
from types import TracebackType
from typing import NamedTuple, NoReturn

from PIL import Image


class Account(NamedTuple):
    """A user who was registered for this run."""

    user_id: str
    password: str


URL = os.environ["MEDIARY_CLIENTS_URL"]
UPSTREAM = os.environ["MEDIARY_CLIENTS_UPSTREAM"]  # Synapse itself
MAX_UPLOAD = int(os.environ["MEDIARY_CLIENTS_MAX_UPLOAD"])
AS_TOKEN = os.environ["MEDIARY_CLIENTS_AS_TOKEN"]
ALICE = Account(os.environ["MEDIARY_CLIENTS_ALICE"], os.environ["MEDIARY_CLIENTS_ALICE_PASSWORD"])
BOB = Account(os.environ["MEDIARY_CLIENTS_BOB"], os.environ["MEDIARY_CLIENTS_BOB_PASSWORD"])
SERVER_NAME = ALICE.user_id.split(":", 1)[1]

# A media id that nobody has.
UNKNOWN = f"mxc://{SERVER_NAME}/{secrets.token_hex(16)}"

# A name that has to be encoded in a query as well as in a header.
FILENAME = "Grüße; from a walk.jpg"

# What the quarters of a picture are filled with, from the top left, line by line.
QUARTERS = ((200, 30, 30), (30, 160, 30), (30, 30, 200), (220, 200, 40))
LOSS = 12  # how far from its colour JPEG may bring the middle of a quarter


def picture(width: int, height: int, kind: str) -> bytes:
    """A picture of four quarters, so that another one, or a turned one, is told from it."""
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(QUARTERS):
        left, top = index % 2 * width // 2, index // 2 * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    encoded = io.BytesIO()
    image.save(encoded, kind)
    return encoded.getvalue()


def size_of(encoded: bytes) -> tuple[int, int]:
    """Decodes a picture, sees to it that it has the four quarters, and returns its size."""
    with Image.open(io.BytesIO(encoded)) as image:
        pixels = image.convert("RGB")
    width, height = pixels.size
    for index, colour in enumerate(QUARTERS):
        middle = (width // 4 + index % 2 * width // 2, height // 4 + index // 2 * height // 2)
        seen = pixels.getpixel(middle)
        assert isinstance(seen, tuple)
        if any(abs(a - b) > LOSS for a, b in zip(seen, colour, strict=True)):
            raise AssertionError(f"quarter {index} is {seen} instead of {colour}")
    return width, height


class Report(unittest.TestResult):
    """Prints a line for each check as it ends, and why if it failed."""

    def __init__(self, client: str) -> None:
        super().__init__()
        self.client = client

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.began = time.monotonic()

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.line("PASS", test)

    def addFailure(self, test: unittest.TestCase, err: Error) -> None:
        super().addFailure(test, err)
        self.failed(test, err)

    def addError(self, test: unittest.TestCase, err: Error) -> None:
        super().addError(test, err)
        self.failed(test, err)

    def failed(self, test: unittest.TestCase, err: Error) -> None:
        self.line("FAIL", test)
        print("".join(traceback.format_exception(*err)), flush=True)

    def line(self, outcome: str, test: unittest.TestCase) -> None:
        seconds = time.monotonic() - self.began
        name = test.id().rpartition(".")[2].removeprefix("test_").replace("_", " ")
        print(f"   {outcome} {seconds:6.2f} s  {self.client}: {name}", flush=True)


Error = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


def run(client: str) -> NoReturn:
    """Runs the checks of the program that calls it, in the order they are written in."""
    # What the libraries log of refusals that are wanted here, and asyncio of slow steps.
    logging.getLogger().addHandler(logging.NullHandler())
    module = sys.modules["__main__"]
    order = inspect.getsource(module).index
    loader = unittest.TestLoader()
    loader.sortTestMethodsUsing = lambda a, b: order(f"def {a}(") - order(f"def {b}(")
    result = Report(client)
    loader.loadTestsFromModule(module).run(result)
    if not result.testsRun:
        sys.exit(f"{client}: there is no check")
    sys.exit(not result.wasSuccessful())
