"""`darner explain`: what became of a pod, or would become of an image: its names, its secrets, and where its bytes came from."""
