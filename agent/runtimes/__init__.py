"""What the agent writes into the configuration of its node's runtime, so that images are pulled through it under their own names.

Off unless an operator asks for it (docs/mirror-mode.md). All of it names the agent beside the registry and never in its place:
a runtime that finds no agent goes on to the registry by itself. Imports run down: `configuration` > `certs_d`,
`registries_conf` > `ours`.
"""
