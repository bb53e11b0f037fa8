"""Pack what the shop sells: a worker, which has nothing to do until the shop is ready."""

import json
import os
import time
from urllib.request import Request, urlopen

from supervisor import tell

SHOP = os.environ.get("SHOP_URL", "http://127.0.0.1:8080")
PAUSE = float(os.environ.get("SHOP_PAUSE", "1"))
"""Seconds between looks at the orders."""


def next_order() -> dict[str, object] | None:
    """The order to be packed now, or None. Raises `OSError` if the shop can't be reached."""
    with urlopen(Request(f"{SHOP}/pack", method="POST"), timeout=5) as answer:
        order: dict[str, object] | None = json.load(answer)
        return order


def main() -> None:
    """Pack for ever; a shop that is out of reach is waited for, not a reason to crash."""
    packed = 0
    tell("READY=1\nSTATUS=waiting for orders")
    while True:
        try:
            order = next_order()
        except OSError as error:
            print(f"the shop doesn't answer: {error}", flush=True)
            order = None
        if order:
            packed += 1
            print(f"packed order {order['number']}: one {order['thing']}", flush=True)
            tell(f"STATUS=packed {packed} orders")
        else:
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
