# `osum serve` on CPU. The model is no part of the image; it is mounted:
#
#   chmod -R a+rX osum_model        # its user is 10001
#   docker build -t osum-serve .
#   docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     -p 127.0.0.1:8000:8000 -v "$PWD/osum_model:/model:ro" osum-serve
#
# What stands behind the image's name goes to `osum serve`: docker run ... osum-serve /model --help

FROM python:3.11-slim

# The plain torch of PyPI brings several GB of CUDA with it: for a small image give PyTorch's index of CPU builds,
# --build-arg TORCH_INDEX=URL.
ARG TORCH=torch
ARG TORCH_INDEX=

ENV PATH=/opt/osum/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1

RUN python -m venv /opt/osum \
    && pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$TORCH"

WORKDIR /src
COPY pyproject.toml setup.py README.md ./
COPY wenet_osum ./wenet_osum
RUN pip install '.[serve]' && rm -rf build ./*.egg-info

RUN useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin osum
USER 10001
WORKDIR /
EXPOSE 8000

# /health says that the server answers; /ready, for a load balancer, that the model is loaded as well.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]

# SIGTERM drains: `docker stop --time 60` waits for what is being answered.
STOPSIGNAL SIGTERM
ENTRYPOINT ["osum", "serve"]
CMD ["/model", "--host", "0.0.0.0", "--port", "8000"]
