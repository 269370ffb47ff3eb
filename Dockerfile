# The gateway's image: `serve`, `work`, `migrate` and every other command. No compiler, no root, nothing to write to.
ARG PYTHON=python:3.11-slim-trixie

FROM ${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/runtime.txt requirements/
# Only wheels, each checked against its hash: nothing that is installed runs code of its own here.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary=:all: -r requirements/build.txt \
    && python -m venv /opt/webhook-gateway \
    && /opt/webhook-gateway/bin/pip install --require-hashes --only-binary=:all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY src src
# pip is needed while building; in production it would only be something to scan, patch and misuse.
RUN /opt/build/bin/hatchling build -t wheel \
    && /opt/webhook-gateway/bin/pip install --no-deps --no-index dist/*.whl \
    && /opt/webhook-gateway/bin/pip check \
    && /opt/webhook-gateway/bin/pip uninstall --yes pip

FROM ${PYTHON}
LABEL org.opencontainers.image.title="webhook-gateway" \
      org.opencontainers.image.description="Webhook delivery for hospitals" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/webhook-gateway /opt/webhook-gateway
ENV PATH=/opt/webhook-gateway/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    WEBHOOK_GATEWAY_HOST=0.0.0.0
# A number, so that Kubernetes can see that it is not root; it needs no entry in /etc/passwd and owns no file.
USER 10001:10001
WORKDIR /
EXPOSE 8080
STOPSIGNAL SIGTERM
# For `serve`; whoever runs another command turns it off or brings another (compose.yaml does).
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as http; http.urlopen(f\"http://127.0.0.1:{os.environ.get('WEBHOOK_GATEWAY_PORT', '8080')}/healthz\", timeout=4)"]
ENTRYPOINT ["webhook-gateway"]
CMD ["serve"]
