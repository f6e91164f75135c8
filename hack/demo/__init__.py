"""`make demo`: a small cluster on loopback addresses pulls a real image through the swarm, and shows where each byte came from.

`cluster` starts and ends the processes, `admission` sends the pod as the API server would, `puller` pulls as a container runtime
would, `screen` shows it, and `__main__` tells the story in order. Everything that is shown is measured from outside, over the
ports that a real cluster uses: nothing is imported from the supernode or the webhook.
"""
