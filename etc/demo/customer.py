"""Buy something every few seconds, and now and then trip over a bug: the service that crashes."""

import os
import random
import time
from urllib.parse import urlencode
from urllib.request import urlopen

import orders

SHOP = os.environ.get("SHOP_URL", "http://127.0.0.1:8080")
PAUSE = float(os.environ.get("SHOP_PAUSE", "4"))
"""Seconds between two purchases, about."""
CLUMSY = float(os.environ.get("SHOP_CLUMSY", "0.1"))
"""How often the customer trips, as a fraction of the purchases."""


def buy(thing: str) -> None:
    """Buy one thing. Raises `OSError` if the shop can't be reached."""
    with urlopen(f"{SHOP}/orders", urlencode({"thing": thing}).encode(), timeout=5) as answer:
        answer.read()
    print(f"bought one {thing} for €{orders.GOODS[thing]}", flush=True)


def change(paid: int, price: int, coin: int) -> int:
    """How many coins come back; there is no coin of nothing, which is the bug."""
    return (paid - price) // coin


def main() -> None:
    """Go on buying until the purse is dropped."""
    while True:
        thing = random.choice(list(orders.GOODS))
        try:
            buy(thing)
        except OSError as error:
            print(f"the shop doesn't answer: {error}", flush=True)
        if random.random() < CLUMSY:
            change(60, orders.GOODS[thing], coin=0)
        time.sleep(PAUSE * random.uniform(0.5, 1.5))


if __name__ == "__main__":
    main()
