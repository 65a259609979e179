# An image of the server. With a model inside:
#   docker build -t iris --build-arg MODEL_DIR=models/iris --build-arg MODEL_NAME=iris .
#   docker run -p 50051:50051 -p 8080:8080 iris
# MODEL_DIR is a directory in the build context. MODEL_NAME is the model's name for callers, `model` by default.
# Without a model inside, mount one. Packages in other versions than it requires cause a warning. A missing package refuses
# the model, and the error says how to install the package:
#   docker build -t mlflow-grpc .
#   docker run -p 50051:50051 -p 8080:8080 -v "$PWD/models/iris:/opt/ml/model:ro" -e MLFLOW_GRPC_MODEL_NAME=iris mlflow-grpc

# With the packages that fetch models from object stores (s3://, gs://, abfss:// and wasbs://):
#   docker build -t mlflow-grpc --build-arg EXTRAS=s3,gs,azure .

# To pin the base image, use its digest: PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG MODEL_NAME=

# The first stage, so that a wrong MODEL_DIR fails within seconds.
FROM ${PYTHON_IMAGE} AS model
ARG MODEL_DIR=
WORKDIR /opt/ml/model
# COPY cannot be conditional. Without MODEL_DIR it copies a file that always exists, which the next step removes.
COPY ${MODEL_DIR:-LICENSE} ./
# The files may be readable by their owner only, and the server runs as another user.
RUN if [ -z "$MODEL_DIR" ]; then rm LICENSE; \
    elif [ ! -f MLmodel ]; then echo "MODEL_DIR=$MODEL_DIR is not an MLflow model: it has no MLmodel file" >&2; exit 1; \
    fi && chmod -R a+rX .

FROM ${PYTHON_IMAGE} AS build
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv

# The locked packages come before the code, because they take the longest and change the least.
WORKDIR /src
ARG EXTRAS=
COPY requirements*.txt ./
RUN set -- -r requirements.txt; \
    for extra in $(echo "$EXTRAS" | tr , ' '); do \
        if [ ! -f "requirements-$extra.txt" ]; then echo "EXTRAS=$EXTRAS: there is no extra $extra" >&2; exit 1; fi; \
        set -- "$@" -r "requirements-$extra.txt"; \
    done; \
    pip install --require-hashes "$@"
COPY pyproject.toml README.md LICENSE ./
COPY mlflow_grpc ./mlflow_grpc
COPY client ./client
RUN pip wheel --no-deps --wheel-dir /wheels . ./client && pip install --no-deps /wheels/*.whl && pip check

# Paths in a model's requirements are relative to the model.
WORKDIR /opt/ml/model
COPY --from=model /opt/ml/model ./
# pip resolves the server's wheels together with the model's requirements. It keeps the locked versions unless the model
# rules them out. If no versions suit both (the model pins an MLflow that the server does not support), the build fails
# with pip's report of the conflict.
RUN if [ -f requirements.txt ]; then pip install -r requirements.txt /wheels/*.whl && pip check; fi

# Used only by `make image-sbom`, which lists the packages in /opt/venv with a tool in a separate environment.
FROM build AS inventory
RUN python -m venv /opt/sbom
COPY sbom-requirements.txt /src/
RUN /opt/sbom/bin/pip install --require-hashes -r /src/sbom-requirements.txt
RUN mkdir /sbom && /opt/sbom/bin/cyclonedx-py environment --pyproject /src/pyproject.toml --mc-type application \
    --output-reproducible --output-file /sbom/sbom.cdx.json /opt/venv/bin/python
FROM scratch AS sbom
COPY --from=inventory /sbom /

FROM ${PYTHON_IMAGE}
# Any other uid works too, because nothing uses this user's name and it owns no file.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin --no-log-init mlflow
COPY --from=build /opt/venv /opt/venv
COPY --from=model /opt/ml /opt/ml

# Only /tmp has to be writable. It is HOME, for the caches of the model's libraries, and the working directory, for
# MLflow's files. PYTHONDONTWRITEBYTECODE keeps Python from writing into a mounted model. PYTHONUNBUFFERED keeps the last
# lines that a model prints before it is killed. MLFLOW_DISABLE_TELEMETRY turns off MLflow's usage telemetry.
ARG MODEL_NAME
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MODEL_PATH=/opt/ml/model \
    MLFLOW_GRPC_MODEL_NAME=$MODEL_NAME \
    HOST=0.0.0.0 \
    PORT=50051 \
    MLFLOW_GRPC_HTTP_PORT=8080
WORKDIR /tmp
USER 10001:10001
EXPOSE 50051 8080

# Pass labels that differ between builds on the command line: docker build --label org.opencontainers.image.revision=...
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="mlflow-grpc" \
    org.opencontainers.image.description="Serves an MLflow model over gRPC and HTTP" \
    org.opencontainers.image.version="0.2.0" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}"

# The shell form, because of PORT. A server with TLS needs another check: docker run --health-cmd.
HEALTHCHECK --start-period=5m --interval=10s --timeout=10s --retries=3 \
    CMD mlflow-grpc-predict --health --address "localhost:$PORT" --timeout 5

# The exec form, so that SIGTERM reaches the server. It drains after 9 s at most, for up to 30 s: docker run --stop-timeout 44.
ENTRYPOINT ["mlflow-grpc"]
CMD ["serve"]
