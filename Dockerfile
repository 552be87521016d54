# A Python of 3.11 or newer for glibc. Name it with its digest to build on the same one each time.
ARG BASE=python:3.13-slim

FROM ${BASE} AS packages
COPY requirements.txt /
# Wheels alone, so that nothing is compiled. The secret is the pip.conf of who installs from an index of their own: it is in no layer.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --only-binary :all: --require-hashes --requirement /requirements.txt

FROM ${BASE} AS code
WORKDIR /srv
COPY LICENSE ./
COPY chrononaut chrononaut
COPY app app
# Whoever it runs as may read it, however it lay where it was built; and it is compiled here, as nobody can write there later.
RUN chmod -R a+rX,go-w . \
    && python -m compileall -q .

FROM ${BASE}
LABEL org.opencontainers.image.title="Chrononaut" \
    org.opencontainers.image.description="Version history for Flask-SQLAlchemy models over HTTP" \
    org.opencontainers.image.licenses="MIT"
# A user of its own that owns nothing; by number, as Kubernetes sees by that alone that it is not root.
RUN useradd --uid 10001 --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin chrononaut
COPY --from=packages /opt/venv /opt/venv
COPY --from=code /srv /srv
WORKDIR /srv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/srv \
    FLASK_APP=app \
    CHRONONAUT_BIND=0.0.0.0:8000
USER 10001:10001
EXPOSE 8000
# By Python, as there is no curl; directly, whatever proxies the environment names.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, sys; service = http.client.HTTPConnection('127.0.0.1', 8000, timeout=4); service.request('GET', '/health/live'); sys.exit(service.getresponse().status != 200)"]
# Gunicorn is process 1 and needs no init before it: it ends on SIGTERM, and waits for whatever process ends. Its workers show in a
# file that they live, which is always in memory there.
CMD ["gunicorn", "-c", "python:app.server", "--worker-tmp-dir", "/dev/shm", "app:create_app()"]
