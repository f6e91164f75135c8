"""`darner warm`: images on nodes before pods need them.

Nothing here pulls, and nothing of Darner's is asked: pods are made whose containers have the images, and Kubernetes does the
rest. So the kubelet pulls into the runtime itself, with the rights of the pods' namespace, and through the agent wherever the
webhook rewrites that namespace's pods (docs/decisions/0033).
"""
