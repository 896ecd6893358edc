"""The mathematics of K-means: arrays in, arrays out; no files, no printing, no clock.

Begin with `lloyd`, the loop: assign, average, stop. It does not know who assigns: that is a *way*,
and `ways` holds what all ways have in common, and chooses one.

- `plain`: the plain way. float64, in one piece: what all ways equal, and small data takes. Read it
  first.
- `mlx`: the MLX way. From rows to labels on the device, in large steps. Begin with `mlx.way`.
- `host`: the host's way. NumPy on all cores, which compares less by bounds. Begin with `host.way`.
- `restarts`: the best of several runs; `seeding`: where they start; `means`: the M-step.
- `points`: the rows of a fit in their `frame`, as whole numbers if they lie on a `lattice`;
  `centers`: centres in it, and the bound of what products with them lose; `decision`: rows that
  float32 leaves in doubt, in float64; `differences`: squared distances; `exact`: sums that no order
  changes, and `sums` of clusters made so; `metric` and `sphere`: what distances are; `fingerprint`:
  what tells rows from others.
- `nearest`: what fitted centres are asked, in a frame of their own; `minibatch`: a batch at a time.
"""
