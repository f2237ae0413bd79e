# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
WORKDIR /src
# Without pip in it: the image runs one program, and installs none.
RUN python -m venv --without-pip /opt/sse-sidecar
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN pip --python /opt/sse-sidecar/bin/python --no-cache-dir --disable-pip-version-check install .

FROM python:3.13-slim
COPY --from=build /opt/sse-sidecar /opt/sse-sidecar
# The root file system may be read-only: nothing is written, bytecode neither.
ENV PATH=/opt/sse-sidecar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HEALTH_URL=http://127.0.0.1:9090/healthz
# A number, so that Kubernetes can verify runAsNonRoot.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# No proxy on the way to ourselves, whatever http_proxy says. Change HEALTH_URL where admin.listen differs.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
  "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open(os.environ['HEALTH_URL'], timeout=2)"]
# In exec form, so that SIGTERM reaches the process and drains. Grant it more time than `drain`: stop_grace_period,
# terminationGracePeriodSeconds.
ENTRYPOINT ["sse-sidecar"]
CMD ["serve", "/etc/sse-sidecar/config.yaml"]
