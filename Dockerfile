# Stages: `wheel` makes our wheel, `packages` puts it and its locked dependencies into one folder,
# `service`, the last, is the base with that folder: no pip of ours, no compiler, nothing that only a build needs.
#
# BASE is any image with Python 3.11 or later, its modules venv and ensurepip, and a libc that has wheels (glibc, musl).
# A tag moves. To build the same thing twice, give its digest: --build-arg BASE=python:3.13-slim@sha256:…
ARG BASE=python:3.13-slim

FROM ${BASE} AS wheel
WORKDIR /src
RUN ["python3", "-m", "venv", "/build"]
COPY locks/build.txt ./
RUN ["/build/bin/python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--only-binary=:all:", "--require-hashes", "-r", "build.txt"]
COPY pyproject.toml README.md LICENSE openapi.yaml ./
COPY deploy/switchboard.example.yaml deploy/
COPY service service
RUN ["/build/bin/python", "-m", "hatchling", "build", "-t", "wheel", "-d", "/wheels"]

FROM ${BASE} AS packages
# `runtime`; or `demo`: with what `switchboard emulate` and `switchboard dev` need for real WebRTC; or `otel`, or `azure`.
ARG LOCK=runtime
WORKDIR /src
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/switchboard
COPY locks/${LOCK}.txt lock.txt
# Only wheels: an sdist would need a compiler, and would run code of its own while it is built.
RUN ["/build/bin/python", "-m", "pip", "--python", "/opt/switchboard/bin/python", "install", "--quiet", "--no-cache-dir", "--only-binary=:all:", "--require-hashes", "-r", "lock.txt"]
COPY --from=wheel /wheels wheels
RUN ["/build/bin/python", "-m", "pip", "--python", "/opt/switchboard/bin/python", "install", "--quiet", "--no-cache-dir", "--no-index", "--no-deps", "--find-links", "wheels", "realtime-switchboard"]
COPY deploy/healthcheck.py /opt/switchboard/

FROM ${BASE} AS service
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Switchboard" \
      org.opencontainers.image.description="The front door between an app's end users and realtime voice APIs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=packages /opt/switchboard /opt/switchboard
# The root may be read-only: nothing is written but the audit, if it goes to a file. `/etc/switchboard` is where the policy
# is mounted: one YAML file, or several.
ENV PATH=/opt/switchboard/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SWITCHBOARD_CONFIG=/etc/switchboard
# A number, so that Kubernetes can see that it is not root. No account has it, so no file of the base is its own.
USER 65532:65532
WORKDIR /
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Without a shell, here and below: the program is process 1 and gets the signals.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/opt/switchboard/bin/python", "/opt/switchboard/healthcheck.py"]
ENTRYPOINT ["switchboard"]
CMD ["serve"]
