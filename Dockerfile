FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/ras-triage
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY policies policies
COPY service service
RUN /opt/ras-triage/bin/pip install --no-cache-dir .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin ras-triage
COPY --from=build /opt/ras-triage /opt/ras-triage
ENV PATH="/opt/ras-triage/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
# Inside the container every interface is the container's own; what is published is up to whoever runs it.
ENTRYPOINT ["ras-triage"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
