"""`darner doctor`: what stands in the way of Darner in this cluster, before and after it is installed, and what to do about it.

Facts are gathered in one place, by reading and by dry runs; a check is a pure function from facts to findings.
"""
