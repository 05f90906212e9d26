# The digest is that of the index of all platforms; docs/deploy.md says how to renew it.
ARG BASE=python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b
FROM ${BASE} AS build
# `otel` adds OpenTelemetry.
ARG EXTRAS=""
WORKDIR /src
COPY deploy/*.lock deploy/
# Everything that is downloaded is locked by its hash (`make lock`), and nothing of it is built here.
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r deploy/build.lock \
    && python -m venv /opt/ras-triage \
    && /opt/ras-triage/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r "deploy/requirements${EXTRAS:+-$EXTRAS}.lock"
COPY pyproject.toml README.md LICENSE ./
COPY docs/ras-triage.1 docs/
COPY models models
COPY policies policies
COPY ras_triage ras_triage
COPY service service
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/ras-triage/bin/pip install --no-cache-dir --no-deps --no-index dist/*.whl \
    && /opt/ras-triage/bin/pip check

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ras-triage \
    && install -d -o 10001 -g 10001 -m 0700 /var/lib/ras-triage
COPY --from=build /opt/ras-triage /opt/ras-triage
# The root file system may be read-only: everything that is written, temporary files too, goes to the volume.
# Inside the container every address is the container's own; without a key, the service refuses to listen there.
ENV PATH="/opt/ras-triage/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/var/lib/ras-triage \
    RAS_TRIAGE_HOST=0.0.0.0 \
    RAS_TRIAGE_PORT=8080 \
    RAS_TRIAGE_STORE=sqlite:////var/lib/ras-triage/store.db \
    RAS_TRIAGE_LOG_FORMAT=json
USER 10001:10001
VOLUME ["/var/lib/ras-triage"]
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/healthz' % os.environ['RAS_TRIAGE_PORT'], timeout=4)"]
ENTRYPOINT ["ras-triage"]
CMD ["serve"]
