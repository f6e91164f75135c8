# Few targets, each a short script in hack/. `make demo` and `make test` need nothing but Python 3.11 to begin with.
.PHONY: help venv demo test check

help:
	@echo 'make demo    pull an image through a small swarm on this machine, and see where each byte came from'
	@echo 'make test    install what the tests need (Debian packages too, when root) and run all of them'
	@echo 'make check   style, types, import contracts and the chart: everything that runs no test'
	@echo 'make venv    .venv with the pinned requirements and .venv/bin/darner'

venv:
	@hack/venv.sh

# make demo FLIP=1 flips one byte of a layer at the origin: the demo must fail and say why.
demo: venv
	@.venv/bin/python -m hack.demo $(if $(FLIP),--flip-a-byte)

# make test TESTS='tests/unit -k reference' runs some of them.
test: venv
	@hack/setup.sh
	@.venv/bin/python -m pytest $(TESTS)

check: venv
	@hack/check.sh
