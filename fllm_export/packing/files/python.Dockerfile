# docker build --file python.Dockerfile --tag users . && docker run --publish 127.0.0.1:8080:8080 users
FROM python:3.11.9-slim-bookworm AS builder
# Debian keeps no old versions in its archive, so that a pinned one would soon not be found. Likewise below.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY source ./
# The versions are those of the constraints.
# hadolint ignore=DL3013
RUN python -m venv /opt/fllm \
 && /opt/fllm/bin/pip install --no-cache-dir --constraint constraints/tested.txt '.[server]'

FROM python:3.11.9-slim-bookworm
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fllm
COPY --from=builder /opt/fllm /opt/fllm
COPY bundle /srv/bundle
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/fllm/bin/fllm-export", "serve", "/srv/bundle", "--host", "0.0.0.0", "--port", "8080"]
