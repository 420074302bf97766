# syntax=docker/dockerfile:1

FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -o /out/dispatch-ledger ./cmd/dispatch-ledger

# The service alone: it works on the database that DATABASE_URL names. For the embedded default on one machine, install
# PostgreSQL beside the binary instead.
FROM alpine:3.22
RUN apk add --no-cache ca-certificates tzdata && \
    addgroup -S -g 10001 dispatch-ledger && \
    adduser -S -D -H -u 10001 -G dispatch-ledger -h /var/lib/dispatch-ledger dispatch-ledger && \
    install -d -o dispatch-ledger -g dispatch-ledger -m 0700 /var/lib/dispatch-ledger
COPY --from=build /out/dispatch-ledger /usr/local/bin/dispatch-ledger
COPY LICENSE /usr/share/licenses/dispatch-ledger/LICENSE

ENV DISPATCH_LEDGER_LISTEN=0.0.0.0:8080 \
    DISPATCH_LEDGER_DATA_DIR=/var/lib/dispatch-ledger \
    DISPATCH_LEDGER_LOG_FORMAT=json
USER 10001:10001
# Keys live here: losing them makes every sealed field unreadable. Keep the volume, and keep a copy elsewhere.
VOLUME /var/lib/dispatch-ledger
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/readyz"]
ENTRYPOINT ["dispatch-ledger"]
CMD ["serve"]
