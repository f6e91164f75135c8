"""`make bench`: how near Darner comes to what the network allows, and what it costs, as a table with what must be reached.

`figures` says what is measured and what each figure must be, `suite` which scenarios there are, `report` prints. Scenarios are
modules: `rollout` on a `site` made of hack/lab, with `puller`s, `direct` and `torrent` beside it. Every figure is a
ratio of things that were measured in the same run.
"""
