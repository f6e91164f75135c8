"""A supernode under the load of thousands of nodes: real connections, real messages, and no bytes of any blob.

`python -m hack.load` starts one `darner supernode` and an origin with a blob of zeros, and a crowd of agents in this process that
play the protocol of the channel: they say Hello, open the blob, and report each granted piece as if it had come over a link of
their own. What that costs the supernode is read from outside, in /proc. With `hack/compiled.sh` before the
command it is the supernode that the image has; otherwise its sources run as they are.
"""
