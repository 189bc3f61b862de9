"""How a worker seals itself: what it gives up, layer by layer, before anything of others is imported.

Standard library only, and nothing of this package outside this folder: the worker loads it by its path. Nothing here
imports `dataclasses`, `pathlib` or `hashlib`, which together cost half of the worker's start.
"""
