"""Light to import, for processes that are started and killed."""

import os


def perhaps_die(number):
    """-number, but 2 ends its process."""
    if number == 2:
        os._exit(1)
    return -number
