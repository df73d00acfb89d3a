# One file, one target for each part: producer, gateway, worker-onnx, worker-torch, flower.
#
#   docker build --target worker-onnx -t labelmill-worker .
#
# PYTHON_IMAGE     any Debian-like image with python3 (3.11 to 3.13) and its venv module
# PIP_INDEX_URL    another package index;  PIP_NO_INDEX=1: only the wheels in deploy/docker/wheels
# TORCH_INDEX_URL  where worker-torch finds torch first: an index of CPU builds saves gigabytes
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/opt/labelmill/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# not root: nothing in the image belongs to this user
RUN echo 'labelmill:x:10001:10001::/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'labelmill:x:10001:' >> /etc/group

FROM base AS source
ARG PIP_INDEX_URL=
ARG PIP_NO_INDEX=
# an argument ends with its stage, a variable does not; the images that are shipped have neither
ENV PIP_INDEX_URL=$PIP_INDEX_URL PIP_NO_INDEX=$PIP_NO_INDEX PIP_FIND_LINKS=/wheels PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# Resizing and reading PNGs are compiled where there is a compiler, and take up to four times the time where there is none.
RUN command -v gcc || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev; } \
    || echo "no C compiler: images will be decoded by NumPy and Pillow"
RUN python3 -m venv /opt/labelmill
WORKDIR /src
COPY deploy/docker/wheels /wheels
COPY pyproject.toml constraints.txt README.md tasks.py celeryconfig.py ./
COPY jobs jobs
COPY producer producer
COPY worker worker

# A builder without BuildKit makes every stage above the one that was asked for: the largest stand last.
FROM source AS build-producer
RUN pip install --constraint constraints.txt '.[web]'

FROM base AS producer
COPY --from=build-producer /opt/labelmill /opt/labelmill
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["labelmill"]
CMD ["--help"]

FROM producer AS gateway
EXPOSE 8000
CMD ["gateway", "--host", "0.0.0.0", "--port", "8000"]

FROM source AS build-worker-onnx
RUN pip install --constraint constraints.txt '.[onnx]'

FROM base AS worker-onnx
COPY --from=build-worker-onnx /opt/labelmill /opt/labelmill
ENV LABELMILL_MODEL_DIR=/models LABELMILL_FILE_ROOTS=/data
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["labelmill-worker"]
CMD ["serve"]

FROM source AS build-flower
RUN pip install --constraint constraints.txt . flower

FROM base AS flower
COPY --from=build-flower /opt/labelmill /opt/labelmill
USER 10001:10001
WORKDIR /tmp
EXPOSE 5555
ENTRYPOINT ["celery", "-A", "tasks", "flower"]
CMD ["--address=0.0.0.0", "--port=5555"]

FROM source AS build-worker-torch
ARG TORCH_INDEX_URL=
RUN pip install --constraint constraints.txt ${TORCH_INDEX_URL:+--extra-index-url $TORCH_INDEX_URL} '.[torch]'

FROM base AS worker-torch
COPY --from=build-worker-torch /opt/labelmill /opt/labelmill
ENV LABELMILL_MODEL_DIR=/models LABELMILL_FILE_ROOTS=/data
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["labelmill-worker"]
CMD ["serve"]
