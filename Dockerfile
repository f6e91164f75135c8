# The one image of the three processes: `darner agent`, `darner supernode`, `darner webhook`.
#
# BASE has Python 3.11 or later with its venv module. BUILD_BASE has the same Python and a C compiler with its headers, for the scheduler
# is compiled (docs/decisions/0015). With COMPILE= it is not, and BUILD_BASE may be BASE. Every dependency is a wheel, checked by its hash.
ARG BASE=docker.io/library/python:3.13-slim
ARG BUILD_BASE=docker.io/library/python:3.13

FROM ${BUILD_BASE} AS build
# pip's own settings, for builders that have wheels in a directory or trust an authority of their own; see docs/install.md.
ARG PIP_CERT
ARG PIP_FIND_LINKS
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all:
WORKDIR /build
# pip and setuptools stay in an environment of their own, which goes no further.
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/darner
COPY requirements.txt requirements-dev.txt ./
# The client's second form, for asyncio, would be a third of the image, and nothing imports it.
RUN tools/bin/pip --python /opt/darner/bin/python install --require-hashes --requirement requirements.txt \
    && rm -r /opt/darner/lib/python3.*/site-packages/kubernetes/aio
ARG COMPILE=1
# What compiles, of the versions that the tests run with: mypy with what it needs itself.
RUN sed -nE "/^(setuptools${COMPILE:+|ast-serialize|librt|mypy|mypy-extensions|pathspec|typing-extensions})==/,/[^\\]\$/p" \
        requirements-dev.txt > tools.txt \
    && tools/bin/pip install --no-deps --require-hashes --requirement tools.txt
COPY setup.py pyproject.toml README.md LICENSE ./
COPY agent agent
COPY cli cli
COPY supernode supernode
COPY webhook webhook
# The compiler follows the types into the dependencies, so it runs in the environment that has them.
RUN DARNER_COMPILE=${COMPILE} PYTHONPATH=$(echo /build/tools/lib/python3.*/site-packages) \
        /opt/darner/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --python /opt/darner/bin/python install --no-deps --no-index wheels/darner-*.whl

FROM ${BASE}
LABEL org.opencontainers.image.title="Darner" \
      org.opencontainers.image.description="Container images from node to node: agent, supernode and webhook" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/darner /opt/darner
# What a process logs is there at once, also when it is killed in the next moment.
ENV PATH=/opt/darner/bin:$PATH PYTHONUNBUFFERED=1
# By number, so that runAsNonRoot can be checked. Agents are run as root by the chart, which says why.
USER 65532:65532
ENTRYPOINT ["darner"]
