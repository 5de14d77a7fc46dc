# The GPU image of every pod: Ray 2.60, vLLM 0.32.0 and torch 2.13.0, all from requirements/gpu.lock. The NVIDIA
# driver comes from the node, CUDA's libraries from the wheels, so a plain Python image is base enough.
#
#   docker build -t chroma-serve .
#   docker run --gpus all -p 8000:8000 -p 8001:8001 --shm-size 8g chroma-serve \
#     chroma serve --host 0.0.0.0 --checkpoint FlashLabs/Chroma-4B
FROM python:3.11-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# bash and wget: KubeRay's probes are a bash line around wget. The compiler: Triton and FlashInfer build kernels at start.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash ca-certificates g++ wget \
    && rm -rf /var/lib/apt/lists/*

# Installed into /usr/local, not into a virtual environment: KubeRay starts Ray from a login shell, which resets PATH.
# The packages change seldom and the project often, so they are layers of their own.
COPY requirements/gpu.lock /tmp/gpu.lock
RUN python -m pip install --no-cache-dir --upgrade 'pip>=25' \
    && python -m pip install --no-cache-dir --no-deps -r /tmp/gpu.lock \
    && rm /tmp/gpu.lock

COPY pyproject.toml LICENSE /src/
COPY chroma_models /src/chroma_models
COPY deployments /src/deployments
COPY loadtest /src/loadtest
RUN python -m pip install --no-cache-dir --no-deps --no-build-isolation /src && rm -rf /src

RUN groupadd --gid 1000 ray && useradd --uid 1000 --gid 1000 --create-home --shell /bin/bash ray
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /home/ray

# Without these a container sees no GPU on a base image that is not CUDA's own.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTHONUNBUFFERED=1

EXPOSE 8000 8001
CMD ["chroma", "serve"]
