"""Warehouses: the tables in their SQL, and how a run's rows replace those of their slice.

A slice is what one audit says of one date: (audit_name, audit_date). Rows are staged first, in
tables of the same names, and then moved in one transaction, `runs` last: whoever reads sees the
slice as it was, or as it is now.
"""
