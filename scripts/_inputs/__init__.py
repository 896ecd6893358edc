"""Inputs of every kind, with the expected outcome of each: see check_inputs.py."""

import os

# Scikit-learn's threads wait for each other longer than so few rows take.
os.environ["OMP_NUM_THREADS"] = "1"
