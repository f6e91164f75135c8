"""A real Kubernetes cluster on this machine: every node a set of namespaces with its own containerd and kubelet.

`layout` says what everything is called and where it is, `network` makes the hosts, and a module per kind of host knows how it is
started: `control` (etcd, API server, controllers, scheduler), `origin` (registries), `node`. `programs` and `images` find what
they are made of, which is built once. `Access` reaches what is there, `Cluster` makes and changes it, `python -m hack.cluster` is
its command line.

A cluster outlives the process that started it. All of it bears its number, and what bears a number is all that is ever removed.
"""

from hack.cluster.cluster import Cluster
from hack.cluster.layout import ClusterError

__all__ = ["Cluster", "ClusterError"]
