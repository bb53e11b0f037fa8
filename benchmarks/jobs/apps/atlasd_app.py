"""atlasd."""

from mark import mark

from atlasd.worker import Client, job

_client = Client()


@job("bench.noop", queue="bench")
def noop(text: str) -> None:
    """Count itself."""
    mark(text)


def one(text: str) -> None:
    """Enqueue one."""
    noop.enqueue(text=text)


def bulk(texts: list[str]) -> None:
    """Enqueue many."""
    _client.enqueue_many("bench.noop", ({"text": text} for text in texts), queue="bench")
