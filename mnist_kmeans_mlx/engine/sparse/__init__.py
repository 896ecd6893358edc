"""The way of sparse rows, which stay sparse: SciPy's products with dense centres, in float64.

It compares all rows each time, for a product costs no more than the few numbers that a row has.
"""
