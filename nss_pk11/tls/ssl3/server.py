from ..link import Flow, Link
from typing import Any


class ServerHandshake:
    def __init__(self, link: Link, *rest: Any) -> None:
        pass

    def run(self, hello: Any) -> Flow:
        raise NotImplementedError
        yield
