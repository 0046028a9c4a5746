# The part of botocore that wren uses; it ships no types of its own.

__version__: str
