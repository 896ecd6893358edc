"""The mathematics of K-means: arrays in, arrays out; no files, no printing, no clock.

Begin with `lloyd`, the loop: assign, average, stop. What it calls, from the top down:

- `restarts`: the best of several runs; `seeding`, `joint` (several at once) and `sampling`: where
  they start.
- `assignment`: the E-step, as MLX operations or on the host with bounds (`comparison`, `bounds`,
  `sketch`); `centroids`: the M-step, with empty clusters and inertia.
- `distances`: centres as products see them, and the bound of what products lose;
  `decision`: rows that float32 leaves in doubt, in float64.
- `points`: the rows of a fit in their frame; `exact`: sums that no order changes; `sphere`: cosine.
- `nearest`: what fitted centres are asked, in a frame of their own; `minibatch`: a batch at a time.
"""
