"""sizewise: does a small specialised language model beat a larger general one, and at what cost?"""

__version__ = "0.1.0"
