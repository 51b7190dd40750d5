"""x"""

from typing import Any


def is_this(value: Any) -> bool:
    return False
