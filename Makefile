# Few targets, each a short script in hack/. `make demo` and `make test` need nothing but Python 3.11 to begin with.
.PHONY: help venv demo test check bench fuzz simulate e2e cluster-up cluster-down

help:
	@echo 'make demo    pull an image through a small swarm on this machine, and see where each byte came from'
	@echo 'make test    install what the tests need (Debian packages too, when root) and run all of them'
	@echo 'make bench   measure Darner against the limits of the network and against others; takes root and half an hour'
	@echo 'make fuzz    look for inputs that break the parsers which strangers reach, a minute for each'
	@echo 'make simulate    rollouts to thousands of nodes, in virtual time'
	@echo 'make e2e     the same in a real Kubernetes cluster on this machine; takes root and, the first time, ten minutes more'
	@echo 'make cluster-up, make cluster-down    that cluster, to try things in; NODES=3, and docs/cluster.md'
	@echo 'make check   style, types, import contracts and the chart: everything that runs no test'
	@echo 'make venv    .venv with the pinned requirements and .venv/bin/darner'

venv:
	@hack/venv.sh

# make demo FLIP=1 flips one byte of a layer at the origin: the demo must fail and say why.
demo: venv
	@.venv/bin/python -m hack.demo $(if $(FLIP),--flip-a-byte)

# make test TESTS='tests/unit -k reference' runs some of them. All of them: a file at a time in each of two processes, as most tests
# wait for networks and runtimes.
test: venv
	@hack/setup.sh
	@.venv/bin/python -m pytest $(or $(TESTS),--numprocesses 2 --dist loadfile)

# make bench OPTIONS='--only rollout-8 --rounds 1' measures some of it; OPTIONS=--help tells what there is.
bench: venv
	@hack/bench.sh $(OPTIONS)

# make fuzz OPTIONS='--seconds 600 registry-requests handshake' looks longer at some of them; OPTIONS=--help names all.
fuzz: venv
	@hack/fuzz.sh $(OPTIONS)

simulate: venv
	@hack/compiled.sh .venv/bin/python -m hack.simulate $(OPTIONS)

# make e2e K8S=v1.34.4 runs them on another version of Kubernetes.
e2e: venv
	@hack/setup.sh
	@.venv/bin/python -m pytest tests/e2e -m e2e $(if $(K8S),--kubernetes=$(K8S)) $(TESTS)

# Also K8S=v1.34.4, CONTAINERD=1.6,2 (a list goes round the nodes), MBIT=100 (the rate of every link), CLUSTER=1 (several at once).
cluster-up: venv
	@hack/setup.sh
	@.venv/bin/python -m hack.cluster $(if $(CLUSTER),--cluster $(CLUSTER)) up $(if $(NODES),--nodes $(NODES)) \
		$(if $(K8S),--kubernetes $(K8S)) $(if $(CONTAINERD),--containerd $(CONTAINERD)) $(if $(MBIT),--mbit $(MBIT)) \
		--load "$$(hack/cluster/image.sh)"

cluster-down: venv
	@.venv/bin/python -m hack.cluster $(if $(CLUSTER),--cluster $(CLUSTER)) down

check: venv
	@hack/check.sh
