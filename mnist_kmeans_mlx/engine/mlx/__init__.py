"""The MLX way: from rows to labels on the device, in large steps with few synchronisations.

`way` is where it begins: an iteration of one or several restarts. `rows` holds the rows, `step` the
E-step and the M-step as operations, `seeding` k-means++; all that comes back to the host comes
through `crossing`. `nearest` answers for any rows, `probe` tries a device out.
"""
