"""`make fuzz`: new ways through the parsers that strangers reach, found by coverage. Their table is `tests.fuzz.targets`."""
