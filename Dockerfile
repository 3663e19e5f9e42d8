# syntax=docker/dockerfile:1
# One image for CPU and GPU servers; runs as an ordinary user and needs no network once built.
#   docker build -t medgcsam .
# Another build of torch, such as the one without CUDA, is a pip option away:
#   docker build -t medgcsam:cpu --build-arg TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu" .
FROM python:3.12-slim-bookworm AS build
ARG TORCH_OPTIONS=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/medgcsam
ENV PATH=/opt/medgcsam/bin:$PATH
WORKDIR /source
# torch first: its layer is large and changes least.
COPY constraints.txt ./
RUN grep '^torch==' constraints.txt > torch.txt \
    && pip install --no-cache-dir $TORCH_OPTIONS --requirement torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY medgcsam ./medgcsam
COPY configs ./configs
COPY data_manifests ./data_manifests
RUN pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 medgcsam \
    && install --directory --owner=medgcsam --mode=0777 /data /runs /cache
COPY --from=build /opt/medgcsam /opt/medgcsam
# /data: data sets, read-only is enough; /runs: results; /cache: prepared images. Mode 0777, so that
# `docker run --user $(id -u):$(id -g)` works and the results belong to who started it.
ENV PATH=/opt/medgcsam/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    MEDGCSAM_DATA=/data \
    MEDGCSAM_CACHE=/cache
USER 1000:1000
# Runs go to ./runs of the current folder: /runs below.
WORKDIR /
ENTRYPOINT ["medgcsam"]
CMD ["--help"]
