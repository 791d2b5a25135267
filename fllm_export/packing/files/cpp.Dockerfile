# docker build --file cpp.Dockerfile --tag users-cpp . && docker run --publish 127.0.0.1:8080:8080 users-cpp
FROM python:3.11.9-slim-bookworm AS builder
# Debian keeps no old versions in its archive, so that a pinned one would soon not be found. Likewise below.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
      ca-certificates cmake g++ libcpp-httplib-dev make nlohmann-json3-dev npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY source ./
RUN make /src/build/onnxruntime-headers/onnxruntime_c_api.h \
 && cmake -S engines/libfllm -B build/library \
      -DFLLM_ENCODER=ON -DONNXRUNTIME_INCLUDE_DIR=/src/build/onnxruntime-headers \
 && cmake --build build/library --parallel "$(nproc)" \
 && cmake --install build/library --prefix /opt/fllm \
 && cmake -S examples/cpp_server -B build/server -DCMAKE_PREFIX_PATH=/opt/fllm \
 && cmake --build build/server --parallel "$(nproc)" \
 && install -D --target-directory /opt/fllm/bin build/server/fllm_server
# The versions are those of the constraints.
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir --no-deps --constraint constraints/tested.txt --target /opt/python onnxruntime \
 && install -D /opt/python/onnxruntime/capi/libonnxruntime.so.* /opt/fllm/lib/libonnxruntime.so

FROM debian:12.5-slim
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends curl libcpp-httplib0.11 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin fllm
COPY --from=builder /opt/fllm /opt/fllm
COPY bundle /srv/bundle
ENV FLLM_ONNXRUNTIME=/opt/fllm/lib/libonnxruntime.so
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8080/healthz"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/fllm/bin/fllm_server", "--bundle", "/srv/bundle", "--host", "0.0.0.0", "--port", "8080"]
