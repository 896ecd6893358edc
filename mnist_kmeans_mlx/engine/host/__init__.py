"""The host's way: NumPy on many cores, which compares only what bounds leave open.

`way` is where it begins: rows (`rows`), their nearest centres (`bounded`, by `comparison`, `bounds`
and `sketch`, as `strategy` says), sums (`sums`), and seeding (`plus_plus`; `joint`, of several
restarts at a time).
"""
