"""Get the shop ready to open, once: a oneshot, which everything else waits for."""

import orders

print(f"the books are open in {orders.database()}: {orders.prepare()} orders so far")
