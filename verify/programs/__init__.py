"""Linear and mixed-integer programmes of piecewise-linear graphs, solved by HiGHS and checked by our own bounds."""
