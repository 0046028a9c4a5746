# The part of aiobotocore that wren uses; it ships no types of its own.

__version__: str
