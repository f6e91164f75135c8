"""`darner get`: files, models and artifacts, by way of this node's agent where there is one."""
