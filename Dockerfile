# The image is the static binary and nothing else. Build the binary first:
#
#   CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o hearth .
#   docker build -t hearth .
#   docker run -d --name hearth -v hearth:/data -p 8008:8008 -e HEARTH_SERVER_NAME=example.org hearth
#   docker exec -it hearth /hearth user add NAME
FROM scratch
COPY hearth /hearth
ENV HEARTH_DATA=/data HEARTH_LISTEN=:8008
VOLUME /data
EXPOSE 8008
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/hearth", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/hearth"]
