"""Escape attempts: the proof that a worker's seal holds is that real attempts at it fail which succeed without it.

`range` is the app's side, with everything there is to reach; `inside` runs one attempt in a throw-away worker.
"""
